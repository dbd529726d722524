"""The clock is an argument everywhere, so that hours can be simulated; here is the real one."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol

FOR_PEOPLE = "%Y-%m-%d %H:%M:%S %z"


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

    monotonic_s = staticmethod(time.monotonic)  # a loop asks several times in each step

    def pause_s(self, seconds: float) -> None:
        """Return when so many seconds have gone by; a signal's handler may raise meanwhile."""
        time.sleep(seconds)


def utc_text(moment: datetime, *, timespec: str = "seconds") -> str:
    """A moment as files have it: ISO, in UTC, with a Z."""
    return f"{moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec=timespec)}Z"


def local_moment(time: object) -> datetime | None:
    """A moment, or the text of one in a file of any version, by the clock of this machine; None for what is none."""
    try:
        return (time if isinstance(time, datetime) else datetime.fromisoformat(time)).astimezone()  # type: ignore[arg-type]  # what is no text raises
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def shown_time(time: object) -> str:
    """Return a moment as people are told it everywhere, by their clock and with its zone: `2026-02-05 18:00:00 +0800`.

    Args:
        time: A moment, or the text of one; text that is none stays as it is.
    """
    moment = local_moment(time)
    return moment.strftime(FOR_PEOPLE) if moment is not None else str(time or "")
