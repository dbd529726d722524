"""A learning rate that has come down to nothing and will climb again: found in the steps to come, before they are done.

Cosines are periodic. One that is shorter than its training (resumed with the length it was saved with, say, or counted
in other steps) climbs back to its maximum, and undoes what was learned.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, CyclicLR, LRScheduler

from unbroken.fields import count_of, number_of
from unbroken.journal.file import read_lines_backwards

MOST_LOOKED_AT = 20_000  # steps of a schedule: a fraction of a second
MOST_RECORDS = 1_000
LOW, HIGH = 0.01, 0.1  # of the highest rate before: what is nothing, and what is a climb
MEANT = (CosineAnnealingWarmRestarts, CyclicLR)  # made to climb again


@dataclass(frozen=True, kw_only=True)
class Rise:
    """From which step on the rate rises, counted from 1, and where it is highest after that."""

    low: float
    step: int
    peak: float
    peak_step: int


def schedules_in(tracked: Sequence[Any]) -> list[LRScheduler]:
    """The tracked schedules of torch; none of those that are made to climb again."""
    found = [part for part in tracked if isinstance(part, LRScheduler)]
    return [] if any(isinstance(each, MEANT) for part in found for each in _with_parts(part)) else found


def rates_ahead(schedules: Sequence[LRScheduler]) -> Iterator[float]:
    """The rate of the next step of the schedule, and of those after it: computed on copies, as far as they can be."""
    optimizer = schedules[0].optimizer
    stand_in = SGD([torch.zeros(1)], lr=0.0)
    stand_in.param_groups = [
        {name: copy.deepcopy(value) for name, value in group.items() if name != "params"} | {"params": []}
        for group in optimizer.param_groups
    ]
    try:
        same = [each for each in schedules if each.optimizer is optimizer]
        copies = copy.deepcopy(same, {id(optimizer): stand_in})
        while True:
            yield float(stand_in.param_groups[0]["lr"])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # nothing steps between its steps
                for each in copies:
                    each.step()
    except Exception:  # noqa: BLE001 - a user's schedule may raise anything; what it gives later is not known then
        return


def rise_in(rates: Iterator[float], *, highest: float) -> Rise | None:
    """Where rates that were as high as `highest` before, and came down to nothing, climb again; steps count from 1."""
    low, at = highest, 0
    found: Rise | None = None
    for step, rate in enumerate(rates, start=1):
        if found is not None:
            if rate <= found.peak:
                return found
            found = Rise(low=found.low, step=found.step, peak=rate, peak_step=step)
        elif low <= LOW * highest and rate > max(HIGH * highest, low):
            found = Rise(low=low, step=at + 1, peak=rate, peak_step=step)
        elif rate > highest:
            highest, low, at = rate, rate, step
        elif rate <= low:
            low, at = rate, step
    return found


def highest_recorded(metrics: Path, *, before: int) -> float:
    """The highest rate of the last steps before one, as they were recorded; 0 where none is."""
    newest = islice(read_lines_backwards(metrics), MOST_RECORDS) if metrics.exists() else ()
    rates = (number_of(record.get("lr")) for record in newest if (count_of(record.get("step")) or before) < before)
    return max((rate for rate in rates if rate is not None), default=0.0)


def _with_parts(schedule: Any) -> Iterator[Any]:
    yield schedule
    for part in getattr(schedule, "_schedulers", ()):
        yield from _with_parts(part)
