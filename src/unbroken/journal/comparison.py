"""Whether a step that was done again is the same step: only what both records hold is compared, and it is named."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unbroken.fields import number_of
from unbroken.journal.steps import WEIGHTS_CRC32, packed, values_of
from unbroken.quantities import all_of

WORDS = {WEIGHTS_CRC32: "a probe of the weights"}


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two records of one step: the names of the values that both hold, and what differs first ("": nothing)."""

    names: tuple[str, ...]
    difference: str

    @property
    def samples_differ(self) -> bool:
        """Whether it is not even the same data."""
        return self.difference == "other samples"


def compare_steps(before: Mapping[str, Any], now: Mapping[str, Any]) -> Comparison:
    """Compare samples first, then the values bit for bit (a NaN is a NaN), the probe of the weights last."""
    one, other = _numbers(before), _numbers(now)
    names = tuple(name for name in one if name in other)
    if not _same_samples(before.get("samples"), now.get("samples")):
        return Comparison(names=names, difference="other samples")
    for name in names:
        if not _same_bits(one[name], other[name]):
            found = f" {other[name]!r}, recorded {one[name]!r}" if name not in WORDS else ""
            return Comparison(names=names, difference=f"{WORDS.get(name, name)}{found}")
    return Comparison(names=names, difference="")


def listed(names: Sequence[str]) -> str:
    """`loss, lr and a probe of the weights`."""
    return all_of([WORDS.get(name, name) for name in names])


def _same_samples(one: Any, other: Any) -> bool:
    """Whether two steps had the same samples, also where only one record lists them."""
    if isinstance(one, Mapping) == isinstance(other, Mapping):
        return bool(one == other)
    placed, listed = (one, other) if isinstance(one, Mapping) else (other, one)
    whole = listed if isinstance(listed, bytes) else packed(listed or ())
    return placed.get("count") == len(whole) // 8 and placed.get("crc32") == zlib.crc32(whole)


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    found = {name: number_of(value) for name, value in values_of(record).items()}
    found[WEIGHTS_CRC32] = number_of(record.get(WEIGHTS_CRC32))
    return {name: number for name, number in found.items() if number is not None}


def _same_bits(one: float, other: float) -> bool:
    return one.hex() == other.hex() or (math.isnan(one) and math.isnan(other))
