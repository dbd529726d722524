"""A scene and what is done to it: masks, flips, rotation, scaling, shuffling.

Each is a function of the scene, its parameters and, where it draws, a generator.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from focalsst.dataset.boxes import Mask, corners, wrap_heading
from focalsst.dataset.point_layout import Points
from unbroken.errors import ConfigError

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """One frame on its way: points (N, 4) of x, y, z, encoded intensity; a name and a box (M, 7) per object."""

    points: Points
    names: tuple[str, ...]
    boxes: Points


Augmentation = Callable[[Scene, np.random.Generator], Scene]


@dataclass(frozen=True, kw_only=True)
class Extent:
    """The box of space that is looked at, in metres, with both ends included."""

    low: Triple = (0.0, -20.0, -20.0)
    high: Triple = (50.0, 20.0, 15.0)

    def __post_init__(self) -> None:
        if len(self.low) != 3 or len(self.high) != 3 or any(a >= b for a, b in zip(self.low, self.high)):
            found = f"{list(self.low)} to {list(self.high)}"
            raise ConfigError("range", "it holds no space", expected="low below high in x, y and z", found=found)


def mask_points(scene: Scene, extent: Extent, *, mask_z: bool = True) -> Scene:
    """Keep the points within the extent; without `mask_z` only x and y count, as in the original."""
    axes = 3 if mask_z else 2
    xyz = scene.points[:, :axes]
    low, high = np.array(extent.low[:axes], np.float32), np.array(extent.high[:axes], np.float32)
    kept = ((xyz >= low) & (xyz <= high)).all(axis=1)
    return replace(scene, points=scene.points[kept])


def mask_boxes(
    scene: Scene, extent: Extent, *, by: Literal["centre", "corners"] = "centre", min_corners: int = 1
) -> Scene:
    """Keep the objects whose centre, or at least `min_corners` corners, lie within the extent."""
    spots_MK3 = scene.boxes[:, None, :3] if by == "centre" else corners(scene.boxes)
    inside_MK = ((spots_MK3 >= extent.low) & (spots_MK3 <= extent.high)).all(axis=2)
    return _keep_objects(scene, inside_MK.sum(axis=1) >= (1 if by == "centre" else min_corners))


def keep_classes(scene: Scene, classes: Collection[str]) -> Scene:
    """Keep the objects of these classes."""
    return _keep_objects(scene, np.array([name in classes for name in scene.names], bool))


def shuffle(scene: Scene, rng: np.random.Generator) -> Scene:
    """Bring the points into a random order."""
    return replace(scene, points=scene.points[rng.permutation(len(scene.points))])


def flip(scene: Scene, axis: Literal["x", "y"]) -> Scene:
    """Mirror at the x axis (y changes its sign), or at the y axis (x does)."""
    column = 1 if axis == "x" else 0
    points, boxes = scene.points.copy(), scene.boxes.copy()
    points[:, column] *= -1
    boxes[:, column] *= -1
    boxes[:, 6] = wrap_heading((0 if axis == "x" else np.pi) - boxes[:, 6])
    return replace(scene, points=points, boxes=boxes)


def rotate(scene: Scene, angle_rad: float) -> Scene:
    """Turn everything about the z axis, counter-clockwise from above."""
    turn = np.array([[np.cos(angle_rad), np.sin(angle_rad)], [-np.sin(angle_rad), np.cos(angle_rad)]])
    points, boxes = scene.points.copy(), scene.boxes.copy()
    for table in (points, boxes):
        table[:, :2] = table[:, :2].astype(np.float64) @ turn
    boxes[:, 6] = wrap_heading(boxes[:, 6] + np.float32(angle_rad))
    return replace(scene, points=points, boxes=boxes)


def scale(scene: Scene, factor: float) -> Scene:
    """Scale all places and sizes about the sensor."""
    points, boxes = scene.points.copy(), scene.boxes.copy()
    points[:, :3] *= np.float32(factor)
    boxes[:, :6] *= np.float32(factor)
    return replace(scene, points=points, boxes=boxes)


def random_flip(scene: Scene, rng: np.random.Generator, *, probability: float = 0.5) -> Scene:
    """Mirror left and right with this probability."""
    return flip(scene, "x") if rng.random() < probability else scene


def random_rotation(scene: Scene, rng: np.random.Generator, *, range_rad: Sequence[float]) -> Scene:
    """Turn everything by an angle drawn evenly from a range."""
    low, high = range_rad
    return rotate(scene, rng.uniform(low, high))


def random_scaling(scene: Scene, rng: np.random.Generator, *, factors: Sequence[float]) -> Scene:
    """Scale everything by a factor drawn evenly from a range."""
    low, high = factors
    return scale(scene, rng.uniform(low, high))


def _keep_objects(scene: Scene, kept: Mask) -> Scene:
    names = tuple(name for name, keep in zip(scene.names, kept) if keep)
    return replace(scene, names=names, boxes=scene.boxes[kept])
