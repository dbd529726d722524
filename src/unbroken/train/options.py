"""How one session goes about its work: when it saves and logs, how long it may take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from unbroken.train.cadence import Every
from unbroken.train.data.batching import UNSAID
from unbroken.train.loader import OnBad
from unbroken.train.stop import PATIENCE_S
from unbroken.train.trial import OnTrial


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """`save_every_s` in seconds, None for no such reason; `log_every` in steps.

    Asked to stop in the middle of a step, the session waits `patience_s` for the batch that ends it.
    `save_beside` lets a thread write the checkpoints; with `exits`, a refusal ends the process with its exit code.
    """

    every: Every = field(default_factory=Every)
    save_every_s: float | None = None
    log_every: int = 10
    save_beside: bool = False
    exits: bool = False
    patience_s: float = PATIENCE_S
    on_bad: OnBad = "stop"  # a sample that cannot be read: stop, or leave it out and say so
    began_s: float | None = None  # of the session, on the monotonic clock; None: now
    trial: OnTrial | None = None  # of `unbroken prove`

    def batching(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What a loop says of its batches; on trial, as many workers as the trial says."""
        told = self.trial.trial.workers if self.trial is not None else None
        said = {name: value for name, value in asked.items() if value is not UNSAID}
        return {**said, **({} if told is None else {"workers": told})}
