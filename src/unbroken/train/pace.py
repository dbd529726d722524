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
        self._steps_s: deque[float] = deque(maxlen=WINDOW)
        self._waits_s: deque[float] = deque(maxlen=WINDOW)

    @property
    def last_step_s(self) -> float:
        """Seconds that the last step took."""
        return self._steps_s[-1] if self._steps_s else 0.0

    @property
    def timing(self) -> Timing:
        """Means over the last steps; there is one."""
        count = len(self._steps_s)
        return Timing(step_s=sum(self._steps_s) / count, data_s=sum(self._waits_s) / count)

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

    def step_ended(self) -> float:
        """A step is done; what follows until the next batch is asked for (validation, saving) is not part of it.

        Returns the seconds that it took.
        """
        now_s = self._clock.monotonic_s()
        step_s = now_s - (self._began_s if self._began_s is not None else now_s)
        self._steps_s.append(step_s)
        self._waits_s.append(self._data_s)
        self._began_s, self._data_s = None, 0.0
        return step_s
