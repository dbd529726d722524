"""Numbers that describe real frames: 12 041 annotated ones of Focal-SST-Sonar, and the points of 12 220.

Places, sizes and shares are those of its training split (8 428 frames); fits of point counts are over its 5 781
objects that were not augmented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
PLACES: Final = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
LOUDNESSES: Final = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)


@dataclass(frozen=True, kw_only=True)
class Quantiles:
    """A distribution by its quantiles, linear between them."""

    levels: tuple[float, ...]
    values: tuple[float, ...]

    def draw(self, rng: np.random.Generator, count: int, *, below: float = np.inf) -> Floats:
        """Draw numbers, all of them below a limit."""
        highest = np.interp(min(below, self.values[-1]), self.values, self.levels)
        drawn: Floats = np.interp(rng.random(count) * highest, self.levels, self.values)
        return drawn


@dataclass(frozen=True, kw_only=True)
class ObjectStatistics:
    """One class: how often, where, how large, how many points and how it moves."""

    label: int  # in column five of the points
    share: float  # of the frames that have one
    range_m: Quantiles
    azimuth_deg: Quantiles
    elevation_deg: Quantiles
    highest_m: float  # of the centre: the surface ends the world
    log_size_mean: tuple[float, float, float]  # of dx, dy, dz in metres
    log_size_covariance: tuple[tuple[float, float, float], ...]
    count_fit: tuple[float, float, float]  # ln n = a + b ln range, and the spread about it
    most_points: int
    log10_intensity: Quantiles
    step_m: float  # median way from one frame to the next
    turn_rad: float  # spread of the change of heading from one frame to the next


def _places(*values: float) -> Quantiles:
    return Quantiles(levels=PLACES, values=values)


def _loudness(*raw: float) -> Quantiles:
    return Quantiles(levels=LOUDNESSES, values=tuple(float(np.log10(value)) for value in raw))


POINTS_PER_FRAME: Final = 38_552  # mean
AZIMUTH_DEG: Final = (-25.0, 25.0)  # field of view
ELEVATION_DEG: Final = (-23.0, 16.0)

CLUTTER_INTENSITY: Final = _loudness(
    3.98e8, 4.211e8, 4.874e8, 5.961e8, 7.718e8, 1.211e9, 2.319e9, 4.589e9, 1.177e10, 1.9e11
)  # of all points, 95 % of which are clutter

BOX: Final = ObjectStatistics(
    label=1,
    share=8423 / 8428,
    range_m=_places(1.90, 6.367, 10.991, 11.390, 11.859, 19.803, 36.551, 42.50, 47.29),
    azimuth_deg=_places(-24.25, -20.45, -1.137, 10.73, 11.50, 12.94, 19.69, 21.87, 23.73),
    elevation_deg=_places(-22.46, -20.54, -16.26, -1.193, -0.765, -0.416, 2.913, 9.649, 13.0),
    highest_m=1.3,
    log_size_mean=(0.9351, 0.7626, 0.5188),
    log_size_covariance=((0.00715, 0.00377, 0.00263), (0.00377, 0.00928, 0.00248), (0.00263, 0.00248, 0.01543)),
    count_fit=(13.155, -2.335, 0.264),
    most_points=4_910,
    log10_intensity=_loudness(
        3.98e8, 4.185e8, 4.875e8, 6.718e8, 9.400e8, 1.4335e9, 3.9786e9, 1.2504e10, 4.4522e10, 1.9e11
    ),
    step_m=0.08,
    turn_rad=0.02,
)

# About two thirds of the labelled spread of a diver's size is noise of the labels: a third of the covariance is left.
DIVER: Final = ObjectStatistics(
    label=2,
    share=6048 / 8428,
    range_m=_places(1.75, 2.884, 3.585, 8.235, 14.158, 21.709, 35.927, 42.37, 47.51),
    azimuth_deg=_places(-25.0, -23.24, -11.33, 7.989, 13.83, 20.07, 23.08, 24.10, 25.0),
    elevation_deg=_places(-23.0, -22.5, -18.73, -1.886, 5.184, 6.955, 9.821, 12.91, 16.0),
    highest_m=3.6,
    log_size_mean=(0.1464, -0.2826, 0.2883),
    log_size_covariance=((0.03897, 0.02539, 0.01216), (0.02539, 0.04366, 0.01567), (0.01216, 0.01567, 0.05674)),
    count_fit=(8.812, -1.268, 0.794),
    most_points=2_719,
    log10_intensity=_loudness(
        3.98e8, 4.168e8, 4.925e8, 8.729e8, 1.8109e9, 4.2417e9, 1.1852e10, 2.3867e10, 5.2255e10, 1.9e11
    ),
    step_m=0.22,
    turn_rad=0.15,
)

OBJECTS: Final[Mapping[str, ObjectStatistics]] = {"Box": BOX, "Diver": DIVER}
