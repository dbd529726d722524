"""Saying what happens: to the person at the terminal, to the session's log, to its scalars file.

At a terminal a bar shows step, loss, learning rate and time left; elsewhere plain lines do.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TextIO

from unbroken.clock import Clock
from unbroken.launch.host import in_notebook
from unbroken.quantities import clock_time
from unbroken.run import ITERATIONS
from unbroken.storage import Disk, explained
from unbroken.storage.durable import PatientFile
from unbroken.storage.files import turn_away
from unbroken.text import as_bytes, encodable

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.console import ConsoleOptions, RenderableType
    from rich.live import Live

CANNOT_LOG = "the session's log cannot be written"
FIRST_QUIET_S, QUIET_S = 8.0, 60.0  # so long nobody waits for a word: in the beginning, and later
SHORTEST_BAR, LONGEST_BAR = 8, 40  # columns


@dataclass(kw_only=True, slots=True)  # one is made in each step, and of a frozen one that takes four times as long
class StepReport:
    """One finished step, for a line or a bar.

    Args:
        step: Its number, from 1.
        total: Steps of the whole training; None where that is not known.
        epoch: The one it belongs to, from 0.
        values: What was logged of it.
        step_s: Seconds that a step takes, reading included: the mean of the last ones.
        data_s: Seconds of that spent waiting for data, likewise.
        eta_s: Seconds left at this session's pace; None where the end is not known.
        elapsed_s: Seconds since this session began.
        due: Whether this step is to be written down.
        doing: Or "validation", of the weights after this step.
    """

    step: int
    total: int | None
    epoch: int
    values: Mapping[str, float] = field(default_factory=dict)
    step_s: float
    data_s: float
    eta_s: float | None
    elapsed_s: float
    due: bool
    doing: str = "training"


class Console(Protocol):
    """Where a session's words go besides its log."""

    def say(self, line: str) -> None:
        """Show one line."""
        ...

    def step(self, report: StepReport, line: str) -> None:
        """Show progress; `line` says it in the words of the log, or is empty where the log is silent."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class PlainConsole:
    """Plain lines on standard output, as logs and notebooks want them."""

    def say(self, line: str) -> None:
        """Show one line.

        Args:
            line: Text without a line feed; what the terminal cannot show is escaped.
        """
        print(encodable(line, getattr(sys.stdout, "encoding", None)), file=sys.stdout, flush=True)

    def step(self, report: StepReport, line: str) -> None:  # noqa: ARG002 - it is drawn by those that have a bar
        """Show the line of a step that has one.

        Args:
            report: The step; a bar would draw it.
            line: What is shown; nothing where it is empty.
        """
        if line:
            self.say(line)

    def close(self) -> None:
        """Leave the terminal as it was: nothing was changed."""


class SessionLog:
    """The readable output of one session: text log and scalars; holds its lines back until it may write.

    Once it is open, nothing that refuses its words ends a training: lines wait for the disk, and a terminal that is
    gone is spoken to no more.
    """

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console, self._clock = console, clock
        self.step_line: Callable[[StepReport], str] = step_line
        self._moment = ITERATIONS.log_moment
        self._waiting: list[tuple[datetime, str]] = []
        self._disk: Disk | None = None
        self._path = Path()
        self._text: PatientFile | None = None
        self._scalars: list[PatientFile] = []
        self._console_gone = False
        self._last: StepReport | None = None
        self._quiet_until_s = FIRST_QUIET_S

    def open(self, disk: Disk, text: Path, scalars: tuple[Path, ...], *, moment: str) -> None:
        """Begin to write, each line after its `moment`; what was said before is written first."""
        self._disk, self._path, self._moment = disk, text, moment
        with explained(disk, text, CANNOT_LOG):
            for path in (text, *scalars):
                disk.make_folder(path.parent)
            self._text = PatientFile(disk, disk.open_append(text))
            self._scalars = [PatientFile(disk, disk.open_append(path)) for path in scalars]
            for when, line in self._waiting:
                self._text.add(self._dated(when, line))
            self._text.write()
        self._waiting.clear()

    def say(self, line: str) -> None:
        """Show a line and log it."""
        self._show(lambda: self._console.say(line))
        self._log(line)

    def note(self, line: str) -> None:
        """Log a line that was shown already."""
        self._log(line)

    def begin(self, step: int, total: int | None) -> None:
        """Show how far the run is, where progress is shown: the first step of a session may take long."""
        self._last = report = StepReport(
            step=step, total=total, epoch=0, step_s=0.0, data_s=0.0, eta_s=None, elapsed_s=0.0, due=False
        )
        self._show(lambda: self._console.step(report, ""))

    def step(self, report: StepReport) -> None:
        """Show progress; write it down when it is due, and say it when nothing was said for long."""
        self._last = report
        said = report.due or report.elapsed_s >= self._quiet_until_s
        line = self.step_line(report) if said else ""
        if not self._console_gone:
            try:
                self._console.step(report, line)
            except OSError as error:
                self._turn_away(error)
        if not said:
            return
        self._quiet_until_s = report.elapsed_s + QUIET_S
        self._log(line)
        if not report.due:
            return
        timing = {"data_time": report.data_s, "time": report.step_s}
        self._scalar({**report.values, **timing, "epoch": report.epoch, "iter": report.step, "step": report.step})

    def doing(self, what: str) -> None:
        """Show what is done now, where progress is shown: "training" or "validation"."""
        if self._last is not None and self._last.doing != what:
            self._last = report = replace(self._last, doing=what, due=False)
            self._show(lambda: self._console.step(report, ""))

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Write an evaluation down at the step whose weights it judged."""
        self._scalar({**values, "step": step})

    def close(self) -> None:
        """Close the files and the console."""
        for file in (self._text, *self._scalars):
            if file is not None:
                self._write(file)
                file.close()
        lost = self._text.waiting if self._text is not None else 0
        self._disk, self._text, self._scalars = None, None, []
        if lost:
            self._show(lambda: self._console.say(f"warning: the last {lost} lines are not in {self._path}"))
        self._show(self._console.close)

    def _show(self, action: Callable[[], None]) -> None:
        """Do something at the console; where it is gone, say so once in the log and turn away from it."""
        if self._console_gone:
            return
        try:
            action()
        except OSError as error:
            self._turn_away(error)

    def _turn_away(self, error: OSError) -> None:
        self._console_gone = True
        turn_away()
        self._log(f"warning: the output cannot be written ({error.strerror}); this log goes on")

    def _log(self, line: str) -> None:
        now = self._clock.now()
        if self._text is None:
            self._waiting.append((now, line))
            return
        self._text.add(self._dated(now, line))
        self._write(self._text)

    def _dated(self, when: datetime, line: str) -> bytes:
        moment = when.strftime(self._moment)
        return as_bytes("".join(f"{moment}{part}\n" for part in line.split("\n")))

    def _scalar(self, values: Mapping[str, float]) -> None:
        line = as_bytes(json.dumps(dict(values)) + "\n")
        for file in self._scalars:
            file.add(line)
            self._write(file)

    def _write(self, file: PatientFile) -> None:
        with suppress(OSError):  # it waits for the next line
            file.write()


def step_line(report: StepReport) -> str:
    """`Iter(train) [ 10/400]  lr: 7.1429e-04  eta: 0:00:31  time: 0.0812  data_time: 0.0023  loss: 2.0435 ...`."""
    total = str(report.total) if report.total is not None else "?"
    values = dict(report.values)
    words = [f"Iter(train) [{report.step:>{len(total)}}/{total}]"]
    if "lr" in values:
        words.append(f"lr: {values.pop('lr'):.4e}")
    if report.eta_s is not None:
        words.append(f"eta: {clock_time(report.eta_s)}")
    words += [f"time: {report.step_s:.4f}", f"data_time: {report.data_s:.4f}"]
    words += [f"{name}: {value:.4f}" for name, value in values.items()]
    return "  ".join(words)


def console_for(stream: TextIO | None) -> Console:
    """Return a bar where a person watches, plain lines where a file or a notebook does.

    Args:
        stream: Standard output, or None where there is none.
    """
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
