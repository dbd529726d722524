"""Boxes and scenes against brute force: corners, points inside, overlap, flips, rotation, scaling, masks."""

from __future__ import annotations

import numpy as np
import pytest

from focalsst.dataset.scene import (
    Extent,
    Scene,
    bev_overlap,
    flip,
    from_box_frame,
    keep_classes,
    mask_boxes,
    mask_points,
    points_in_box,
    random_flip,
    random_rotation,
    random_scaling,
    rotate,
    scale,
    shuffle,
    to_box_frame,
    wrap_heading,
)
from focalsst.geometry import corners_bev as bev_corners
from unbroken.errors import ConfigError


def some_boxes(count, seed=0, spread=4.0):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [
            rng.uniform(-spread, spread, (count, 3)),
            rng.uniform(0.5, 3, (count, 3)),
            rng.uniform(-np.pi, np.pi, (count, 1)),
        ],
        axis=1,
    ).astype(np.float32)


def some_scene(seed=0, objects=3):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-5, 5, (4000, 4)).astype(np.float32)
    return Scene(points=points, names=("Box", "Diver", "Box")[:objects], boxes=some_boxes(objects, seed))


def inside_slowly(point, box):
    """Rotate one point back by complex numbers."""
    turned = complex(point[0] - box[0], point[1] - box[1]) * np.exp(-1j * box[6])
    return abs(turned.real) <= box[3] / 2 and abs(turned.imag) <= box[4] / 2 and abs(point[2] - box[2]) <= box[5] / 2


def counts_inside(scene):
    return [int(points_in_box(scene.points, box).sum()) for box in scene.boxes]


@pytest.mark.parametrize("seed", range(3))
def test_points_in_a_box_are_those_that_one_by_one_are_inside(seed):
    points = np.random.default_rng(seed).uniform(-5, 5, (500, 3))
    for box in some_boxes(5, seed).astype(np.float64):
        assert points_in_box(points, box).tolist() == [inside_slowly(point, box) for point in points]


def test_a_margin_moves_every_face_out():
    box = np.array([0, 0, 0, 2, 2, 2, 0.0])
    points = np.array([[1.05, 0, 0], [0, -1.05, 0], [0, 0, 1.05], [1.2, 0, 0]])
    assert points_in_box(points, box).tolist() == [False] * 4
    assert points_in_box(points, box, margin_m=0.1).tolist() == [True, True, True, False]


def test_the_frame_of_a_box_has_x_along_its_heading_and_can_be_left_again():
    box = np.array([1.0, 2.0, 3.0, 4.0, 2.0, 1.0, np.pi / 2])
    assert to_box_frame(np.array([[1.0, 4.0, 3.5]]), box) == pytest.approx(np.array([[2.0, 0.0, 0.5]]))
    points = np.random.default_rng(0).normal(size=(50, 3))
    assert from_box_frame(to_box_frame(points, box), box) == pytest.approx(points)


def test_corners_are_at_half_the_size_in_the_frame_of_the_box():
    for box, spots in zip(some_boxes(6), bev_corners(some_boxes(6))):
        local = to_box_frame(np.column_stack([spots, np.full(4, box[2])]), box)
        assert np.abs(local[:, :2]) == pytest.approx(np.broadcast_to(box[3:5] / 2, (4, 2)), abs=1e-5)
        assert len({tuple(row) for row in np.sign(local[:, :2])}) == 4


def test_corners_from_above_run_counter_clockwise():
    for spots in bev_corners(some_boxes(6)):
        edges = np.roll(spots, -1, axis=0) - spots
        following = np.roll(edges, -1, axis=0)
        assert (edges[:, 0] * following[:, 1] > edges[:, 1] * following[:, 0]).all()


def test_boxes_overlap_exactly_where_a_fine_grid_has_a_cell_in_both():
    grid = np.stack(np.meshgrid(np.arange(-6, 6, 0.02), np.arange(-6, 6, 0.02)), axis=-1).reshape(-1, 2)
    flat = np.concatenate([grid, np.zeros((len(grid), 1))], axis=1)
    boxes = some_boxes(14, seed=3, spread=3)
    boxes[:, 2] = 0
    covered = np.stack([points_in_box(flat, box) for box in boxes])
    shared = covered.astype(np.float32) @ covered.astype(np.float32).T
    found = bev_overlap(boxes[:8], boxes)
    clear = (shared[:8] == 0) | (shared[:8] > 5)
    assert clear.mean() > 0.9
    assert ((shared[:8] > 0) == found)[clear].all()
    assert 0.1 < found.mean() < 0.9


def test_boxes_that_only_touch_or_are_none_do_not_overlap():
    first = np.array([[0, 0, 0, 2, 2, 2, 0.0]])
    assert not bev_overlap(first, np.array([[2, 0, 0, 2, 2, 2, 0.0]]))[0, 0]
    assert bev_overlap(first, np.array([[1.9, 0, 50, 2, 2, 2, 0.0]]))[0, 0], "height does not count"
    assert bev_overlap(first, np.zeros((0, 7))).shape == (1, 0)


def test_headings_are_wrapped_to_a_half_open_circle():
    angles = np.array([-4.0, -np.pi, 0.0, np.pi, 7.0])
    wrapped = wrap_heading(angles)
    assert ((wrapped >= -np.pi) & (wrapped < np.pi)).all()
    assert np.exp(1j * wrapped) == pytest.approx(np.exp(1j * angles))


