"""Proof of exactness: steps that a killed session had done beyond its last save are compared when they come again."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


class Replay:
    """Compares repeated steps with what was recorded of them; says what it found once they are all done."""

    def __init__(self, recorded: Mapping[int, Mapping[str, Any]]) -> None:
        self._recorded = dict(recorded)
        self._first = min(recorded, default=0)
        self._compared = 0
        self._last = 0
        self._differs: str | None = None

    def compare(self, step: int, *, samples: list[int], loss: float | None) -> str | None:
        """Compare one step; returns a sentence when the repetition is over or differs for the first time."""
        record = self._recorded.pop(step, None)
        if record is None or self._differs is not None:
            return None
        self._compared += 1
        self._last = step
        if record.get("samples") != samples:
            self._differs = "other samples"
        elif loss is not None and "loss" in record and not _same_bits(float(record["loss"]), loss):
            self._differs = f"loss {loss!r}, recorded {record['loss']!r}"
        if self._differs is not None:
            return f"step {step} differs from what the interrupted session recorded: {self._differs}"
        if not self._recorded:
            return f"steps {self._first}-{step} replayed: bit-identical"
        return None

    def cut_short(self) -> str | None:
        """What can be said when the session ends before the repetition is over."""
        if self._differs is None and self._compared and self._recorded:
            return f"steps {self._first}-{self._last} replayed so far: bit-identical"
        return None


def _same_bits(one: float, other: float) -> bool:
    return one.hex() == other.hex() or (math.isnan(one) and math.isnan(other))
