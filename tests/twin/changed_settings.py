"""Trainings of both applications that are stopped and go on with another setting, and what is asked of them."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from focalsst.recipes import read as read_sonar
from mapsage.recipes import read as read_aerial
from tests.twin import sonar
from tests.twin.killing import step_records
from tests.twin.test_extending import lr, watched
from unbroken import Job
from unbroken.config import Effect
from unbroken.launch import Environment, Resume, decide, gather
from unbroken.train import Exit, run_job
from unbroken.train.data.order import Order, Permutations

FREE, DATA, SCHEDULE = Effect.FREE, Effect.DATA, Effect.SCHEDULE
# Of the sonar: an epoch has seven steps, the last one of one frame, and it stops in mid-epoch.
FRAMES, EPOCHS, BATCH, STOP = 13, 3, 2, 10
AUGMENTED = """
            - {NAME: random_world_flip, ALONG_AXIS_LIST: ['x']}
            - {NAME: random_world_rotation, WORLD_ROT_ANGLE: [-0.3927, 0.3927]}
"""
# Of the aerial one: four tiles to a step: after ten steps twelve of the third pass are used
TILES, STEPS, AT = 14, 18, 10


class Stopping:
    """A console that sends this process a real SIGTERM after a step, and keeps what is said."""

    def __init__(self, after: int | None = None) -> None:
        self.after, self.lines = after, list[str]()

    def say(self, line: str) -> None:
        self.lines.append(line)

    def step(self, report: Any, _line: str) -> None:
        if report.step == self.after:
            signal.raise_signal(signal.SIGTERM)

    def close(self) -> None:
        pass


def trained(job: Job, *, stop_after: int | None = None) -> list[float]:
    """Train, to the end or until it is stopped; returns the rate that the optimizer used in each step."""
    torch.set_num_threads(1)
    ends: AbstractContextManager[Any] = pytest.raises(Exit) if stop_after else nullcontext()
    with watched(lr) as used, ends:
        run_job(job, Stopping(stop_after))
    assert all(len(set(rates)) == 1 for rates in used)
    return [rates[0] for rates in used]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is changed, as it is typed or as another text in the config, and the keys that the plan has to list."""

    name: str
    options: tuple[str, ...] = ()
    replaced: tuple[tuple[str, str], ...] = ()
    changed: dict[str, Effect] = field(default_factory=dict)


def resumed(job: Job, case: Case) -> Resume:
    """The plan: it goes on, and lists the changed keys once each, with their effect, and no others."""
    plan = decide(job, gather(job))
    assert isinstance(plan, Resume), plan.reasons
    assert [(change.key, change.effect) for change in plan.changes] == list(case.changed.items())
    anew = any("bit-exactness starts anew" in reason for reason in plan.reasons)
    assert anew == (DATA in case.changed.values())
    return plan


def in_order(size: int, seed: int, shuffle: Any, number: int) -> list[int]:
    """The first samples of a training that nobody touched."""
    permutations = Permutations(Order(size=size, seed=seed, shuffle=shuffle))
    return list(islice((sample for epoch in range(10_000) for sample in permutations.of(epoch)), number))


def used_samples(run: Path) -> list[int]:
    """The samples of all steps, of all sessions, as they were used."""
    records = step_records(run)
    assert sorted(records) == list(range(1, len(records) + 1))
    return [sample for _, record in sorted(records.items()) for sample in record["samples"]]


def sonar_arguments(folder: Path, *options: str) -> list[str]:
    kept = ["--cfg_file", str(folder / "cfgs/sonar_models/tiny.yaml"), "--output", str(folder / "output")]
    workers = [] if "--workers" in options else ["--workers", "0"]
    quick = ["--eval_interval", "0", "--pictures", "0"]
    return [*kept, "--extra_tag", "run", *quick, "--device", "cpu", *workers, *options]


def sonar_job(folder: Path, *options: str) -> Job:
    return read_sonar(sonar_arguments(folder, *options), Environment())


def write_sonar(folder: Path, *, accumulate: int = 1) -> None:
    config = sonar.write_job(folder, frames=FRAMES, epochs=EPOCHS, accumulate=accumulate, pasting=False)
    config.write_text(config.read_text("utf-8").replace("AUG_CONFIG_LIST: []", f"AUG_CONFIG_LIST:{AUGMENTED}"), "utf-8")


def with_options(*pairs: str) -> tuple[str, ...]:
    return ("--cfg-options", *pairs)


def aerial_arguments(folder: Path, *options: str) -> list[str]:
    workers = [] if "--workers" in options else ["--workers", "0"]
    kept = [str(folder / "small.py"), "--work-dir", str(folder / "run"), "--tag", "run", "--device", "cpu"]
    return [*kept, "--pictures", "0", *workers, *options]


def aerial_job(folder: Path, *options: str) -> Job:
    return read_aerial(aerial_arguments(folder, *options), Environment())
