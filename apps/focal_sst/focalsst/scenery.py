"""Synthetic frames of a forward-looking sonar: clutter, sea bed, water surface, a wooden frame and a diver.

A sequence is a dive: its bed and surface stay, its objects drift. Every frame is a function of (split, sequence,
number, seed, points, reach) alone, so any of them can be drawn without the others.

The numbers that it follows describe real frames: 12 041 annotated ones of Focal-SST-Sonar, and the points of 12 220.
Places, sizes and shares are those of its training split (8 428 frames); fits of point counts are over its 5 781
objects that were not augmented.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from focalsst.dataset.infos import Annotation
from focalsst.dataset.points import Points, as_written
from focalsst.dataset.scene import from_box_frame, to_box_frame, wrap_heading

Floats = NDArray[np.floating[Any]]
PLACES: Final = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
LOUDNESSES: Final = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999, 1.0)
POINTS_PER_FRAME: Final = 38_552  # mean
AZIMUTH_DEG: Final = (-25.0, 25.0)  # field of view
ELEVATION_DEG: Final = (-23.0, 16.0)
CLUTTER, SURFACE = 3, 4  # labels in column five
RADIAL_NOISE_M: Final = 0.02
TANGENTIAL_NOISE: Final = 0.004  # metres per metre of range: angles are resolved far worse than ranges
FEWEST_POINTS: Final = 12  # of an object
SHARES: Final = (0.35, 0.35, 0.20)  # of the clutter: reverberation, sea bed, surface; blobs are the rest
BLOBS: Final = (8, 50)
BLOB_POINTS: Final = (10, 250)
HEADINGS_DEG: Final = (45.0, 225.0)  # labels of real boxes lie on this half circle
REDRAWS: Final = 1000


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


@dataclass(frozen=True, kw_only=True)
class World:
    """What all frames of a data set share: how many points they have and how far they reach.

    Objects lie within x up to `reach_m`, |y| up to a third of it, and not deeper than a quarter of it.
    """

    points: int
    reach_m: float
    seed: int

    def generator(self, *key: object) -> np.random.Generator:
        """Give the generator of one thing, which depends on nothing but its key and the seed."""
        digest = hashlib.sha256("/".join(map(str, (self.seed, *key))).encode()).digest()
        return np.random.default_rng(np.frombuffer(digest, "<u4"))


def draw_frame(world: World, split: str, sequence: int, number: int, frame: str) -> tuple[Points, Annotation]:
    """Draw one frame: points float32 (N, 5) in the coding of the real files, and its annotation."""
    rng = world.generator("frame", split, sequence, number)
    present = {name: rng.random() < kind.share for name, kind in OBJECTS.items()}
    names = tuple(name for name, is_there in present.items() if is_there)
    boxes = [_box_at(world, split, sequence, number, name) for name in names]
    objects = [_draw_object(OBJECTS[name], box, world, rng) for name, box in zip(names, boxes)]
    water = world.generator("water", split, sequence)
    clutter = _draw_clutter(world, water, rng, world.points - sum(map(len, objects)))
    points = as_written(rng.permutation(np.concatenate([*objects, clutter])))
    table = np.array(boxes, np.float32).reshape(-1, 7)
    return points, Annotation(frame=frame, names=names, boxes=table)


def _box_at(world: World, split: str, sequence: int, number: int, name: str) -> Floats:
    """Follow an object from the first frame of its sequence to this one."""
    kind, rng = OBJECTS[name], world.generator("track", split, sequence, name)
    centre, size = _draw_place(kind, world, rng), _draw_size(kind, rng)
    heading = np.deg2rad(rng.uniform(*HEADINGS_DEG))
    for _ in range(number):
        step = rng.normal(size=3) * (1.0, 1.0, 0.2) * kind.step_m / 1.2  # the median length is near step_m
        turn = rng.normal() * kind.turn_rad
        heading = heading + turn
        if _is_in_sight(centre + step, kind, world):
            centre = centre + step
    low, high = np.deg2rad(HEADINGS_DEG)
    heading = low + (heading - low) % (high - low)  # a label does not tell the two ends of an object apart
    return np.array([*centre, *size, wrap_heading(np.array(heading))])


def _draw_place(kind: ObjectStatistics, world: World, rng: np.random.Generator) -> Floats:
    for _ in range(REDRAWS):
        spherical = (
            kind.range_m.draw(rng, 1, below=world.reach_m - 2),
            np.deg2rad(kind.azimuth_deg.draw(rng, 1)),
            np.deg2rad(kind.elevation_deg.draw(rng, 1)),
        )
        place: Floats = _cartesian(*spherical)[0]
        if _is_in_sight(place, kind, world):
            return place
    return np.array([world.reach_m / 2, 0.0, 0.0])


def _is_in_sight(place: Floats, kind: ObjectStatistics, world: World) -> bool:
    x, y, z = place
    azimuth, elevation = np.rad2deg([np.arctan2(y, x), np.arctan2(z, np.hypot(x, y))])
    in_view = abs(azimuth) <= AZIMUTH_DEG[1] and ELEVATION_DEG[0] <= elevation <= ELEVATION_DEG[1]
    in_reach = 1.5 < x < world.reach_m - 2 and abs(y) < world.reach_m / 3 - 1.3
    return bool(in_view and in_reach and 1 - world.reach_m / 4 < z < kind.highest_m)


def _draw_size(kind: ObjectStatistics, rng: np.random.Generator) -> Floats:
    size = np.exp(rng.multivariate_normal(kind.log_size_mean, kind.log_size_covariance))
    size[:2] = np.sort(size[:2])[::-1]  # the heading follows the longer side
    return np.asarray(size, np.float64)


def _draw_object(kind: ObjectStatistics, box: Floats, world: World, rng: np.random.Generator) -> Floats:
    """Draw the echoes of an object, so that its box is exactly around them."""
    intercept, slope, spread = kind.count_fit
    distance_m = float(np.linalg.norm(box[:3]))
    whole = min(np.exp(intercept + slope * np.log(distance_m) + spread * rng.normal()), kind.most_points)
    count = max(round(whole * world.points / POINTS_PER_FRAME), FEWEST_POINTS)
    shape = _frame_of_beams if kind.label == OBJECTS["Box"].label else _body
    echoes = _blur(from_box_frame(shape(rng, count) * box[3:6], box), rng)
    local = to_box_frame(echoes, box)
    low, high = local.min(axis=0), local.max(axis=0)
    fitted = from_box_frame((local - (low + high) / 2) / (high - low) * box[3:6], box)
    return _labelled(fitted, kind.label, kind.log10_intensity, rng)


def _frame_of_beams(rng: np.random.Generator, count: int) -> Floats:
    """Spread points over a unit cube: 70 % on its twelve edges, the others inside and on its faces."""
    spots = rng.uniform(-0.5, 0.5, (count, 3))
    on_edge = rng.random(count) < 0.7
    on_face = ~on_edge & (rng.random(count) < 0.5)
    along = rng.integers(3, size=count)
    ends = rng.choice([-0.5, 0.5], (count, 3))
    fixed = (on_edge[:, None] & (np.arange(3) != along[:, None])) | (
        on_face[:, None] & (np.arange(3) == along[:, None])
    )
    return np.where(fixed, ends, spots)


def _body(rng: np.random.Generator, count: int) -> Floats:
    """Spread points over a ball of diameter 1, denser towards its surface."""
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.asarray(directions * rng.random((count, 1)) ** 0.2 / 2)


def _draw_clutter(world: World, water: np.random.Generator, rng: np.random.Generator, count: int) -> Floats:
    volume, bed, surface = (round(count * share) for share in SHARES)
    depth_m, height_m = water.uniform(-7.0, -3.5), water.uniform(2.0, 4.0)
    parts = [
        (_draw_reverberation(world, rng, volume), CLUTTER),
        (_draw_sheet(world, water, rng, bed, depth_m, ELEVATION_DEG[0]), CLUTTER),
        (_draw_sheet(world, water, rng, surface, height_m, ELEVATION_DEG[1]), SURFACE),
        (_draw_blobs(world, rng, count - volume - bed - surface, (depth_m, height_m)), CLUTTER),
    ]
    return np.concatenate([_labelled(_blur(xyz, rng), label, CLUTTER_INTENSITY, rng) for xyz, label in parts])


def _draw_reverberation(world: World, rng: np.random.Generator, count: int) -> Floats:
    """Echoes of the water itself, rarer with range."""
    range_m = 0.5 + (world.reach_m - 0.5) * rng.random(count) ** 1.7
    return _cartesian(range_m, _azimuths(rng, count), np.deg2rad(rng.uniform(*ELEVATION_DEG, count)))


def _draw_sheet(
    world: World, water: np.random.Generator, rng: np.random.Generator, count: int, level_m: float, edge_deg: float
) -> Floats:
    """Echoes of a gently waved sheet, from where it enters the field of view."""
    wave = water.uniform((0.1, 0.1, 0.0), (0.35, 0.35, 2 * np.pi))
    nearest_m = min(level_m / np.tan(np.deg2rad(edge_deg)) + 1.5, world.reach_m * 0.8)
    ground_m, azimuth = rng.uniform(nearest_m, world.reach_m * 0.98, count), _azimuths(rng, count)
    x, y = ground_m * np.cos(azimuth), ground_m * np.sin(azimuth)
    return np.stack([x, y, level_m + 0.3 * np.sin(wave[0] * x + wave[2]) * np.cos(wave[1] * y)], axis=1)


def _draw_blobs(world: World, rng: np.random.Generator, count: int, levels_m: tuple[float, float]) -> Floats:
    """Compact clusters that are no object: fish, stones, bubbles."""
    blobs = int(rng.integers(BLOBS[0], BLOBS[1] + 1))
    weights = rng.uniform(*BLOB_POINTS, blobs)
    owner = np.repeat(np.arange(blobs), rng.multinomial(count, weights / weights.sum()))
    centres = _cartesian(
        rng.uniform(3, world.reach_m * 0.95, blobs),
        _azimuths(rng, blobs),
        np.deg2rad(rng.uniform(*ELEVATION_DEG, blobs)),
    )
    centres[:, 2] = np.clip(centres[:, 2], *levels_m)
    spread_m = rng.uniform(0.1, 0.6, (blobs, 1))
    return np.asarray(centres[owner] + rng.normal(size=(count, 3)) * spread_m[owner])


def _azimuths(rng: np.random.Generator, count: int) -> Floats:
    return np.deg2rad(rng.uniform(*AZIMUTH_DEG, count))


def _cartesian(range_m: Floats, azimuth: Floats, elevation: Floats) -> Floats:
    ground_m = range_m * np.cos(elevation)
    return np.stack([ground_m * np.cos(azimuth), ground_m * np.sin(azimuth), range_m * np.sin(elevation)], axis=1)


def _blur(xyz: Floats, rng: np.random.Generator) -> Floats:
    """Move echoes as the sonar does: a little along the beam, more across it, and more so far away."""
    range_m = np.linalg.norm(xyz, axis=1, keepdims=True)
    beam = xyz / range_m
    radial = rng.normal(size=(len(xyz), 1)) * RADIAL_NOISE_M
    across = rng.normal(size=xyz.shape) * TANGENTIAL_NOISE * range_m
    across -= (across * beam).sum(axis=1, keepdims=True) * beam
    return np.asarray(xyz + radial * beam + across)


def _labelled(xyz: Floats, label: int, loudness: Quantiles, rng: np.random.Generator) -> Floats:
    intensity = 10 ** loudness.draw(rng, len(xyz))
    return np.concatenate([xyz, intensity[:, None], np.full((len(xyz), 1), float(label))], axis=1)
