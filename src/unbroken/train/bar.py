"""Progress at a terminal: a bar with step, loss, learning rate and time left; elsewhere plain lines."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from unbroken.launch.host import in_notebook
from unbroken.quantities import clock_time
from unbroken.train.console import Console, PlainConsole, StepReport

if TYPE_CHECKING:  # only who has a terminal pays for it
    from rich.console import Console as RichConsole
    from rich.console import ConsoleOptions, RenderableType
    from rich.live import Live

SHORTEST_BAR, LONGEST_BAR = 8, 40  # columns


def console_for(stream: TextIO | None) -> Console:
    """A bar where a person watches, lines where a file or a notebook does."""
    if stream is None or not stream.isatty() or in_notebook():
        return PlainConsole()
    from rich.console import Console as RichConsole

    terminal = RichConsole(file=stream, highlight=False)
    return PlainConsole() if terminal.is_dumb_terminal else BarConsole(terminal)


class BarConsole:
    """One bar at the bottom, words above it; lines while another program's bar is there."""

    def __init__(self, terminal: RichConsole) -> None:
        self._terminal = terminal
        self._live: Live | None = None
        self._report: StepReport | None = None

    def say(self, line: str) -> None:
        """Show one line above the bar."""
        self._terminal.print(line, markup=False, soft_wrap=True)

    def step(self, report: StepReport, line: str) -> None:
        """Move the bar."""
        if self._live is None and _others_draw():
            if line:
                self.say(line)
            return
        self._report = report
        if self._live is None:
            from rich.live import Live

            self._live = Live(console=self._terminal, get_renderable=self._line, transient=True)
            self._live.start()

    def close(self) -> None:
        """Take the bar away."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _line(self) -> RenderableType:
        return BarLine(self._report) if self._report is not None else ""


class BarLine:
    """One step as one line, in whatever width there is: what it does and the step always, then as much as fits."""

    def __init__(self, report: StepReport) -> None:
        self._report = report

    def __rich_console__(self, console: RichConsole, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw it."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        report = self._report
        words = line_words(report, options.max_width)
        room = options.max_width - len(report.doing) - len(words) - 2
        bar = ProgressBar(total=report.total, completed=report.step, width=max(1, min(LONGEST_BAR, room)))
        row = Table.grid(padding=(0, 1, 0, 0))
        for _ in range(3):
            row.add_column(no_wrap=True, overflow="crop")
        row.add_row(report.doing, bar, words)
        yield row


def line_words(report: StepReport, width: int) -> str:
    """What stands behind the bar: the step, then of loss, time left, rate and pace as many as fit into `width`."""
    values, total = report.values, "?" if report.total is None else report.total
    said = f"{report.step}/{total}"
    room = width - len(report.doing) - SHORTEST_BAR - 2
    wanted = [f"loss {values['loss']:.4f}"] if "loss" in values else []
    wanted += [f"{clock_time(report.eta_s)} left"] if report.eta_s is not None else []
    wanted += [f"lr {values['lr']:.2e}"] if "lr" in values else []
    wanted += [f"{report.step_s:.2f} s/step" if report.step_s else "the first step of this session"]
    for word in wanted:
        if len(said) + 2 + len(word) <= room:
            said += f"  {word}"
    return said


def _others_draw() -> bool:
    """Whether the loop has a bar of its own: two would draw over each other."""
    tqdm = getattr(sys.modules.get("tqdm.std"), "tqdm", None)
    return bool(getattr(tqdm, "_instances", ()))