@pytest.mark.parametrize(
    "change",
    [
        lambda scene: flip(scene, "x"),
        lambda scene: flip(scene, "y"),
        lambda scene: rotate(scene, 0.7),
        lambda scene: scale(scene, 1.07),
    ],
    ids=["flip x", "flip y", "rotate", "scale"],
)
def test_points_stay_in_their_boxes_and_the_scene_itself_is_untouched(change):
    scene = some_scene()
    before = scene.points.copy(), scene.boxes.copy()
    changed = change(scene)
    assert min(counts_inside(scene)) > 0
    assert np.abs(np.subtract(counts_inside(changed), counts_inside(scene))).max() <= 1  # float32 at a face
    assert (changed.points[:, 3] == scene.points[:, 3]).all()
    assert (scene.points == before[0]).all() and (scene.boxes == before[1]).all()
    assert changed.boxes.dtype == changed.points.dtype == np.float32


def test_two_flips_and_a_turn_back_change_nothing():
    scene = some_scene()
    for back in (
        flip(flip(scene, "x"), "x"),
        flip(flip(scene, "y"), "y"),
        rotate(rotate(scene, 0.7), -0.7),
        scale(scale(scene, 2), 0.5),
    ):
        assert back.points == pytest.approx(scene.points, abs=1e-5)
        assert back.boxes == pytest.approx(scene.boxes, abs=1e-5)


def test_a_flip_at_x_mirrors_left_and_right_and_the_heading():
    scene = Scene(
        points=np.array([[3, 2, 1, 0.5]], np.float32),
        names=("Box",),
        boxes=np.array([[5, 2, 1, 3, 2, 1, 0.4]], np.float32),
    )
    assert flip(scene, "x").points.tolist() == [[3, -2, 1, 0.5]]
    assert flip(scene, "x").boxes[0] == pytest.approx([5, -2, 1, 3, 2, 1, -0.4])
    assert flip(scene, "y").boxes[0] == pytest.approx([-5, 2, 1, 3, 2, 1, np.pi - 0.4])


def test_random_changes_stay_in_their_ranges_and_depend_on_their_generator_alone():
    scene = some_scene()
    for change in (
        random_flip,
        lambda scene, rng: random_rotation(scene, rng, range_rad=[-0.3, 0.2]),
        lambda scene, rng: random_scaling(scene, rng, factors=[0.9, 1.1]),
        shuffle,
    ):
        np.random.seed(1)
        first = change(scene, np.random.default_rng(5))
        np.random.random(3)
        assert (change(scene, np.random.default_rng(5)).points == first.points).all()
    turns = [random_rotation(scene, np.random.default_rng(s), range_rad=[-0.3, 0.2]).boxes[0, 6] for s in range(200)]
    turned = wrap_heading(np.array(turns) - scene.boxes[0, 6])
    assert -0.3001 < turned.min() < -0.25 and 0.15 < turned.max() < 0.2001
    sizes = [random_scaling(scene, np.random.default_rng(s), factors=[0.9, 1.1]).boxes[0, 3] for s in range(200)]
    factors = np.array(sizes) / scene.boxes[0, 3]
    assert 0.8999 < factors.min() < 0.92 and 1.08 < factors.max() < 1.1001
    flipped = [random_flip(scene, np.random.default_rng(s)) is not scene for s in range(200)]
    assert 70 < sum(flipped) < 130


def test_shuffling_keeps_every_point():
    scene = some_scene()
    shuffled = shuffle(scene, np.random.default_rng(0))
    assert (shuffled.points != scene.points).any()
    assert sorted(map(tuple, shuffled.points)) == sorted(map(tuple, scene.points))


def test_the_range_masks_points_on_all_axes_or_on_two():
    extent = Extent(low=(-1, -2, -3), high=(1, 2, 3))
    scene = some_scene()
    x, y, z = np.abs(scene.points[:, :3]).T
    assert len(mask_points(scene, extent).points) == ((x <= 1) & (y <= 2) & (z <= 3)).sum()
    assert len(mask_points(scene, extent, mask_z=False).points) == ((x <= 1) & (y <= 2)).sum()


def test_boxes_are_kept_by_their_centre():
    boxes = np.array([[0.9, 0, 0, 1, 1, 1, 0], [1.1, 0, 0, 1, 1, 1, 0], [9, 0, 0, 1, 1, 1, 0]], np.float32)
    scene = Scene(points=np.zeros((1, 4), np.float32), names=("Box", "Diver", "Box"), boxes=boxes)
    extent = Extent(low=(-1, -1, -1), high=(1, 1, 1))
    assert mask_boxes(scene, extent).names == ("Box",)
    assert keep_classes(scene, ["Diver"]).boxes.tolist() == [boxes[1].tolist()]


def test_a_scene_without_objects_goes_through_everything():
    scene = some_scene(objects=0)
    rng = np.random.default_rng(0)
    for changed in (flip(scene, "x"), rotate(scene, 1), scale(scene, 2), shuffle(scene, rng)):
        kept = keep_classes(mask_boxes(changed, Extent()), ["Box"])
        assert kept.boxes.shape == (0, 7) and kept.names == ()


def test_a_range_without_space_is_refused():
    with pytest.raises(ConfigError, match=r"range: it holds no space\. Expected low below high"):
        Extent(low=(0, 0, 0), high=(1, 0, 1))
