"""Geometry of boxes with a heading: corners, points inside, and overlap as seen from above.

A box is (x, y, z, dx, dy, dz, heading): centre and size in metres, heading in radians about +z from +x.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

# Signs of the four corners, counter-clockwise from the front left.
SIGNS: Final = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], np.float64)
TOUCH_M: Final = 1e-6  # boxes that share no more than an edge do not overlap


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


def corners(boxes_M7: Floats) -> Floats:
    """Give the eight corners of each box, shape (M, 8, 3): the lower four, then the upper four."""
    flat = bev_corners(boxes_M7)
    z, half = boxes_M7[:, 2].astype(np.float64), boxes_M7[:, 5].astype(np.float64) / 2
    levels = [
        np.concatenate([flat, np.broadcast_to(level[:, None, None], (*flat.shape[:2], 1))], axis=2)
        for level in (z - half, z + half)
    ]
    return np.concatenate(levels, axis=1)


def bev_corners(boxes_M7: Floats) -> Floats:
    """Give the four corners of each box from above, shape (M, 4, 2), counter-clockwise."""
    boxes = boxes_M7.astype(np.float64)
    local_M42 = SIGNS * boxes[:, None, 3:5] / 2
    return np.asarray(np.einsum("mij,mkj->mki", _rotations(boxes[:, 6]), local_M42) + boxes[:, None, :2])


def bev_overlap(first_A7: Floats, second_B7: Floats) -> Mask:
    """Tell which boxes of two lists share some area as seen from above, shape (A, B).

    Two convex shapes are apart exactly if they are so along the normal of one of their edges.
    """
    first, second = bev_corners(first_A7), bev_corners(second_B7)
    apart = _apart_along(first, second, first_A7[:, 6])
    apart |= _apart_along(second, first, second_B7[:, 6]).T
    return np.asarray(~apart)


def _apart_along(own_A42: Floats, other_B42: Floats, heading_A: Floats) -> Mask:
    """Tell whether a box (A) and another (B) are apart along one of the two axes of the first."""
    axes_A22 = _rotations(heading_A.astype(np.float64))
    own = np.einsum("aki,aij->ajk", own_A42, axes_A22)
    other = np.einsum("bki,aij->abjk", other_B42, axes_A22)
    gap = np.maximum(
        own.min(axis=2)[:, None] - other.max(axis=3),
        other.min(axis=3) - own.max(axis=2)[:, None],
    )
    apart: Mask = (gap >= -TOUCH_M).any(axis=2)
    return apart


def _rotations(heading_M: Floats) -> Floats:
    cos, sin = np.cos(heading_M), np.sin(heading_M)
    return np.stack([np.stack([cos, -sin], axis=1), np.stack([sin, cos], axis=1)], axis=1)
