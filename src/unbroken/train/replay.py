"""Proof of exactness: steps that a killed session had done beyond its last save are compared when they come again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbroken.journal import compare_steps, listed


class Replay:
    """Compares repeated steps with what was recorded of them; says what it found once they are all done."""

    def __init__(self, recorded: Mapping[int, Mapping[str, Any]]) -> None:
        self._recorded = dict(recorded)
        self._first = min(recorded, default=0)
        self._last = 0
        self._names: list[str] | None = None  # of what was compared in every step so far; None before the first
        self._differs = False

    def compare(self, step: int, record: Mapping[str, Any]) -> str | None:
        """Compare one step; returns a sentence when the repetition is over or differs for the first time."""
        before = self._recorded.pop(step, None)
        if before is None or self._differs:
            return None
        found = compare_steps(before, record)
        self._names = [name for name in found.names if self._names is None or name in self._names]
        self._last = step
        if found.difference:
            self._differs = True
            return f"step {step} differs from what the interrupted session recorded: {found.difference}"
        return None if self._recorded else self._verdict("replayed")

    def cut_short(self) -> str | None:
        """What can be said when the session ends before the repetition is over."""
        if self._differs or self._names is None or not self._recorded:
            return None
        return self._verdict("replayed so far")

    def _verdict(self, how: str) -> str:
        steps = f"steps {self._first}-{self._last} {how}"
        if not self._names:
            return f"{steps}: the same samples; nothing else was recorded that can be compared"
        return f"{steps}: bit-identical ({listed(self._names)})"
