"""The learning rates that the next step uses, and a word where it would change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer

from unbroken.train.console import SessionLog
from unbroken.train.saving import current_lr


class Rates:
    """Looks at the tracked optimizers before each step; `planned` schedules were already judged by the plan."""

    def __init__(self, log: SessionLog, *, planned: bool) -> None:
        self._log, self._planned = log, planned
        self._at_zero = False  # in the step before

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
        return first
