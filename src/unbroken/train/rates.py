"""The learning rates that the next steps use, and a word where they would change nothing, or climb again.

That is found in the steps to come, before they are done. Cosines are periodic. One that is shorter than its training
(resumed with the length it was saved with, say, or counted in other steps) climbs back to its maximum, and undoes what
was learned.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, CyclicLR, LRScheduler

from unbroken.fields import count_of, number_of
from unbroken.journal.file import read_lines_backwards
from unbroken.launch import Job
from unbroken.run.layout import own
from unbroken.train.length import Length
from unbroken.train.record.console import SessionLog

MOST_LOOKED_AT = 20_000  # steps of a schedule: a fraction of a second
MOST_RECORDS = 1_000
LOW, HIGH = 0.01, 0.1  # of the highest rate before: what is nothing, and what is a climb
MEANT = (CosineAnnealingWarmRestarts, CyclicLR)  # made to climb again


class RateWatch:
    """Looks at the tracked optimizers before each step; planned schedules were already judged by the plan."""

    def __init__(self, log: SessionLog, job: Job, length: Length) -> None:
        self._log, self._job, self._length = log, job, length
        self._planned = job.lr_at is not None
        self._at_zero = False  # in the step before
        self._began: int | None = None  # of the schedule's own steps, where this session found it
        self._next_look = 1  # the step before which the rates ahead are looked at

    def look(self, first: Optimizer | None, tracked: Mapping[str, Any], *, step: int) -> float | None:
        """The rate of the first group of `first`, the first optimizer; says, before, when steps change nothing."""
        rate = float(first.param_groups[0]["lr"]) if first is not None else None
        if rate == 0 or self._at_zero:
            self._note_zero(tracked, step=step)
        if step >= self._next_look and not self._planned:
            self._look_ahead(tracked, step=step)
        return rate

    def _note_zero(self, tracked: Mapping[str, Any], *, step: int) -> None:
        """Say, before the step is done, when steps begin that change nothing."""
        optimizers = [part for part in tracked.values() if isinstance(part, Optimizer)]
        at_zero = not any(group["lr"] for part in optimizers for group in part.param_groups)
        if at_zero and not self._at_zero and not self._planned:
            kind = "note" if step == 1 else "warning"  # a warm-up may well begin at 0
            self._log.say(f"{kind}: step {step} trains at learning rate 0 (nothing changes)")
        self._at_zero = at_zero

    def _look_ahead(self, tracked: Mapping[str, Any], *, step: int) -> None:
        """Say, once, where the rate comes down to nothing and climbs again before the training ends."""
        schedules, total = schedules_in([*tracked.values()]), self._length.steps
        counted = (
            each for part in schedules[:1] for each in _with_parts(part)
        )  # one that chains others does not count
        turns = next((each.last_epoch for each in counted if hasattr(each, "last_epoch")), None)
        if turns is None or (total is not None and total <= step):
            self._next_look = step + MOST_LOOKED_AT
            return
        per_turn = self._steps_per_turn(turns, done=step - 1)
        if per_turn is None or total is None:
            return  # known after a step, or an epoch
        self._next_look = step + MOST_LOOKED_AT * per_turn
        began = step - (step - 1) % per_turn  # the step that the schedule's present rate is for first
        ahead = -(-(total - began + 1) // per_turn)
        highest = highest_recorded(own(self._job.directory) / "metrics.jsonl", before=step)
        rise = rise_in(islice(rates_ahead(schedules), min(ahead, MOST_LOOKED_AT)), highest=highest)
        if rise is not None:
            self._next_look = total
            first, peak = (began + (turn - 1) * per_turn for turn in (rise.step, rise.peak_step))
            self._log.say(
                f"warning: learning rate rises from {rise.low:.4g} at step {first} to {rise.peak:.4g} at step {peak}: "
                f"{type(schedules[0]).__name__} is shorter than the training and climbs again. Make it as long "
                f"({total} steps), or end after step {first - 1}. A resumed schedule has the length it was saved with."
            )

    def _steps_per_turn(self, turns: int, *, done: int) -> int | None:
        """After how many steps the loop steps its schedule: after each, or each epoch; None while that is not seen."""
        first, self._began = self._began is None, turns if self._began is None else self._began
        if turns >= done > 0:
            return 1
        if not first and turns > self._began:
            return max(1, done // turns)
        if turns > 0 and self._length.epochs and self._length.steps:
            return max(1, self._length.steps // self._length.epochs)
        return None


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
