"""A session that must be over at a certain time: what still fits, by how long such things took before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from unbroken.values import Clock

What = Literal["step", "save", "evaluation"]
REMEMBERED = 50


class Deadline:
    """The end of a session, `reserve_s` seconds before its time is up; without a time it never comes."""

    def __init__(
        self, clock: Clock, *, session_s: float | None, reserve_s: float, began_s: float | None = None
    ) -> None:
        self._clock = clock
        began_s = clock.monotonic_s() if began_s is None else began_s
        self._end_s = None if session_s is None else began_s + session_s - reserve_s
        self._took: dict[What, deque[float]] = {}

    def took(self, what: What, seconds: float) -> None:
        """Learn how long something took."""
        self._took.setdefault(what, deque(maxlen=REMEMBERED)).append(seconds)

    @contextmanager
    def timing(self, what: What) -> Iterator[None]:
        """Learn how long the block takes."""
        began_s = self._clock.monotonic_s()
        yield
        self.took(what, self._clock.monotonic_s() - began_s)

    def fits(self, *what: What) -> bool:
        """Whether these can still be done, one after the other, if each takes its longest; unknown ones count 0."""
        if self._end_s is None:
            return True
        needed_s = sum(max(self._took.get(each, ()), default=0.0) for each in what)
        return self._clock.monotonic_s() + needed_s <= self._end_s
