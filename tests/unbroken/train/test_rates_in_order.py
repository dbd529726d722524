"""Whatever a schedule of torch keeps for each group of its optimizer goes with the group into another order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR, CyclicLR, LambdaLR, LRScheduler, OneCycleLR, SequentialLR, StepLR

from unbroken.train.state.optimizer_state import rates_in_order

RATES = (0.1, 0.2, 0.3)
HERE = (2, 0, 1)  # which of the groups that were saved each group is now


class Falls:
    """A rate with a state of its own, as `LambdaLR` saves it."""

    def __init__(self, by: float) -> None:
        self.by = by

    def __call__(self, step: int) -> float:
        return self.by**step


def halves(values: Sequence[float]) -> list[float]:
    return [value / 2 for value in values]


def cyclic(optimizer: SGD, rates: Sequence[float]) -> LRScheduler:
    return CyclicLR(optimizer, halves(rates), rates, base_momentum=halves(rates), max_momentum=rates)


def sequence(optimizer: SGD, _: Sequence[float]) -> LRScheduler:
    return SequentialLR(optimizer, [ConstantLR(optimizer), StepLR(optimizer, 2)], milestones=[2])


SCHEDULES: dict[str, Callable[[SGD, Sequence[float]], Any]] = {
    "by a function of each": lambda optimizer, rates: LambdaLR(optimizer, [Falls(rate) for rate in rates]),
    "in cycles": cyclic,
    "in one cycle": lambda optimizer, rates: OneCycleLR(optimizer, rates, total_steps=9),
    "one after the other": sequence,
    "on a plateau": lambda optimizer, rates: torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, min_lr=halves(rates)
    ),
}


def state_after_steps(make: Callable[[SGD, Sequence[float]], Any], rates: Sequence[float]) -> dict[str, Any]:
    groups = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate, "momentum": rate} for rate in rates]
    optimizer = SGD(groups, lr=1.0)
    schedule = make(optimizer, rates)
    for _ in range(3):
        optimizer.step()
        schedule.step(*([1.0] if isinstance(schedule, torch.optim.lr_scheduler.ReduceLROnPlateau) else []))
    return dict(schedule.state_dict())


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
def test_its_state_is_that_of_a_schedule_whose_groups_stood_so_from_the_beginning(
    make: Callable[[SGD, Sequence[float]], Any],
) -> None:
    schedule = make(SGD([{"params": [torch.zeros(1)], "lr": rate, "momentum": 0.9} for rate in RATES]), RATES)
    moved = rates_in_order(schedule, state_after_steps(make, RATES), HERE)
    assert moved == state_after_steps(make, [RATES[place] for place in HERE])
    assert moved != state_after_steps(make, RATES)
