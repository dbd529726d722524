"""A session that must be over at a certain time: what still fits, by how long such things took before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

from unbroken.clock import Clock
from unbroken.launch.forecast import sessions_left
from unbroken.launch.job import Limit
from unbroken.quantities import counted

What = Literal["step", "save", "evaluation"]
KINDS: tuple[What, ...] = ("step", "save", "evaluation")
REMEMBERED = 50
FEW = 5  # so few of a kind say little: one may well take longer than the longest of them
FEW_MARGIN, MARGIN = 1.5, 1.1
# Letting go of files and workers, and the end of the process: longer on a machine that was slow to begin.
ENDING_SHARE, ENDING_S, LONGEST_ENDING_S = 0.05, 0.5, 2.0


class Deadline:
    """The end of a session, its reserve before its time is up; without a limit it never comes.

    What `known` says (seconds, from the journal of earlier sessions) counts until there are enough of a kind in this
    one. The longest of the last 50 is what the next one may take, with a margin: a session that ends early loses a
    step, one that ends late may lose everything since its last save.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        limit: Limit | None,
        began_s: float | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> None:
        self._clock = clock
        self._began_s = clock.monotonic_s() if began_s is None else began_s
        self._limit = limit
        self._end_s = None if limit is None else self._began_s + limit.left_s - limit.reserve_s
        self._took: dict[What, deque[float]] = {}
        longest = (known or {}).get("longest_s")
        self._known = {
            kind: float(longest[kind])
            for kind in KINDS
            if isinstance(longest, Mapping) and isinstance(longest.get(kind), int | float)
        }
        self._trained_s, self._trained_steps = 0.0, 0
        self._first_step_began_s: float | None = None

    @property
    def left_s(self) -> float | None:
        """Seconds until this session has to be over; None without a limit."""
        return None if self._end_s is None else self._end_s - self._clock.monotonic_s()

    def took(self, what: What, seconds: float) -> None:
        """Learn how long something took."""
        self._took.setdefault(what, deque(maxlen=REMEMBERED)).append(seconds)
        if what == "step":
            now_s = self._clock.monotonic_s()
            if self._first_step_began_s is None:
                self._first_step_began_s = now_s - seconds
            self._trained_steps += 1
            self._trained_s = now_s - self._first_step_began_s

    @contextmanager
    def timing(self, what: What) -> Iterator[None]:
        """Learn how long the block takes; one that is broken off takes at least as long as it took."""
        began_s = self._clock.monotonic_s()
        try:
            yield
        finally:
            self.took(what, self._clock.monotonic_s() - began_s)

    def longest_s(self, what: What) -> float:
        """How long the next one of a kind may take; 0 if nothing is known of it."""
        seen = tuple(self._took.get(what, ()))
        if len(seen) >= FEW:
            return MARGIN * max(seen)
        return FEW_MARGIN * max((*seen, self._known.get(what, 0.0)), default=0.0)

    def fits(self, *what: What) -> bool:
        """Whether these can still be done, one after the other, if each takes its longest; unknown ones count 0."""
        left_s = self.left_s
        return left_s is None or sum(map(self.longest_s, what)) + self._ending_s <= left_s

    @property
    def _ending_s(self) -> float:
        return min(max(ENDING_SHARE * self._startup_s, ENDING_S), LONGEST_ENDING_S)

    @property
    def _startup_s(self) -> float:
        began_s = self._clock.monotonic_s() if self._first_step_began_s is None else self._first_step_began_s
        return began_s - self._began_s

    def what_is_left(self, step: int, total: int | None) -> str:
        """In words, how much of the training is left, and in a limited session how many more of them that takes."""
        if total is None or total <= step:
            return ""
        sessions = sessions_left(total - step, self.as_plain(), self._limit) if self._limit is not None else None
        more = f", {counted(sessions, 'more session')} of this length" if sessions else ""
        return f"; {counted(total - step, 'step')} of {total} are left{more}"

    def as_plain(self) -> dict[str, Any]:
        """What later sessions can learn from this one: the longest of each kind, and steps with all that is between."""
        longest = {kind: max((*self._took.get(kind, ()), 0.0)) or self._known.get(kind, 0.0) for kind in KINDS}
        return {
            "longest_s": {kind: seconds for kind, seconds in longest.items() if seconds},
            "steps": self._trained_steps,
            "seconds": self._trained_s,
            "startup_s": self._startup_s,
            "left_s": self.left_s,
        }
