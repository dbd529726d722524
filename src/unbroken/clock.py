"""The clock is an argument everywhere, so that hours can be simulated; here is the real one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import get_ident
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


class Phases:
    """How long the phases of a start take, one after the other; each second counts for one of them.

    They are noted wherever they begin, and nowhere else but between `begin` and `end`.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._phase, self._since_s, self._thread = "", 0.0, 0
        self.seconds: dict[str, float] = {}

    def begin(self, phase: str, since_s: float | None = None) -> None:
        """Forget what was noted; this phase goes on since that moment of the monotonic clock, None: since now."""
        self._phase, self.seconds, self._thread = phase, {}, get_ident()
        self._since_s = self._clock.monotonic_s() if since_s is None else since_s

    def enter(self, phase: str) -> None:
        """The phase that goes on is over, and this one begins."""
        if self._phase and get_ident() == self._thread:  # what a backup beside the training does is no part of it
            now_s = self._clock.monotonic_s()
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + max(now_s - self._since_s, 0.0)
            self._phase, self._since_s = phase, now_s

    @contextmanager
    def inside(self, phase: str) -> Iterator[None]:
        """Within the block it is this phase, and then again the one before."""
        before = self._phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(before)

    def look(self) -> None:
        """A session begins to look at its run, after what the command line noted; or all begins with it."""
        if self._phase in ("config", "imports") and "look" not in self.seconds:
            self.enter("look")
        else:
            self.begin("look")

    def end(self) -> dict[str, float]:
        """The start is over: what each phase took, in seconds."""
        self.enter("")
        return {phase: round(seconds, 4) for phase, seconds in self.seconds.items()}


START = Phases(SystemClock())  # that of this process


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
