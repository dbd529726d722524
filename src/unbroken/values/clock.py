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


def clock_time(seconds: float) -> str:
    """`1:02:03`, with days when there are any."""
    days, rest = divmod(int(seconds), 86_400)
    text = f"{rest // 3600}:{rest % 3600 // 60:02d}:{rest % 60:02d}"
    return f"{days}d {text}" if days else text
