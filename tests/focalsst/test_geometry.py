"""Overlap of turned boxes against independent references, at the edges where clipping goes wrong, and suppression."""

from __future__ import annotations

import math

import numpy as np
import pytest

from focalsst.geometry import (
    corners_bev,
    iou_3d,
    iou_3d_pairs,
    iou_bev,
    iou_bev_pairs,
    nms_bev,
)

# Two boxes, their BEV IoU and their IoU in space, as computed with shapely 2.2.0 polygons.
BY_SHAPELY = [
    ((0.0, 0.3, -0.27, 1.46, 1.23, 0.38, 2.97), (-0.07, 0.67, 1.44, 1.09, 1.16, 1.61, -1.25), 0.44329136157173016, 0.0),
    (
        (-0.89, -0.45, -0.99, 1.03, 1.32, 1.43, -1.11),
        (-0.68, 0.2, -0.46, 1.27, 1.22, 0.77, 0.72),
        0.2199743327632299,
        0.1053376198031854,
    ),
    ((0.06, 1.34, -0.49, 0.63, 1.06, 0.83, 0.79), (0.13, -1.19, -0.58, 1.34, 1.08, 2.42, 1.47), 0.0, 0.0),
    (
        (-0.62, 0.49, 0.36, 0.9, 2.29, 0.9, -3.53),
        (-0.2, 0.9, 1.15, 1.87, 1.33, 1.89, -1.16),
        0.34886985008406524,
        0.12178107374310487,
    ),
    (
        (0.11, -0.93, -0.03, 1.33, 2.1, 1.01, -0.9),
        (-1.32, -0.79, 0.65, 1.14, 2.28, 1.35, 0.15),
        0.0391296570376335,
        0.016300503529479284,
    ),
    (
        (-0.24, -1.27, 0.27, 0.62, 2.07, 1.43, 2.53),
        (-0.37, -0.25, 1.52, 0.86, 1.47, 4.15, -2.79),
        0.10042134375001177,
        0.0492583309817085,
    ),
]


def box(x=0.0, y=0.0, z=0.0, dx=2.0, dy=1.0, dz=1.5, heading=0.0) -> np.ndarray:
    return np.array([[x, y, z, dx, dy, dz, heading]])


