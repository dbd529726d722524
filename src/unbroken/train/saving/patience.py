"""Saves that fail: when one is tried again, and for how long a training goes on without any."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from unbroken.errors import Refused, SaveFailed
from unbroken.train.cadence import Every, Interval
from unbroken.train.progress import Progress

FIRST_S, LONGEST_S = 5.0, 300.0  # between one try and the next
INTERVALS = 2  # so many of them may be at stake
LAST_TRIES_S = 60.0  # for the last state of a session


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A state that is on disk, and since when."""

    step: int
    epoch: int
    at_s: float


class Patience:
    """What is at stake since the last checkpoint, measured by the intervals in which they are asked for."""

    def __init__(self, every: Every, interval: Interval, *, good: Mark) -> None:
        self._every, self._interval = every, interval
        self.good = good
        self.refusal: Refused | None = None  # of the last try; None while saves succeed
        self._again_s, self._wait_s = 0.0, FIRST_S

    @property
    def failing(self) -> bool:
        """Whether the last save failed."""
        return self.refusal is not None

    def failed(self, refusal: Refused, *, now_s: float) -> float:
        """A save failed; returns the seconds until the next try."""
        self.refusal = refusal
        usual_s = self._interval.seconds
        wait_s = min(self._wait_s, *([usual_s] if usual_s else []), LONGEST_S)
        self._again_s, self._wait_s = now_s + wait_s, 2 * self._wait_s
        return wait_s

    def succeeded(self, mark: Mark) -> None:
        """A save succeeded."""
        self.good, self.refusal, self._wait_s = mark, None, FIRST_S

    def try_again(self, progress: Progress, *, now_s: float) -> bool:
        """Whether the state after the last step should be tried, outside of the usual rhythm."""
        return self.failing and (now_s >= self._again_s or self.exhausted(progress, now_s=now_s))

    def exhausted(self, progress: Progress, *, now_s: float) -> bool:
        """Whether more would be lost by now than twice what is asked to be at stake at most."""
        at_stake = (
            (self._every.steps, progress.step - self.good.step),
            (self._every.epochs, progress.epoch - self.good.epoch),
            (self._interval.seconds, now_s - self.good.at_s),
        )
        return self.failing and any(limit and lost > INTERVALS * limit for limit, lost in at_stake)

    def error(self, folder: Path, step: int) -> SaveFailed:
        """Why the session ends."""
        if self.refusal is None:
            raise ValueError("no save was refused")
        last = f"step {self.good.step}" if self.good.step else "the beginning"
        return SaveFailed(
            folder,
            f"no checkpoint could be written since {last}, and the last try, of step {step}, failed too: "
            f"{cause_of(self.refusal)}",
            found=self.refusal.found,
            do=f"The checkpoint of {last} is whole. Make room or mend the disk, then run the same command again."
            if self.good.step
            else "Make room or mend the disk, then run the same command again.",
        )


def mark_of(progress: Progress, now_s: float) -> Mark:
    """The state after the last step, as one that is on disk."""
    return Mark(step=progress.step, epoch=progress.epoch, at_s=now_s)


def is_of_the_disk(refusal: Refused) -> bool:
    """Whether the operating system refused, which may pass."""
    return isinstance(refusal.__cause__, OSError)


def cause_of(refusal: Refused) -> str:
    """What the operating system said."""
    error = refusal.__cause__
    return (error.strerror or str(error)) if isinstance(error, OSError) else refusal.what
