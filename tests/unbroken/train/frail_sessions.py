"""Sessions of the frail recipe in this process, and what they leave."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tests.twin.frail import read
from unbroken.launch import Environment
from unbroken.launch.job import Accidents
from unbroken.train import Exit, Task, fit, run_job
from unbroken.train.record.console import StepReport
from unbroken.train.start import launch


@dataclass
class Listener:
    """A console that keeps what is said."""

    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, report: StepReport, line: str) -> None:
        pass

    def close(self) -> None:
        pass


def session(run: Path, *options: object) -> tuple[int, str]:
    """One session: its exit code and what it said. Errors are raised."""
    listener = Listener()
    torch.set_num_threads(1)
    try:
        run_job(read([str(run), *map(str, options)], Environment(command="frail")), listener)
    except Exit as ending:
        return int(str(ending.code)), "\n".join(listener.lines)
    return 0, "\n".join(listener.lines)


def fitted(run: Path, task: Task, *options: object, accidents: Accidents | None = None) -> str:
    """The same with another task than the recipe's; returns what was said."""
    listener = Listener()
    with launch(read([str(run), *map(str, options)], Environment()), console=listener) as opened:
        fit(opened, task, accidents=accidents)
    return "\n".join(listener.lines)


def losses(records: dict[int, dict[str, Any]]) -> list[float]:
    return [record["loss"] for _, record in sorted(records.items())]


def samples(records: dict[int, dict[str, Any]]) -> list[list[int]]:
    return [record["samples"] for _, record in sorted(records.items())]
