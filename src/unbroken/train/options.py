"""How one session goes about its work: when it saves and logs, how long it may take."""

from __future__ import annotations

from dataclasses import dataclass, field

from unbroken.train.cadence import Every
from unbroken.train.loader import OnBad
from unbroken.train.trial import OnTrial


@dataclass(frozen=True, kw_only=True)
class SessionOptions:
    """`save_every_s` in seconds, None for no such reason; `log_every` in steps.

    `save_beside` lets a thread write the checkpoints; with `exits`, a refusal ends the process with its exit code.
    """

    every: Every = field(default_factory=Every)
    save_every_s: float | None = None
    log_every: int = 10
    save_beside: bool = False
    exits: bool = False
    on_bad: OnBad = "stop"  # a sample that cannot be read: stop, or leave it out and say so
    began_s: float | None = None  # of the session, on the monotonic clock; None: now
    trial: OnTrial | None = None  # of `unbroken prove`

    def workers(self, asked: int) -> int:
        """How many loader workers there are: as the loop asks, but on trial."""
        told = self.trial.trial.workers if self.trial is not None else None
        return asked if told is None else told
