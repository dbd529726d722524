"""A schedule that has come down to nothing and climbs again is said before it does; of a sound one nothing is said."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from tests.unbroken.train.test_start import Numbers, Quiet
from unbroken.train import open_run

STEPS = 12  # an epoch has 3
Schedule = Callable[[torch.optim.Optimizer], Any]


def train(root: Path, schedule: Schedule, *, steps: int = STEPS, stop_after: int = 0, by_epoch: bool = False) -> Any:
    """The words of a loop, each with the number of steps that were done when it was said."""
    console = Quiet()
    said: dict[str, int] = {}
    with open_run(root, console=console, config={"steps": steps}, effects={"steps": "schedule"}) as run:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        made = schedule(optimizer)
        run.track(model=model, optimizer=optimizer, schedule=made)
        data = Numbers()

        def step(batch: torch.Tensor) -> None:
            said.update({line: run.step for line in console.lines if line not in said})
            model(batch).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            if not by_epoch:
                made.step()
            run.end_step()

        if by_epoch:
            for _ in run.epochs(steps // 3):
                for batch in run.batches(data, batch_size=4):
                    step(batch)
                    if run.step == stop_after:
                        return said
                made.step()
        else:
            for batch in run.batches(data, batch_size=4, steps=steps):
                step(batch)
                if run.step == stop_after:
                    return said
    return said


def rises(said: dict[str, int]) -> list[tuple[str, int]]:
    return [(line.partition(": ")[2].partition(":")[0], at) for line, at in said.items() if "rises" in line]


def cosine(length: int) -> Schedule:
    return lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, T_max=length)


def with_warm_up(length: int) -> Schedule:
    def made(optimizer: torch.optim.Optimizer) -> Any:
        parts = [lr_scheduler.LinearLR(optimizer, 1e-4, total_iters=3), cosine(length)(optimizer)]
        return lr_scheduler.SequentialLR(optimizer, parts, milestones=[3])

    return made


def unclamped(length: int) -> Schedule:
    """As a library of language models has it: half a cosine that nothing stops at its end."""
    return lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda n: 0.5 * (1 + math.cos(math.pi * n / length)))


@pytest.mark.parametrize("short", [cosine(6), with_warm_up(3), unclamped(6)])
def test_a_schedule_that_is_too_short_is_said_after_the_first_step_and_long_before_it_climbs(
    tmp_path: Path, short: Schedule
) -> None:
    ((words, at),) = rises(train(tmp_path, short))
    assert words.startswith("learning rate rises from 0 at step 8 to ") and at <= 2


def test_a_finished_run_that_is_extended_with_the_schedule_it_was_saved_with_is_said_at_launch(tmp_path: Path) -> None:
    assert rises(train(tmp_path, cosine(6), steps=6)) == []
    ((words, at),) = rises(train(tmp_path, cosine(12), steps=12))
    assert words == "learning rate rises from 0 at step 8 to 0.0933 at step 12" and at == 6


def test_a_schedule_that_steps_by_epochs_is_looked_at_by_epochs(tmp_path: Path) -> None:
    assert rises(train(tmp_path / "whole", cosine(4), by_epoch=True)) == []
    ((words, at),) = rises(train(tmp_path / "short", cosine(2), by_epoch=True))
    assert words.startswith("learning rate rises from 0 at step 10 to 0.05 at step 10") and at == 3
    train(tmp_path / "cut", cosine(2), by_epoch=True, stop_after=5)
    ((again, at),) = rises(train(tmp_path / "cut", cosine(2), by_epoch=True))
    assert again == words and at == 6  # how long an epoch is, its first step tells


FINE: dict[str, Schedule] = {
    "as long as the training": cosine(STEPS),
    "longer": cosine(2 * STEPS),
    "a warm-up": with_warm_up(STEPS - 3),
    "restarts that are meant": lambda optimizer: lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=4),
    "a triangle that is meant": lambda optimizer: lr_scheduler.CyclicLR(optimizer, 1e-6, 0.1, step_size_up=3),
    "steps": lambda optimizer: lr_scheduler.StepLR(optimizer, 2, gamma=0.01),
    "one cycle": lambda optimizer: lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=STEPS + 1),
    "one that raises later": lambda optimizer: lr_scheduler.LambdaLR(optimizer, lambda n: [1.0, 0.5, 0.0, 0.0][n]),
}


@pytest.mark.parametrize("kind", FINE)
def test_of_a_schedule_that_is_as_it_should_be_nothing_is_said_and_nothing_is_moved(tmp_path: Path, kind: str) -> None:
    until = 2 if kind == "one that raises later" else 5
    assert rises(train(tmp_path / "cut", FINE[kind], stop_after=until)) == []
    if kind != "one that raises later":
        assert rises(train(tmp_path / "cut", FINE[kind])) == []
        train(tmp_path / "whole", FINE[kind])
        rates = [
            [line.partition('"lr":')[2].partition(",")[0] for line in path.read_text().splitlines()]
            for path in sorted(tmp_path.glob("*/default/unbroken/metrics.jsonl"))
        ]
        assert rates[0] == rates[1] and len(rates[0]) == STEPS
