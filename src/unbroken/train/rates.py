"""The learning rates that the next steps use, and a word where they would change nothing, or climb again."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from torch.optim import Optimizer

from unbroken.launch import Job
from unbroken.run.layout import own
from unbroken.train.console import SessionLog
from unbroken.train.length import Length
from unbroken.train.rising_rates import MOST_LOOKED_AT, highest_recorded, rates_ahead, rise_in, schedules_in
from unbroken.train.saving import current_lr


class Rates:
    """Looks at the tracked optimizers before each step; planned schedules were already judged by the plan."""

    def __init__(self, log: SessionLog, job: Job, length: Length) -> None:
        self._log, self._job, self._length = log, job, length
        self._planned = job.lr_at is not None
        self._at_zero = False  # in the step before
        self._began: int | None = None  # of the schedule's own steps, where this session found it
        self._next_look = 1  # the step before which the rates ahead are looked at

    def look(self, tracked: Mapping[str, Any], *, step: int) -> float | None:
        """The rate of the first group; says, before the step is done, when steps begin that change nothing."""
        first = current_lr(tracked)
        at_zero = first == 0 and not any(
            group["lr"] for part in tracked.values() if isinstance(part, Optimizer) for group in part.param_groups
        )
        if at_zero and not self._at_zero and not self._planned:
            kind = "note" if step == 1 else "warning"  # a warm-up may well begin at 0
            self._log.say(f"{kind}: step {step} trains at learning rate 0 (nothing changes)")
        self._at_zero = at_zero
        if step >= self._next_look and not self._planned:
            self._look_ahead(tracked, step=step)
        return first

    def _look_ahead(self, tracked: Mapping[str, Any], *, step: int) -> None:
        """Say, once, where the rate comes down to nothing and climbs again before the training ends."""
        schedules, total = schedules_in([*tracked.values()]), self._length.steps
        if not schedules or (total is not None and total <= step):
            self._next_look = step + MOST_LOOKED_AT
            return
        per_turn = self._steps_per_turn(schedules[0].last_epoch, done=step - 1)
        if per_turn is None or total is None:
            return  # known after a step, or an epoch
        self._next_look = step + MOST_LOOKED_AT * per_turn
        began = step - (step - 1) % per_turn  # the step that the schedule's present rate is for first
        turns = -(-(total - began + 1) // per_turn)
        highest = highest_recorded(own(self._job.directory) / "metrics.jsonl", before=step)
        rise = rise_in(islice(rates_ahead(schedules), min(turns, MOST_LOOKED_AT)), highest=highest)
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
