"""The clock is an argument everywhere, so that hours can be simulated; here is the real one."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """What the rest of the program may ask about time."""

    def now(self) -> datetime:
        """Local wall-clock time with its offset."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back."""
        ...

    def pause_s(self, seconds: float) -> None:
        """Return when so many seconds have gone by."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Local wall-clock time with its offset."""
        return datetime.now().astimezone()

    def monotonic_s(self) -> float:
        """Seconds on a clock that never goes back."""
        return time.monotonic()

    def pause_s(self, seconds: float) -> None:
        """Return when so many seconds have gone by; a signal's handler may raise meanwhile."""
        time.sleep(seconds)
