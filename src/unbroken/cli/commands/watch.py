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
from unbroken.quantities import asked, clock_time, duration_s, size_text
from unbroken.report import Glance, Watch
from unbroken.storage import Disk
from unbroken.text import shown

SHORTEST_S = 0.05
MOST_VALUES = 6
MOST_NEWS = 5
Show = Callable[[Glance], None]


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


def _follow(watch: Watch, show: Show, every_s: float, *, wait: bool) -> Glance:
    """Look, show, wait; until the run is let go."""
    said = False
    while True:
        glance = watch.look()
        if not glance.live and (glance.begun or not wait):
            if said:
                show(glance)
            return glance
        if glance.live or not said:
            show(glance)
        said = True
        time.sleep(every_s)


def _ending(run: Path, last: Glance) -> Iterator[str]:
    """How it ended, and the command that goes on."""
    if not last.begun:
        yield shown(f"{run}: no session has begun here and no process holds it (--wait waits for one)")
        return
    yield shown(f"{run}: {last.status} after step {_of(last)}; no process holds it")
    if last.status != "finished" and last.command:
        yield shown(f"to go on: {last.command}")


# -- a line per change -------------------------------------------------------------------------------------------------


def _lines() -> Show:
    before: list[str] = []
    begun: list[bool] = []

    def show(glance: Glance) -> None:
        moment = shown_time(SystemClock().now())
        news = glance.news if begun else glance.news[-1:]  # what was before the first look is history
        for words in news:
            print(shown(f"{moment}  {words}"), flush=True)
        begun.append(True)
        state = f"{glance.step} {glance.status}"
        if state not in before[-1:]:
            before[:] = [state]
            print(shown(f"{moment}  {'  '.join(words_of(glance))}"), flush=True)

    return show


def words_of(glance: Glance) -> Iterator[str]:
    """One line about a run, in parts."""
    if not glance.live and not glance.begun:
        yield "waiting for the run to begin"
        return
    if glance.status != "running":
        yield glance.status
    yield f"step {_of(glance)}"
    if glance.epoch is not None:
        yield f"epoch {glance.epoch}"
    yield from _values(glance)
    yield from _pace(glance)
    yield from _kept(glance)


def _of(glance: Glance) -> str:
    return f"{glance.step}/{glance.total}" if glance.total is not None else str(glance.step)


def _values(glance: Glance) -> Iterator[str]:
    for name, value in list(glance.values.items())[:MOST_VALUES]:
        yield f"{name} {value:.2e}" if name == "lr" else f"{name} {value:.4g}"


def _pace(glance: Glance) -> Iterator[str]:
    if glance.steps_per_s is not None and glance.live:
        yield f"{glance.steps_per_s:.2f} steps/s"
    if glance.left_s is not None and glance.live:
        yield f"{clock_time(glance.left_s)} left"
    if glance.deadline_left_s is not None and glance.live:
        yield f"session ends in {clock_time(glance.deadline_left_s)}"


def _kept(glance: Glance) -> Iterator[str]:
    if glance.saved and glance.saved_ago_s is not None:
        yield f"saved {glance.saved} {clock_time(glance.saved_ago_s)} ago"
    if glance.best:
        yield f"best {glance.best}"
    if glance.free_bytes is not None:
        yield f"free {size_text(glance.free_bytes)}"


# -- at a terminal -----------------------------------------------------------------------------------------------------


def _bars(live: Live) -> Show:
    news: list[str] = []

    def show(glance: Glance) -> None:
        news[:] = [*news, *glance.news][-MOST_NEWS:]
        live.update(picture(glance, news), refresh=True)

    return show


def picture(glance: Glance, news: list[str]) -> Group:
    """The bar, and below it what belongs to it."""
    head = Text(shown(f"{glance.status}  step {_of(glance)}" + (f"  epoch {glance.epoch}" if glance.epoch else "")))
    bar = ProgressBar(total=glance.total, completed=glance.step, width=60) if glance.total else Text("")
    rows = [
        ("now", _values(glance)),
        ("pace", _pace(glance)),
        ("kept", _kept(glance)),
        ("evaluated", _evaluated(glance)),
    ]
    lines = [(name, "  ".join(words)) for name, words in rows]
    body = [Text(shown(f"{name:<10}{words}"), no_wrap=True, overflow="ellipsis") for name, words in lines if words]
    return Group(
        head, bar, *body, *(Text(shown(words), style="dim", no_wrap=True, overflow="ellipsis") for words in news)
    )


def _evaluated(glance: Glance) -> Iterator[str]:
    if glance.evaluated_step is not None:
        yield f"after step {glance.evaluated_step}:"
        names = sorted(glance.evaluated, key=lambda name: "/" in name)[:MOST_VALUES]
        yield from (f"{name} {glance.evaluated[name]:.4g}" for name in names)
