"""The nano detector on a few frames of our own, in this process: jobs, sessions, and frames that are spoiled."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from focalsst.recipes import read
from tests.twin.sonar import write_job
from unbroken import Job
from unbroken.journal import read_events
from unbroken.launch import Environment
from unbroken.train import Exit, run_job
from unbroken.train.record.console import StepReport

FRAMES, BATCH = 9, 2
CONFIG = "cfgs/sonar_models/tiny.yaml"


def write_nano_job(folder: Path, *, epochs: int = 2, accumulate: int = 1, pasting: bool = False) -> Path:
    """The application's folder with configs and data; returns the data root."""
    write_job(folder, frames=FRAMES, epochs=epochs, accumulate=accumulate, pasting=pasting)
    return folder / "data" / "sonar"


def job(*options: object, config: str = CONFIG, **environment: Any) -> Job:
    """What the command line makes of options; the current folder is the application's."""
    arguments = ["--cfg_file", config, *map(str, options)]
    command = f"python train.py {' '.join(arguments)}"
    return read(arguments, Environment(command=command, program="train.py", **environment))


def frame(root: Path, index: int, split: str = "train") -> Path:
    """The file of points of a frame by its place in its split."""
    return root / "points_binary" / f"{(root / 'ImageSets' / f'{split}.txt').read_text().split()[index]}.bin"


@dataclass
class Listener:
    """A console that keeps what is said, and sends this process a real SIGTERM after a step."""

    stop_at: int | None = None
    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, report: StepReport, line: str) -> None:
        self.lines.append(line)
        if report.step == self.stop_at:
            signal.raise_signal(signal.SIGTERM)

    def close(self) -> None:
        pass

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def session(asked: Job, *, stop_at: int | None = None, pictures: int = 0) -> tuple[int, str]:
    """One session in this process: its exit code and what it said. Errors and refusals are raised.

    Pictures would be half of what it costs: they are drawn where somebody looks at them.
    """
    listener = Listener(stop_at)
    torch.set_num_threads(1)
    try:
        run_job(replace(asked, options=replace(asked.options, pictures=pictures)), listener)
    except Exit as ending:
        return int(str(ending.code)), listener.text
    return 0, listener.text


def events(run: Path, name: str) -> list[dict[str, Any]]:
    """The run's events of one kind."""
    return [event for event in read_events(run / "unbroken" / "journal.jsonl") if event["event"] == name]


def steps(run: Path) -> list[dict[str, Any]]:
    """The last record of each step."""
    lines = [json.loads(line) for line in (run / "unbroken" / "metrics.jsonl").read_text().splitlines()]
    return [line for _, line in sorted({line["step"]: line for line in lines if "samples" in line}.items())]
