"""`watch`: a run followed from another terminal: a bar where a person looks, a line per change elsewhere."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.text import Text

from unbroken.cli.args import CommandParser
from unbroken.cli.runs import add_run, run_folder
from unbroken.clock import SystemClock, shown_time
from unbroken.quantities import asked, clock_time, duration_s, duration_text, size_text
from unbroken.report import RunStatus, Watch
from unbroken.storage import Disk
from unbroken.text import shown

SHORTEST_S = 0.05
MOST_VALUES = 6
MOST_EVENTS = 5
Show = Callable[[RunStatus], None]


def watch_options(parser: CommandParser) -> None:
    """A run, and how it is followed."""
    add_run(parser)
    parser.add_argument("--every", default="2s", metavar="TIME", help="how often to look: 2s, 500ms, 1m (default: 2s)")
    parser.add_argument("--wait", action="store_true", help="wait for a run that has not begun")
    parser.add_examples("unbroken watch RUN --every 10s")


def watch_command(options: argparse.Namespace) -> int:
    """Follow a run from another terminal, and end when it ends: progress, losses, rate, time left, saves, evaluations.

    It only reads. Where the output is no terminal, it prints one plain line per change.
    """
    run, wait = options.run, options.wait
    every_s = max(asked("--every", duration_s, options.every), SHORTEST_S)
    if not wait:
        run_folder(run)
    watch = Watch(run, SystemClock(), Disk())
    console = Console(highlight=False)
    try:
        if console.is_terminal and not console.is_dumb_terminal:
            with Live(console=console, auto_refresh=False) as live:
                last = _follow(watch, _bars(live), every_s, wait=wait)
        else:
            last = _follow(watch, _lines(), every_s, wait=wait)
    except KeyboardInterrupt:  # how one leaves it; the run is not concerned
        return 0
    for line in _ending(run, last):
        print(line, flush=True)
    return 0


def _follow(watch: Watch, show: Show, every_s: float, *, wait: bool) -> RunStatus:
    """Look, show, wait; until the run is let go."""
    said = False
    while True:
        status = watch.poll()
        if not status.live and (status.begun or not wait):
            if said:
                show(status)
            return status
        if status.live or not said:
            show(status)
        said = True
        time.sleep(every_s)


def _ending(run: Path, last: RunStatus) -> Iterator[str]:
    """How it ended, and the command that goes on."""
    if not last.begun:
        yield shown(f"{run}: no session has begun here and no process holds it (--wait waits for one)")
        return
    yield shown(f"{run}: {last.state} after step {_of(last)}; no process holds it")
    if last.state != "finished" and last.command:
        yield shown(f"to go on: {last.command}")


# -- a line per change -------------------------------------------------------------------------------------------------


def _lines() -> Show:
    before: list[str] = []
    begun: list[bool] = []

    def show(status: RunStatus) -> None:
        moment = shown_time(SystemClock().now())
        events = status.events if begun else status.events[-1:]  # what was before the first look is history
        for words in events:
            print(shown(f"{moment}  {words}"), flush=True)
        begun.append(True)
        state = f"{status.step} {status.state}"
        if state not in before[-1:]:
            before[:] = [state]
            print(shown(f"{moment}  {'  '.join(words_of(status))}"), flush=True)

    return show


def words_of(status: RunStatus) -> Iterator[str]:
    """One line about a run, in parts."""
    if not status.live and not status.begun:
        yield "waiting for the run to begin"
        return
    if status.state != "running":
        yield status.state
    yield f"step {_of(status)}"
    if status.epoch is not None:
        yield f"epoch {status.epoch}"
    yield from _values(status)
    yield from _pace(status)
    yield from _kept(status)


def _of(status: RunStatus) -> str:
    return f"{status.step}/{status.total}" if status.total is not None else str(status.step)


def _values(status: RunStatus) -> Iterator[str]:
    for name, value in list(status.values.items())[:MOST_VALUES]:
        yield f"{name} {value:.2e}" if name == "lr" else f"{name} {value:.4g}"


def _pace(status: RunStatus) -> Iterator[str]:
    if status.steps_per_s is not None and status.live:
        yield f"{status.steps_per_s:.2f} steps/s"
    if status.left_s is not None and status.live:
        yield f"{clock_time(status.left_s)} left"
    if status.deadline_left_s is not None and status.live:
        yield f"session ends in {clock_time(status.deadline_left_s)}"


def _kept(status: RunStatus) -> Iterator[str]:
    if status.saved and status.saved_ago_s is not None:
        every = f", about every {duration_text(status.save_every_s)}" if status.save_every_s is not None else ""
        yield f"saved {status.saved} {clock_time(status.saved_ago_s)} ago{every}"
    if status.best:
        yield f"best {status.best}"
    if status.free_bytes is not None:
        yield f"free {size_text(status.free_bytes)}"


# -- at a terminal -----------------------------------------------------------------------------------------------------


def _bars(live: Live) -> Show:
    events: list[str] = []

    def show(status: RunStatus) -> None:
        events[:] = [*events, *status.events][-MOST_EVENTS:]
        live.update(picture(status, events), refresh=True)

    return show


def picture(status: RunStatus, events: list[str]) -> Group:
    """The bar, and below it what belongs to it."""
    head = Text(shown(f"{status.state}  step {_of(status)}" + (f"  epoch {status.epoch}" if status.epoch else "")))
    bar = ProgressBar(total=status.total, completed=status.step, width=60) if status.total else Text("")
    rows = [
        ("now", _values(status)),
        ("pace", _pace(status)),
        ("kept", _kept(status)),
        ("evaluated", _evaluated(status)),
    ]
    lines = [(name, "  ".join(words)) for name, words in rows]
    body = [Text(shown(f"{name:<10}{words}"), no_wrap=True, overflow="ellipsis") for name, words in lines if words]
    return Group(
        head, bar, *body, *(Text(shown(words), style="dim", no_wrap=True, overflow="ellipsis") for words in events)
    )


def _evaluated(status: RunStatus) -> Iterator[str]:
    if status.evaluated_step is not None:
        yield f"after step {status.evaluated_step}:"
        names = sorted(status.evaluated, key=lambda name: "/" in name)[:MOST_VALUES]
        yield from (f"{name} {status.evaluated[name]:.4g}" for name in names)
