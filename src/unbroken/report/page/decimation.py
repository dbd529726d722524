"""Fewer points that tell the same: nothing that stands out is lost, and what is not a number shows as a gap."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from unbroken.report.curves import Column

MOST = 2000  # points of a drawn curve
SMOOTHED = 500  # points of a smoothed one
WINDOW_SHARE = 0.04  # of all points, that one smoothed point is the mean of
FEWEST_TO_SMOOTH = 60

Points = tuple[list[int], list[float | None]]  # steps and values; None is a gap


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A curve as it is drawn."""

    steps: list[int]
    values: list[float | None]
    not_finite: list[int]  # steps of values that are not finite, at most one of a stretch
    of: int  # points there were


def decimate(column: Column, most: int = MOST) -> Drawn:
    """All points where they are few enough; else the smallest and the largest of each of equal stretches."""
    count = len(column)
    if count <= most:
        pieces: Iterator[tuple[int, int]] = ((place, place + 1) for place in range(count))
    else:
        stretches = most // (2 if math.isfinite(sum(column.values)) else 3)
        pieces = ((count * k // stretches, count * (k + 1) // stretches) for k in range(stretches))
    steps: list[int] = []
    values: list[float | None] = []
    gaps: list[int] = []
    for begin, end in pieces:
        for place, value in _extremes(column.values[begin:end]):
            steps.append(column.steps[begin + place])
            values.append(None if value is None else rounded(value))
            if value is None:
                gaps.append(steps[-1])
    return Drawn(steps=steps, values=values, not_finite=gaps, of=count)


def _extremes(values: array[float]) -> list[tuple[int, float | None]]:
    """The smallest and the largest at their places, in order, and the first place that is not finite."""
    found: dict[int, float | None] = {}
    usable: Sequence[float] = values
    if not math.isfinite(sum(values)):
        usable = [value for value in values if math.isfinite(value)]
        if len(usable) < len(values):
            found[next(place for place, value in enumerate(values) if not math.isfinite(value))] = None
    if usable:
        for extreme in (min(usable), max(usable)):
            found.setdefault(values.index(extreme), extreme)
    return sorted(found.items())


def smoothed(column: Column) -> Points | None:
    """The mean of the values around each of equally spaced points; None where there are too few to smooth."""
    finite = math.isfinite(sum(column.values))
    kept = column if finite else _finite(column)
    count = len(kept)
    if count < FEWEST_TO_SMOOTH:
        return None
    half = max(1, round(count * WINDOW_SHARE / 2))
    sums = array("d", accumulate(kept.values, initial=0.0))
    places = sorted({(count - 1) * k // (SMOOTHED - 1) for k in range(SMOOTHED)})
    means: list[float | None] = []
    for place in places:
        begin, end = max(place - half, 0), min(place + half + 1, count)
        mean = (sums[end] - sums[begin]) / (end - begin)
        means.append(rounded(mean) if math.isfinite(mean) else None)  # the sum of huge values may not be
    return [kept.steps[place] for place in places], means


def _finite(column: Column) -> Column:
    kept = Column()
    for step, value in zip(column.steps, column.values):
        if math.isfinite(value):
            kept.add(step, value)
    return kept


def rounded(value: float) -> float:
    """Six significant digits: more than a screen has."""
    return float(f"{value:.6g}")
