"""Inference whole and by windows against a naive loop, and the pictures made of it."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from mmengine_files import nano
from PIL import Image
from torch.nn import functional as F

from mapsage.picture import EARTHVQA_PALETTE, paint, png_bytes, side_by_side
from mapsage.predict import crop_to_content, padding_to, predict_labels, predict_logits, resize_bilinear, slide_windows
from unbroken.errors import ConfigError

NAMES = ("background", "building", "road", "water", "barren", "forest", "agriculture", "playground")
SLIDE = {"mode": "slide", "crop_size": (64, 64), "stride": (48, 48), "num_classes": 8}
WHOLE = SLIDE | {"mode": "whole"}


@pytest.mark.parametrize(
    ("length", "starts"),
    [(1024, [0]), (1025, [0, 1]), (2000, [0, 768, 976]), (500, [0]), (1792, [0, 768])],
)
def test_windows_start_every_stride_and_the_last_one_ends_at_the_edge(length, starts):
    windows = slide_windows((length, 8), crop_size=(1024, 8), stride=(768, 8))
    assert [window.top for window in windows] == starts
    assert windows[-1].bottom == length
    assert all(window.bottom - window.top == min(1024, length) for window in windows)


def test_windows_cover_a_picture_row_by_row():
    windows = slide_windows((100, 70), crop_size=(64, 64), stride=(48, 48))
    assert [tuple(window) for window in windows] == [
        (0, 0, 64, 64),
        (0, 6, 64, 70),
        (36, 0, 100, 64),
        (36, 6, 100, 70),
    ]


@pytest.mark.parametrize("stride", [0, 65])
def test_windows_that_would_leave_gaps_are_refused(stride):
    with pytest.raises(ConfigError, match="gaps"):
        slide_windows((128, 128), crop_size=(64, 64), stride=(stride, stride))


def test_padding_goes_right_and_bottom_and_comes_off_again():
    image = torch.randn(1, 3, 50, 70)
    padding = padding_to((50, 70), (64, 64))
    assert padding == (0, 0, 0, 14)
    assert torch.equal(crop_to_content(F.pad(image, padding), (50, 70)), image)


@pytest.mark.parametrize("size", [(64, 64), (96, 80), (70, 53), (40, 40), (150, 64)])
def test_slide_is_the_mean_over_windows_as_a_naive_loop_finds_it(size):
    torch.manual_seed(0)
    model, image = nano().eval(), torch.randn(1, 3, *size)
    total, count = torch.zeros(1, 8, *size), torch.zeros(size)
    for i in range(max(size[0] - 64 + 47, 0) // 48 + 1):
        for j in range(max(size[1] - 64 + 47, 0) // 48 + 1):
            bottom, right = min(i * 48 + 64, size[0]), min(j * 48 + 64, size[1])
            top, left = max(bottom - 64, 0), max(right - 64, 0)
            with torch.no_grad():
                window = model(image[:, :, top:bottom, left:right])
            window = F.interpolate(window, (bottom - top, right - left), mode="bilinear", align_corners=False)
            total += F.pad(window, (left, size[1] - right, top, size[0] - bottom))
            count[top:bottom, left:right] += 1
    torch.testing.assert_close(predict_logits(model, image, **SLIDE), total / count, rtol=1e-6, atol=1e-6)


def test_one_window_is_the_whole():
    model, image = nano(), torch.randn(1, 3, 64, 64)
    assert torch.equal(predict_logits(model, image, **SLIDE), predict_logits(model, image, **WHOLE))


def test_labels_come_without_padding_in_the_original_size():
    torch.manual_seed(1)
    model, image = nano().eval(), torch.randn(1, 3, 64, 64)
    labels = predict_labels(model, image, **WHOLE, content_size=(50, 60), original_size=(100, 120))
    logits = predict_logits(model, image, **WHOLE)[:, :, :50, :60]
    large = F.interpolate(logits, (100, 120), mode="bilinear", align_corners=False)
    assert labels.dtype == torch.int64
    assert torch.equal(labels, large.argmax(1)[0])


def test_prediction_leaves_the_model_and_the_random_stream_as_they_were():
    model = nano(drop_rate=0.2).train()
    model.decode_head.fusion_conv.bn.eval()
    modes = [module.training for module in model.modules()]
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stream = torch.get_rng_state()
    logits = predict_logits(model, torch.ones(1, 3, 96, 96), **SLIDE)
    assert not logits.requires_grad
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), stream)


def test_resizing_to_the_same_size_returns_the_same_tensor():
    image = torch.randn(1, 2, 5, 6)
    assert resize_bilinear(image, (5, 6)) is image


# -- pictures


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_labels_are_painted_in_their_colours_and_unknown_ones_black(dtype):
    painted = paint(np.array([[0, 1], [7, 255]], dtype=dtype), EARTHVQA_PALETTE)
    assert painted.dtype == np.uint8
    assert painted.tolist() == [[[255, 255, 255], [255, 0, 0]], [[165, 0, 165], [0, 0, 0]]]


def test_image_truth_and_prediction_stand_in_a_row_above_a_legend():
    image = np.full((40, 60, 3), 77, dtype=np.uint8)
    truth, prediction = np.full((40, 60), 3), np.full((40, 60), 5)
    picture = side_by_side(image, truth, prediction, class_names=NAMES)
    seen = np.asarray(Image.open(io.BytesIO(png_bytes(picture))))
    for i, colour in enumerate([(77, 77, 77), EARTHVQA_PALETTE[3], EARTHVQA_PALETTE[5]]):
        panel = seen[18 : 18 + 40, 8 + i * 68 : 8 + i * 68 + 60]
        assert (panel == colour).all()
    legend = {tuple(colour) for colour in seen[66:].reshape(-1, 3).tolist()}
    assert legend >= {*EARTHVQA_PALETTE, (0, 0, 0)}
