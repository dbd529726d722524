"""How long steps take: means over the last ones, as a person wants to read them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from unbroken.clock import Clock

WINDOW = 10


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Mean seconds per step, and of it waiting for data."""

    step_s: float
    data_s: float


class Pace:
    """Measures the steps of this session."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._opened_s = clock.monotonic_s()
        self._began_s: float | None = None
        self._waiting_since_s = 0.0
        self._data_s = 0.0
        self._steps: deque[tuple[float, float]] = deque(maxlen=WINDOW)

    @property
    def last_step_s(self) -> float:
        """Seconds that the last step took."""
        return self._steps[-1][0] if self._steps else 0.0

    @property
    def elapsed_s(self) -> float:
        """Seconds since the session began."""
        return self._clock.monotonic_s() - self._opened_s

    def waiting(self) -> None:
        """The loop asks for a batch."""
        self._waiting_since_s = self._clock.monotonic_s()
        if self._began_s is None:
            self._began_s = self._waiting_since_s

    def loaded(self) -> None:
        """The batch is there."""
        self._data_s += self._clock.monotonic_s() - self._waiting_since_s

    def step_ended(self) -> Timing:
        """A step is done; what happens until the next batch is asked for (validation, saving) is not part of it."""
        began = self._began_s if self._began_s is not None else self._clock.monotonic_s()
        self._steps.append((self._clock.monotonic_s() - began, self._data_s))
        self._began_s, self._data_s = None, 0.0
        count = len(self._steps)
        return Timing(
            step_s=sum(step for step, _ in self._steps) / count,
            data_s=sum(data for _, data in self._steps) / count,
        )
