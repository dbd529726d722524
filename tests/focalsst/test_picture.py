"""Pictures of frames: they are drawn whatever is missing, and show what they are given."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from focalsst.metrics import Detections, Labels
from focalsst.picture import FOUND, PAPER, TRUE, FrameView, draw_scenes, from_above_png
from unbroken.errors import UsageError

BOXES = np.array([[11.4, 1.9, -0.1, 4.3, 3.2, 1.6, 1.0], [13.1, -4.4, 0.1, 3.3, 2.1, 1.7, -1.9]], np.float32)
TRUTH = Labels(frame_id="0130085", names=["Box", "Diver"], boxes_N7=BOXES)
GUESS = Detections(frame_id="0130085", names=["Box"], boxes_N7=BOXES[:1] + np.float32(0.4), scores_N=np.array([0.9]))


def cloud(count=500, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform((0, -10, -5, -1), (25, 10, 3, 3), (count, 4)).astype(np.float32)


def pixels_of(path, colour):
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    with Image.open(path) as picture:
        shown = np.asarray(picture.convert("RGB")).astype(int)
    return int((np.abs(shown - wanted).max(axis=2) < 12).sum())


def test_true_boxes_and_detections_are_seen_in_colours_of_their_own(tmp_path):
    draw_scenes([FrameView(points=cloud())], tmp_path / "bare.png")
    draw_scenes([FrameView(points=cloud(), truth=TRUTH)], tmp_path / "truth.png")
    draw_scenes([FrameView(points=cloud(), truth=TRUTH, detections=GUESS)], tmp_path / "both.png")
    truth, bare, both = (tmp_path / f"{name}.png" for name in ("truth", "bare", "both"))
    assert pixels_of(bare, PAPER) > 100_000
    assert pixels_of(truth, TRUE) > 4 * pixels_of(bare, TRUE)
    assert pixels_of(both, FOUND) > 200 > pixels_of(truth, FOUND)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.png", "both.png", "truth.png"]


def test_detections_of_a_low_score_can_be_left_out(tmp_path):
    view = FrameView(points=cloud(), truth=TRUTH, detections=GUESS)
    draw_scenes([view], tmp_path / "all.png")
    draw_scenes([view], tmp_path / "sure.png", least_score=0.95)
    assert pixels_of(tmp_path / "sure.png", FOUND) < 50 < pixels_of(tmp_path / "all.png", FOUND)


def test_several_frames_are_rows_of_one_picture(tmp_path):
    view = FrameView(points=cloud(), truth=TRUTH, detections=GUESS)
    heights = []
    for count in (1, 2, 3):
        draw_scenes([view] * count, tmp_path / "a.png")
        with Image.open(tmp_path / "a.png") as picture:
            heights.append(picture.size[1])
    assert heights[2] - heights[1] == pytest.approx(heights[1] - heights[0], abs=2)


def test_frames_without_points_objects_or_sound_boxes_are_drawn(tmp_path):
    nothing = Detections(frame_id="1", names=[], boxes_N7=BOXES[:0], scores_N=np.zeros(0))
    broken = Detections(
        frame_id="1", names=["Box", "Box"], boxes_N7=np.array([[np.nan] * 7, [1e9] * 7]), scores_N=np.ones(2)
    )
    many = Detections(
        frame_id="1", names=["Diver"] * 60, boxes_N7=np.repeat(BOXES[:1], 60, 0), scores_N=np.linspace(1, 0.1, 60)
    )
    views = [FrameView(points=cloud(0), detections=found) for found in (nothing, broken, many)]
    draw_scenes(views, tmp_path / "a.png")
    assert pixels_of(tmp_path / "a.png", PAPER) > 100_000


def test_no_frame_is_a_mistake(tmp_path):
    with pytest.raises(UsageError, match="there is no frame to draw"):
        draw_scenes([], tmp_path / "a.png")


@pytest.mark.parametrize("size_m", [(60.0, 12.0), (10.0, 40.0), (25.0, 25.0)])
def test_a_frame_from_above_is_a_small_picture_whatever_its_shape(size_m: tuple[float, float]) -> None:
    seed = 5
    print(f"seed {seed}")
    chance = np.random.default_rng(seed)
    points = np.column_stack([chance.uniform(0, size_m[0], 300), chance.uniform(-0.5, 0.5, 300) * size_m[1]])
    points = np.column_stack([points, chance.uniform(-2, 0, (300, 2))])
    boxes = np.array([[size_m[0] / 2, 0.0, -1.0, 2.0, 3.0, 2.0, 0.5], [np.nan] * 7])
    truth = Labels(frame_id="f", names=["Box"], boxes_N7=boxes[:1])
    many = Detections(
        frame_id="f", names=["Box"] * 80, boxes_N7=boxes.repeat(40, axis=0), scores_N=np.linspace(0, 1, 80)
    )
    data = from_above_png(FrameView(points=points, truth=truth, detections=many), least_score=0.1, most_found=5)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG" and picture.width == 768 and picture.height <= 768


def test_a_frame_without_points_or_boxes_is_drawn_all_the_same() -> None:
    nothing = Detections(frame_id="f", names=[], boxes_N7=np.zeros((0, 7)), scores_N=np.zeros(0))
    empty = Labels(frame_id="f", names=[], boxes_N7=np.zeros((0, 7)))
    data = from_above_png(FrameView(points=np.zeros((0, 4)), truth=empty, detections=nothing))
    with Image.open(io.BytesIO(data)) as picture:
        assert max(picture.size) <= 768
