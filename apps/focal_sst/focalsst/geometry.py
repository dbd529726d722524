"""How much boxes overlap, seen from above and in space, and the suppression of boxes that say the same twice.

Words: a *box* is seven numbers x, y, z, dx, dy, dz, heading: its centre and sides in metres, and the angle in rad
from +x to its dx side, counter-clockwise about +z. *BEV* (bird's-eye view) is its footprint in the x-y plane.
IoU is intersection over union. Everything is float64 in numpy, on the CPU. A box with a number that is not finite,
or with a side that is not above 0, overlaps nothing, itself included.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
AnyFloats = NDArray[np.floating[Any]]
Integers = NDArray[np.int64]

_X, _Y, _Z, _DX, _DY, _DZ, _HEADING = range(7)
_LEAST = np.array([-np.inf, -np.inf, -np.inf, 0.0, 0.0, 0.0, -np.inf])  # sides are above 0
_AT_A_TIME = 32_768  # pairs that are clipped together: some ten megabytes
_UNIT_CORNERS = np.array([[0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5], [0.5, -0.5]])  # corners of the unit square, in order


def corners_bev(boxes_N7: AnyFloats) -> Floats:
    """The footprints' corners (N, 4, 2), counter-clockwise from the one at +dx, +dy."""
    boxes = _as_boxes(boxes_N7)
    return _rotated(_UNIT_CORNERS * boxes[:, None, _DX:_DZ], boxes[:, _HEADING]) + boxes[:, None, :_Z]


def iou_bev_pairs(a_P7: AnyFloats, b_P7: AnyFloats) -> Floats:
    """BEV IoU of each box of `a` with the box of `b` in the same row (P)."""
    a, b = _as_pairs(a_P7, b_P7)
    return _over_union(_overlap_m2(a, b, among=_near(a, b)), _area_m2(a), _area_m2(b))


def iou_3d_pairs(a_P7: AnyFloats, b_P7: AnyFloats) -> Floats:
    """IoU in space of each box of `a` with the box of `b` in the same row (P)."""
    a, b = _as_pairs(a_P7, b_P7)
    among = _near(a, b)
    height_m = np.zeros(len(a))
    height_m[among] = _common_height_m(a[among], b[among])
    overlap_m3 = _overlap_m2(a, b, among=among & (height_m > 0)) * height_m
    return _over_union(overlap_m3, _area_m2(a) * a[:, _DZ], _area_m2(b) * b[:, _DZ])


def iou_bev(a_N7: AnyFloats, b_M7: AnyFloats) -> Floats:
    """BEV IoU of every box of `a` with every box of `b` (N, M)."""
    return _matrix(iou_bev_pairs, a_N7, b_M7)


def iou_3d(a_N7: AnyFloats, b_M7: AnyFloats) -> Floats:
    """IoU in space of every box of `a` with every box of `b` (N, M)."""
    return _matrix(iou_3d_pairs, a_N7, b_M7)


def nms_bev(
    boxes_N7: AnyFloats, scores_N: AnyFloats, *, iou_threshold: float, consider: int = 1000, keep: int = 83
) -> Integers:
    """Indices of the boxes that stay, best score first (greedy non-maximum suppression).

    Of the `consider` best boxes, each that stays removes those after it whose BEV IoU with it is above
    `iou_threshold`, until `keep` have stayed. Of equal scores the lower index comes first.
    """
    boxes = _as_boxes(boxes_N7)
    left = np.argsort(-_as_scores(scores_N, boxes), kind="stable")[:consider]
    stay: list[int] = []
    while left.size and len(stay) < keep:
        best, left = left[0], left[1:]
        stay.append(int(best))
        left = left[iou_bev(boxes[best][None], boxes[left])[0] <= iou_threshold]
    return np.array(stay, dtype=np.int64)


def _matrix(of_pairs: Callable[[Floats, Floats], Floats], a_N7: AnyFloats, b_M7: AnyFloats) -> Floats:
    a, b = _as_boxes(a_N7), _as_boxes(b_M7)
    iou_NM = np.zeros((len(a), len(b)))
    n, m = np.nonzero(_near(a[:, None], b[None]))
    iou_NM[n, m] = of_pairs(a[n], b[m])
    return iou_NM


def _near(a: Floats, b: Floats) -> NDArray[np.bool_]:
    """Whether two sound boxes' circumscribed circles meet; shapes (..., 7) broadcast."""
    sound = _sound(a) & _sound(b)
    a, b = np.where(sound[..., None], a, 0.0), np.where(sound[..., None], b, 0.0)
    apart_m = np.hypot(a[..., _X] - b[..., _X], a[..., _Y] - b[..., _Y])
    reach_m = (np.hypot(a[..., _DX], a[..., _DY]) + np.hypot(b[..., _DX], b[..., _DY])) / 2
    return sound & (apart_m <= reach_m)


def _sound(boxes: Floats) -> NDArray[np.bool_]:
    sound: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(boxes) & (boxes > _LEAST), axis=-1)
    return sound


