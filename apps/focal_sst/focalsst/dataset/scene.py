"""A scene and what is done to it: masks, flips, rotation, scaling, shuffling; and the geometry of its boxes.

Each is a function of the scene, its parameters and, where it draws, a generator. A box is (x, y, z, dx, dy, dz,
heading): centre and size in metres, heading in radians about +z from +x.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from focalsst.dataset.points import Floats, Points
from focalsst.geometry import corners_bev
from unbroken.errors import ConfigError

Mask = NDArray[np.bool_]

TOUCH_M: Final = 1e-6  # boxes that share no more than an edge do not overlap
Triple = tuple[float, float, float]


def wrap_heading(angle: Floats) -> Floats:
    """Bring angles in radians to [-pi, pi)."""
    wrapped: Floats = (angle.astype(np.float64) + np.pi) % (2 * np.pi) - np.pi
    return wrapped.astype(angle.dtype)


def to_box_frame(xyz_N3: Floats, box: Floats) -> Floats:
    """Give points relative to the centre of a box, with x along its heading."""
    cos, sin = np.cos(float(box[6])), np.sin(float(box[6]))
    x, y, z = (xyz_N3[:, :3].astype(np.float64) - box[:3].astype(np.float64)).T
    return np.stack([x * cos + y * sin, y * cos - x * sin, z], axis=1)


def from_box_frame(local_N3: Floats, box: Floats) -> Floats:
    """Undo `to_box_frame`."""
    cos, sin = np.cos(float(box[6])), np.sin(float(box[6]))
    x, y, z = local_N3.T
    return np.stack([x * cos - y * sin, x * sin + y * cos, z], axis=1) + box[:3].astype(np.float64)


def points_in_box(xyz_N3: Floats, box: Floats, *, margin_m: float = 0.0) -> Mask:
    """Tell which points lie in a box, its faces included, after each face moved out by `margin_m`."""
    half = np.asarray(box[3:6], np.float64) / 2 + margin_m
    return np.asarray((np.abs(to_box_frame(xyz_N3, box)) <= half).all(axis=1))


def bev_overlap(first_A7: Floats, second_B7: Floats) -> Mask:
    """Tell which boxes of two lists share some area as seen from above, shape (A, B).

    Two convex shapes are apart exactly if they are so along the normal of one of their edges.
    """
    first, second = corners_bev(first_A7), corners_bev(second_B7)
    apart = _apart_along(first, second, first_A7[:, 6])
    apart |= _apart_along(second, first, second_B7[:, 6]).T
    return np.asarray(~apart)


def _apart_along(own_A42: Floats, other_B42: Floats, heading_A: Floats) -> Mask:
    """Tell whether a box (A) and another (B) are apart along one of the two axes of the first."""
    axes_A22 = _rotations(heading_A.astype(np.float64))
    own = np.einsum("aki,aij->ajk", own_A42, axes_A22)
    other = np.einsum("bki,aij->abjk", other_B42, axes_A22)
    gap = np.maximum(own.min(axis=2)[:, None] - other.max(axis=3), other.min(axis=3) - own.max(axis=2)[:, None])
    apart: Mask = (gap >= -TOUCH_M).any(axis=2)
    return apart


def _rotations(heading_M: Floats) -> Floats:
    cos, sin = np.cos(heading_M), np.sin(heading_M)
    return np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)


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


def mask_boxes(scene: Scene, extent: Extent) -> Scene:
    """Keep the objects whose centre lies within the extent."""
    centres_M3 = scene.boxes[:, :3]
    inside_M = np.asarray(((centres_M3 >= extent.low) & (centres_M3 <= extent.high)).all(axis=1))
    return _keep_objects(scene, inside_M)


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
