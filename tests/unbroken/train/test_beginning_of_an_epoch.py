"""What a loop does before the batches of an epoch is done once, however often a session begins in its middle."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from tests.unbroken.train.test_boundaries import Here, Parts, Points, twin_of_peace
from tests.unbroken.train.test_module_attributes import Own
from unbroken.train import TrainingRun


def beginnings(run: TrainingRun, here: Here) -> None:
    """Counts, resets, a schedule's step, a rate, an attribute and modes, each at the beginning of an epoch."""
    parts: Any = Parts(run)
    own, points, sums = Own(), Points(), {"epochs": 0, "loss": 0.0}
    run.track(own=own, sums=sums)
    for _ in run.epochs(3):
        sums["epochs"] += 1
        sums["loss"] = 0.0
        if sums["epochs"] > 1:  # torch warns of one before the first step
            parts.schedule.step()
        parts.optimizer.param_groups[0]["momentum"] *= 0.9
        parts.model[3].weight.data.mul_(0.9)
        own.scale /= 2
        parts.model.train()
        here("begin")
        for batch in run.batches(points, batch_size=4):
            loss = parts.step((batch * sums["epochs"] + sums["loss"]) * own.scale)
            sums["loss"] += float(loss) / 10
            run.log(loss=loss)
            if run.step % 6 == 2:
                parts.model[1].eval()
            here("step")
        parts.seen["values"].append(sums["loss"])


@pytest.mark.parametrize(
    ("place", "turns", "number"),
    [("step", (9, 2), signal.SIGKILL), ("step", (9, 2), signal.SIGTERM), ("begin", (2, 2), signal.SIGTERM)],
)
def test_a_session_in_the_middle_of_an_epoch_keeps_what_stood_there(
    tmp_path: Path, place: str, turns: tuple[int, int], number: int
) -> None:
    one, log = twin_of_peace(tmp_path, beginnings, place, turns, number)
    assert all(weight.isfinite().all() for weight in one["state_dict"].values()), "a NaN would hide all"
    said = "is done again, and what it changed of model, optimizer, own, schedule, sums is put back"
    assert f"epoch 2 had begun: what the loop does before its batches {said}" in log