def _overlap_m2(a_P7: Floats, b_P7: Floats, *, among: NDArray[np.bool_]) -> Floats:
    """Common area of the footprints of each pair, 0 where not `among`."""
    area_P = np.zeros(len(a_P7))
    (chosen,) = np.nonzero(among)
    for start in range(0, len(chosen), _AT_A_TIME):
        part = chosen[start : start + _AT_A_TIME]
        area_P[part] = _clipped_area_m2(a_P7[part], b_P7[part])
    return np.minimum(area_P, np.where(among, np.minimum(_area_m2(a_P7), _area_m2(b_P7)), 0.0))


def _clipped_area_m2(a_P7: Floats, b_P7: Floats) -> Floats:
    """Sutherland and Hodgman (1974): footprint a, seen from b, is cut by the four lines that bound b.

    With b's centre as origin and b's sides along the axes, each cut is a comparison with half a side.
    """
    turned = a_P7[:, _HEADING] - b_P7[:, _HEADING]
    shift_P12 = _rotated((a_P7[:, :_Z] - b_P7[:, :_Z])[:, None], -b_P7[:, _HEADING])
    polygon_PV2 = _rotated(_UNIT_CORNERS * a_P7[:, None, _DX:_DZ], turned) + shift_P12
    for axis, sides in ((0, b_P7[:, _DX]), (1, b_P7[:, _DY])):
        for sign in (1.0, -1.0):
            polygon_PV2 = _cut(polygon_PV2, depth_PV=sides[:, None] / 2 - sign * polygon_PV2[..., axis])
    x, y = np.moveaxis(polygon_PV2 - polygon_PV2[:, :1], -1, 0)
    doubled: Floats = (x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1)).sum(axis=1)
    return np.abs(doubled) / 2


def _cut(polygon_PV2: Floats, *, depth_PV: Floats) -> Floats:
    """What lies at depth >= 0; vertices that a polygon has less than others repeat its first one."""
    inside = depth_PV >= 0
    next_depth = np.roll(depth_PV, -1, axis=1)
    crosses = inside != (next_depth >= 0)
    share = np.divide(depth_PV, depth_PV - next_depth, out=np.zeros_like(depth_PV), where=crosses)
    crossing = polygon_PV2 + share[..., None] * (np.roll(polygon_PV2, -1, axis=1) - polygon_PV2)
    pairs, vertices = inside.shape
    points = np.stack([polygon_PV2, crossing], axis=2).reshape(pairs, 2 * vertices, 2)
    kept = np.stack([inside, crosses], axis=2).reshape(pairs, 2 * vertices)
    kept_first = np.argsort(~kept, axis=1, kind="stable")[:, : max(int(kept.sum(axis=1).max()), 1)]
    points = np.take_along_axis(points, kept_first[..., None], axis=1)
    return np.where(np.take_along_axis(kept, kept_first, axis=1)[..., None], points, points[:, :1])


def _rotated(points_PV2: Floats, angle_P: Floats) -> Floats:
    cos, sin = np.cos(angle_P)[:, None], np.sin(angle_P)[:, None]
    x, y = points_PV2[..., 0], points_PV2[..., 1]
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1)


def _common_height_m(a: Floats, b: Floats) -> Floats:
    """Length of the common z interval, exact for boxes at one height; below 0 for boxes one above the other."""
    crossed_m = (a[:, _DZ] + b[:, _DZ]) / 2 - np.abs(a[:, _Z] - b[:, _Z])
    return np.maximum(np.minimum(np.minimum(a[:, _DZ], b[:, _DZ]), crossed_m), 0.0)


def _area_m2(boxes_N7: Floats) -> Floats:
    return boxes_N7[:, _DX] * boxes_N7[:, _DY]


def _over_union(overlap_P: Floats, a_P: Floats, b_P: Floats) -> Floats:
    """Overlap over a + b - overlap; 0 where nothing overlaps."""
    some = overlap_P > 0
    iou_P = np.zeros_like(overlap_P)
    iou_P[some] = overlap_P[some] / (a_P[some] + b_P[some] - overlap_P[some])
    return iou_P


def _as_boxes(boxes_N7: AnyFloats) -> Floats:
    boxes = np.asarray(boxes_N7, dtype=np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 7:
        raise ValueError(f"boxes have seven numbers each: expected shape (N, 7), found {boxes.shape}")
    return boxes


def _as_pairs(a_P7: AnyFloats, b_P7: AnyFloats) -> tuple[Floats, Floats]:
    a, b = _as_boxes(a_P7), _as_boxes(b_P7)
    if len(a) != len(b):
        raise ValueError(f"pairs need as many boxes on both sides: found {len(a)} and {len(b)}")
    return a, b


def _as_scores(scores_N: AnyFloats, boxes_N7: Floats) -> Floats:
    scores = np.asarray(scores_N, dtype=np.float64)
    if scores.shape != (len(boxes_N7),):
        raise ValueError(f"every box has one score: expected shape ({len(boxes_N7)},), found {scores.shape}")
    return scores
