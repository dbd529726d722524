"""Progress at a terminal: a bar with loss, learning rate and time left; elsewhere plain lines."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console as RichConsole
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from unbroken.launch.host import in_notebook
from unbroken.train.console import Console, PlainConsole, StepReport
from unbroken.values import clock_time


def console_for(stream: TextIO) -> Console:
    """A bar where a person watches, lines where a file or a notebook does."""
    terminal = RichConsole(file=stream)
    watched = terminal.is_terminal and not terminal.is_dumb_terminal and not in_notebook()
    return BarConsole() if watched else PlainConsole()


class BarConsole:
    """One bar at the bottom, words above it."""

    def __init__(self) -> None:
        self._rich = RichConsole(highlight=False)
        self._progress: Progress | None = None

    def say(self, line: str) -> None:
        """Show one line above the bar."""
        self._rich.print(line, markup=False, soft_wrap=True)

    def step(self, report: StepReport, line: str) -> None:  # noqa: ARG002 - the bar says it its own way
        """Move the bar."""
        if self._progress is None:
            self._progress = Progress(
                TextColumn("training"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[words]}"),
                console=self._rich,
                transient=True,
            )
            self._progress.add_task("training", total=report.total, completed=report.step, words=_words(report))
            self._progress.start()
        self._progress.update(
            self._progress.task_ids[0], completed=report.step, total=report.total, words=_words(report)
        )

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _words(report: StepReport) -> str:
    values = report.values
    words = [f"loss {values['loss']:.4f}"] if "loss" in values else []
    words += [f"lr {values['lr']:.2e}"] if "lr" in values else []
    words += [f"{report.step_s:.2f} s/step"]
    words += [f"{clock_time(report.eta_s)} left"] if report.eta_s is not None else []
    return "  ".join(words)