def random_boxes(seed: int, count: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    sides = np.exp(random.normal(0.3, 0.6, (count, 3)))
    return np.concatenate([random.normal(0, 1.2, (count, 3)), sides, random.uniform(-7, 7, (count, 1))], axis=1)


def inside(points: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Which points (N, 2) lie in the footprint of one box (7)."""
    x, y = (points - of[:2]).T
    along, across = x * math.cos(of[6]) + y * math.sin(of[6]), y * math.cos(of[6]) - x * math.sin(of[6])
    return (abs(along) <= of[3] / 2) & (abs(across) <= of[4] / 2)


def area_by_sorted_corners(a: np.ndarray, b: np.ndarray) -> float:
    """Another way: the corners that lie in the other box and all crossings of edges, sorted around their middle."""
    (p,), (q,) = corners_bev(a[None]), corners_bev(b[None])
    points = [*p[inside(p, b)], *q[inside(q, a)]]
    for i in range(4):
        for j in range(4):
            along_p, along_q = p[(i + 1) % 4] - p[i], q[(j + 1) % 4] - q[j]
            across = along_p[0] * along_q[1] - along_p[1] * along_q[0]
            gap = q[j] - p[i]
            s, t = (gap[0] * along_q[1] - gap[1] * along_q[0], gap[0] * along_p[1] - gap[1] * along_p[0]) / across
            if 0 <= s <= 1 and 0 <= t <= 1:
                points.append(p[i] + s * along_p)
    if len(points) < 3:
        return 0.0
    x, y = (np.array(points) - np.mean(points, axis=0)).T
    order = np.argsort(np.arctan2(y, x))
    x, y = x[order], y[order]
    return float(abs((x * np.roll(y, -1) - y * np.roll(x, -1)).sum()) / 2)


def test_the_values_of_a_geometry_library_are_met():
    a, b, bev, space = (np.array(column) for column in zip(*BY_SHAPELY))
    np.testing.assert_allclose(iou_bev_pairs(a, b), bev, rtol=0, atol=1e-14)
    np.testing.assert_allclose(iou_3d_pairs(a, b), space, rtol=0, atol=1e-14)


def test_random_pairs_agree_with_another_algorithm():
    a, b = random_boxes(0, 400), random_boxes(1, 400)
    common = np.array([area_by_sorted_corners(p, q) for p, q in zip(a, b)])
    areas = a[:, 3] * a[:, 4], b[:, 3] * b[:, 4]
    assert (common > 0.1).sum() > 100
    np.testing.assert_allclose(iou_bev_pairs(a, b), common / (sum(areas) - common), rtol=0, atol=1e-12)
    top = np.minimum(a[:, 2] + a[:, 5] / 2, b[:, 2] + b[:, 5] / 2)
    bottom = np.maximum(a[:, 2] - a[:, 5] / 2, b[:, 2] - b[:, 5] / 2)
    volume = common * np.maximum(top - bottom, 0)
    total = areas[0] * a[:, 5] + areas[1] * b[:, 5]
    np.testing.assert_allclose(iou_3d_pairs(a, b), volume / (total - volume), rtol=0, atol=1e-12)


def test_random_pairs_agree_with_a_count_of_grid_points():
    a, b = random_boxes(2, 20), random_boxes(3, 20)
    steps = np.linspace(-8, 8, 801)
    grid = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    for p, q, found in zip(a, b, iou_bev_pairs(a, b)):
        in_a, in_b = inside(grid, p), inside(grid, q)
        assert found == pytest.approx((in_a & in_b).sum() / (in_a | in_b).sum(), abs=0.02)


def test_a_box_overlaps_itself_wholly_to_the_last_bit():
    boxes = random_boxes(4, 500)
    assert set(iou_bev_pairs(boxes, boxes)) == {1.0}
    assert set(iou_3d_pairs(boxes, boxes)) == {1.0}


@pytest.mark.parametrize("turns", [math.pi, -math.pi, 2 * math.pi, -2 * math.pi, 20 * math.pi])
def test_half_turns_and_whole_turns_change_nothing(turns):
    boxes = random_boxes(5, 500)
    turned = boxes + np.array([0, 0, 0, 0, 0, 0, turns])
    np.testing.assert_allclose(iou_bev_pairs(boxes, turned), 1.0, rtol=0, atol=1e-12)
    other = random_boxes(6, 500)
    np.testing.assert_allclose(iou_3d_pairs(turned, other), iou_3d_pairs(boxes, other), rtol=0, atol=1e-12)


def test_headings_on_both_sides_of_the_seam_are_neighbours():
    a, b = box(heading=math.pi - 1e-3), box(heading=-math.pi + 1e-3)
    assert iou_bev(a, b)[0, 0] == pytest.approx(iou_bev(box(heading=-1e-3), box(heading=1e-3))[0, 0], abs=1e-12)


def test_a_quarter_turn_swaps_the_sides():
    assert iou_bev(box(dx=3, dy=1), box(dx=1, dy=3, heading=math.pi / 2))[0, 0] == pytest.approx(1.0, abs=1e-12)
    assert iou_bev(box(dx=3, dy=1), box(dx=3, dy=1, heading=math.pi / 2))[0, 0] == pytest.approx(1 / 5, abs=1e-12)


def test_a_square_turned_by_an_eighth_leaves_an_octagon():
    octagon = 2 * (math.sqrt(2) - 1)
    found = iou_bev(box(dx=1, dy=1), box(dx=1, dy=1, heading=math.pi / 4))[0, 0]
    assert found == pytest.approx(octagon / (2 - octagon), abs=1e-12)


@pytest.mark.parametrize("heading", [0.0, 0.3, math.pi / 2, 2.5])
def test_a_contained_box_counts_as_its_share(heading):
    a, b = box(dx=8, dy=8, dz=4), box(x=0.5, y=-0.7, z=0.2, dx=2, dy=1, dz=1, heading=heading)
    for left, right in ((a, b), (b, a)):
        assert iou_bev(left, right)[0, 0] == pytest.approx(2 / 64, abs=1e-14)
        assert iou_3d(left, right)[0, 0] == pytest.approx(2 / 256, abs=1e-14)


def test_a_tiny_box_in_a_huge_one_keeps_its_digits():
    tiny, huge = box(x=3e4, y=-2e4, dx=1e-2, dy=2e-2, heading=0.7), box(dx=1e5, dy=1e5, heading=0.2)
    assert iou_bev(tiny, huge)[0, 0] == pytest.approx(2e-4 / 1e10, rel=1e-6)


@pytest.mark.parametrize("heading", [0.0, 0.5, 2.0])
def test_touching_boxes_do_not_overlap(heading):
    beside = box(x=2 * math.cos(heading), y=2 * math.sin(heading), heading=heading)
    corner = box(x=2.0, y=1.0)
    assert iou_bev(box(heading=heading), beside)[0, 0] == pytest.approx(0.0, abs=1e-15)
    assert iou_bev(box(), corner)[0, 0] == 0.0
    assert iou_3d(box(heading=heading), box(z=1.5, heading=heading))[0, 0] == 0.0


def test_boxes_one_above_the_other_overlap_in_the_plane_only():
    assert iou_bev(box(), box(z=9))[0, 0] == 1.0
    assert iou_3d(box(), box(z=9))[0, 0] == 0.0


def test_far_boxes_do_not_overlap():
    assert iou_bev(box(), box(x=1e6, heading=1))[0, 0] == 0.0
    assert iou_3d(box(), box(y=-40, heading=1))[0, 0] == 0.0


@pytest.mark.parametrize(
    "odd", [box(dx=0), box(dy=-1), box(dz=0), box(x=math.nan), box(dx=math.inf), box(heading=math.inf)]
)
def test_boxes_that_are_none_overlap_nothing_not_even_themselves(odd):
    for other in (odd, box()):
        assert iou_bev(odd, other)[0, 0] == iou_bev(other, odd)[0, 0] == iou_3d(odd, other)[0, 0] == 0.0


def test_matrices_have_a_row_for_each_of_the_first_also_when_empty():
    a, b = random_boxes(7, 5), random_boxes(8, 3).astype(np.float32)
    found = iou_3d(a, b)
    assert (found.shape, found.dtype) == ((5, 3), np.float64)
    np.testing.assert_allclose(found, iou_3d(b, a).T, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(found[2], iou_3d_pairs(np.repeat(a[2:3], 3, axis=0), b))
    none = np.zeros((0, 7))
    assert iou_bev(none, b).shape == (0, 3)
    assert iou_3d(a, none).shape == (5, 0)
    assert iou_bev_pairs(none, none).shape == (0,)


def test_many_pairs_are_clipped_in_parts_that_do_not_show():
    a, b = random_boxes(9, 40_000), random_boxes(10, 40_000)
    a[:, :2], b[:, :2] = 0, 0.1
    np.testing.assert_array_equal(iou_bev_pairs(a, b)[32_700:32_900], iou_bev_pairs(a[32_700:32_900], b[32_700:32_900]))


def test_corners_go_round_counter_clockwise_from_the_front_left():
    found = corners_bev(box(x=10, heading=math.pi / 2))[0]
    np.testing.assert_allclose(found, [[9.5, 1], [9.5, -1], [10.5, -1], [10.5, 1]], atol=1e-15)


def nms_one_by_one(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    stay: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(iou_bev(boxes[[i]], boxes[[j]])[0, 0] <= threshold for j in stay):
            stay.append(i)
    return stay


def test_suppression_is_the_greedy_one():
    random = np.random.default_rng(11)
    boxes, scores = random_boxes(12, 80), random.integers(0, 20, 80) / 20
    whole = nms_one_by_one(boxes, scores, 0.2)
    assert nms_bev(boxes, scores, iou_threshold=0.2).tolist() == whole
    assert nms_bev(boxes, scores, iou_threshold=0.2, keep=3).tolist() == whole[:3]
    best = np.argsort(-scores, kind="stable")[:30]
    expected = best[nms_one_by_one(boxes[best], scores[best], 0.2)].tolist()
    assert nms_bev(boxes, scores, iou_threshold=0.2, consider=30).tolist() == expected


def test_only_overlap_above_the_threshold_suppresses():
    two, scores = np.concatenate([box(), box(x=1.0)]), np.array([0.5, 0.9])
    overlap = iou_bev(two[:1], two[1:])[0, 0]
    assert nms_bev(two, scores, iou_threshold=overlap).tolist() == [1, 0]
    assert nms_bev(two, scores, iou_threshold=overlap - 1e-9).tolist() == [1]


def test_nothing_to_suppress_is_no_error():
    none, no_scores = np.zeros((0, 7)), np.zeros(0)
    assert nms_bev(none, no_scores, iou_threshold=0.2).tolist() == []


@pytest.mark.parametrize(
    "faulty",
    [
        lambda: iou_bev(np.zeros((2, 5)), box()),
        lambda: iou_3d_pairs(box(), np.zeros((2, 7))),
        lambda: nms_bev(box(), np.zeros(2), iou_threshold=0.2),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(faulty):
    with pytest.raises(ValueError, match="found"):
        faulty()
