"""The transforms against independent arithmetic: plain loops, float64 and colorsys."""

from __future__ import annotations

import colorsys
import random

import numpy as np
import pytest
import torch

from mapsage.dataset import transforms
from mapsage.dataset.transforms import (
    Tile,
    adjust,
    fit_size,
    photo_metric_distortion,
    random_crop,
    random_flip,
    random_resize,
    resize,
)

PIPELINE_TRANSFORMS = [
    (resize, {"scale": (40, 24), "keep_ratio": True}),
    (random_resize, {"scale": (40, 40), "ratio_range": (0.5, 2.0), "keep_ratio": True}),
    (random_crop, {"crop_size": (12, 16), "cat_max_ratio": 0.75}),
    (random_flip, {"prob": 0.5}),
    (photo_metric_distortion, {}),
]


def a_tile(height=20, width=30, seed=0):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = rng.integers(0, 8, (height, width), dtype=np.uint8)
    return Tile(image=image, mask=mask, ori_shape=(height, width))


def half_pixel_bilinear(image, height, width):
    """Plain bilinear interpolation with pixel centres at one half, in float64."""

    def weights(new, old):
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, old - 1), at - low

    top, bottom, down = weights(height, image.shape[0])
    left, right, across = weights(width, image.shape[1])
    down, across = down[:, None, None], across[None, :, None]
    rows = image[top] * (1 - down) + image[bottom] * down
    return rows[:, left] * (1 - across) + rows[:, right] * across


class ScriptedRng:
    """A generator whose draws are written down beforehand; it checks that each is asked for as expected."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def _next(self, kind, *bounds):
        expected, value = self.draws.pop(0)
        assert expected == (kind, *bounds)
        return value

    def random(self):
        return self._next("random")

    def uniform(self, low, high):
        return self._next("uniform", low, high)

    def integers(self, low, high=None):
        return self._next("integers", low, *(() if high is None else (high,)))


@pytest.mark.parametrize(
    ("shape", "scale", "expected"),
    [
        ((1024, 1024), (512, 512), (512, 512)),
        ((600, 800), (512, 512), (384, 512)),
        ((800, 600), (512, 512), (512, 384)),
        ((500, 1000), (1333, 800), (667, 1333)),  # 1333 / 1000 binds: 666.5 rounds up
        ((1000, 1000), (1333, 800), (800, 800)),
        ((3, 7), (10, 10), (4, 10)),  # 30 / 7 = 4.29
    ],
)
def test_keep_ratio_fits_the_long_edge_and_the_short_edge(shape, scale, expected):
    assert fit_size(shape, scale) == expected


def test_resize_without_keep_ratio_reads_the_scale_as_width_and_height():
    resized = resize(a_tile(), np.random.default_rng(0), scale=(48, 17))
    assert resized.shape == (17, 48)
    assert resized.mask.shape == (17, 48)
    assert resized.ori_shape == (20, 30)


@pytest.mark.parametrize("size", [(64, 96), (13, 17), (20, 30), (40, 21), (10, 15)])
def test_resizing_an_image_is_half_pixel_bilinear_within_one_grey_level(size):
    tile = a_tile()
    resized = resize(tile, np.random.default_rng(0), scale=(size[1], size[0]))
    assert np.abs(resized.image - half_pixel_bilinear(tile.image.astype(float), *size)).max() <= 1


@pytest.mark.parametrize("size", [(64, 96), (13, 17), (10, 15)])
def test_resizing_a_mask_takes_the_nearest_pixel_and_invents_no_label(size):
    tile = a_tile()
    resized = resize(tile, np.random.default_rng(0), scale=(size[1], size[0]))
    rows = [int(i * 20 / size[0]) for i in range(size[0])]
    columns = [int(i * 30 / size[1]) for i in range(size[1])]
    assert (resized.mask == tile.mask[rows][:, columns]).all()


def test_a_mask_that_is_not_loaded_yet_is_not_resized():
    tile = Tile(image=a_tile().image, ori_shape=(20, 30))
    assert resize(tile, np.random.default_rng(0), scale=64, keep_ratio=True).mask is None


def test_random_resize_draws_one_ratio_and_truncates_the_target():
    rng = ScriptedRng((("random",), 0.1))  # 0.1 * 1.5 + 0.5 = 0.65; 0.65 * 101 = 65.65
    assert random_resize(a_tile(50, 50), rng, scale=(101, 101), keep_ratio=True).shape == (65, 65)
    assert rng.draws == []


def test_a_crop_draws_down_before_across_and_cuts_image_and_mask_alike():
    tile = a_tile()
    rng = ScriptedRng((("integers", 0, 9), 3), (("integers", 0, 15), 7))
    crop = random_crop(tile, rng, crop_size=(12, 16))
    assert (crop.image == tile.image[3:15, 7:23]).all()
    assert (crop.mask == tile.mask[3:15, 7:23]).all()


def test_a_smaller_picture_gives_a_smaller_crop():
    crop = random_crop(a_tile(20, 30), np.random.default_rng(0), crop_size=(64, 16))
    assert crop.shape == crop.mask.shape == (20, 16)


def draws_of(*windows):
    return [(("integers", 0, 11), value) for window in windows for value in window]


def striped():
    """20 x 20 px: class 1 everywhere but for a corner of class 2 and a column of no data."""
    mask = np.ones((20, 20), np.uint8)
    mask[:10, :6] = 2
    mask[:, 19] = 255
    return Tile(image=np.zeros((20, 20, 3), np.uint8), mask=mask, ori_shape=(20, 20))


def test_a_crop_of_one_class_is_drawn_again():
    rng = ScriptedRng(*draws_of((10, 10), (5, 9), (0, 0)))
    crop = random_crop(striped(), rng, crop_size=(10, 10), cat_max_ratio=0.75)
    assert rng.draws == []
    assert (crop.mask == striped().mask[:10, :10]).all()  # 60 % class 2


def test_a_share_equal_to_the_limit_is_drawn_again():
    rng = ScriptedRng(*draws_of((0, 0), (0, 1)))
    random_crop(striped(), rng, crop_size=(10, 10), cat_max_ratio=0.6)
    assert rng.draws == []


def test_no_data_does_not_count_as_a_second_class():
    rng = ScriptedRng(*draws_of((10, 10), (0, 0)))
    random_crop(striped(), rng, crop_size=(10, 10), cat_max_ratio=0.75)
    assert rng.draws == []


def test_after_ten_redraws_the_last_crop_is_taken_unchecked():
    rng = ScriptedRng(*draws_of(*[(10, 9)] * 10, (10, 8)))
    crop = random_crop(striped(), rng, crop_size=(10, 10), cat_max_ratio=0.75)
    assert rng.draws == []
    assert (crop.mask == 1).all()


def test_a_crop_of_no_data_alone_is_drawn_again_without_a_division_by_zero():
    mask = np.full((20, 20), 255, np.uint8)
    tile = Tile(image=np.zeros((20, 20, 3), np.uint8), mask=mask, ori_shape=(20, 20))
    crop = random_crop(tile, np.random.default_rng(0), crop_size=(10, 10), cat_max_ratio=0.75)
    assert crop.shape == (10, 10)


def test_crops_reach_every_position_and_no_other():
    tile = Tile(image=np.arange(12, dtype=np.uint8).reshape(3, 4, 1).repeat(3, 2), ori_shape=(3, 4))
    rng = np.random.default_rng(0)
    corners = {int(random_crop(tile, rng, crop_size=2).image[0, 0, 0]) for _ in range(200)}
    assert corners == {0, 1, 2, 4, 5, 6}


@pytest.mark.parametrize(("draw", "flipped"), [(0.0, True), (0.4999, True), (0.5, False), (0.99, False)])
def test_a_flip_mirrors_left_and_right_below_its_probability(draw, flipped):
    tile = a_tile()
    result = random_flip(tile, ScriptedRng((("random",), draw)), prob=0.5)
    assert result.flipped is flipped
    assert (result.image == (tile.image[:, ::-1] if flipped else tile.image)).all()
    assert (result.mask == (tile.mask[:, ::-1] if flipped else tile.mask)).all()


def test_adjusting_clips_and_truncates_instead_of_rounding():
    pixels = np.array([0, 1, 3, 100, 255], np.uint8)
    assert adjust(pixels, factor=1.5).tolist() == [0, 1, 4, 150, 255]
    assert adjust(pixels, offset=-1.5).tolist() == [0, 0, 1, 98, 253]


COIN, NO = (("integers", 2), 1), (("integers", 2), 0)


def distort(pixels, *draws):
    tile = Tile(image=np.array([pixels], np.uint8), ori_shape=(1, len(pixels)))
    rng = ScriptedRng(*draws)
    distorted = photo_metric_distortion(tile, rng).image[0].tolist()
    assert rng.draws == []
    return distorted


def test_without_heads_nothing_changes():
    pixels = [[1, 2, 3], [250, 4, 120]]
    assert distort(pixels, NO, NO, NO, NO, NO) == pixels


def test_brightness_comes_before_contrast_in_both_modes():
    brightness = (COIN, (("uniform", -32, 32), 10.0))
    contrast = (COIN, (("uniform", 0.5, 1.5), 1.5))
    early = distort([[10, 101, 250]], *brightness, COIN, *contrast, NO, NO)
    late = distort([[10, 101, 250]], *brightness, NO, NO, NO, *contrast)
    assert early == late == [[30, 166, 255]]  # 20 * 1.5, trunc(111 * 1.5), clipped twice


def test_contrast_first_or_last_differ_once_saturation_is_between():
    contrast, saturation = (COIN, (("uniform", 0.5, 1.5), 1.5)), (COIN, (("uniform", 0.5, 1.5), 1.5))
    pixels = [[60, 120, 200]]
    early = distort(pixels, NO, COIN, *contrast, *saturation, NO)
    late = distort(pixels, NO, NO, *saturation, NO, *contrast)
    assert early != late


def hsv_bytes(bgr):
    hue, saturation, value = colorsys.rgb_to_hsv(bgr[2] / 255, bgr[1] / 255, bgr[0] / 255)
    return hue * 180, saturation * 255, value * 255


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.3])
def test_saturation_scales_the_s_of_hsv_and_keeps_hue_and_value(factor):
    pixels = [[200, 90, 60], [30, 120, 80], [10, 20, 130], [77, 77, 77]]
    distorted = distort(pixels, NO, NO, COIN, (("uniform", 0.5, 1.5), factor), NO, NO)
    for before, after in zip(pixels, distorted):
        hue, saturation, value = hsv_bytes(before)
        red, green, blue = colorsys.hsv_to_rgb(hue / 180, min(saturation * factor, 255) / 255, value / 255)
        expected = [blue * 255, green * 255, red * 255]
        assert np.abs(np.array(after) - expected).max() <= 3  # two roundings to bytes, hue in steps of 2 degrees


@pytest.mark.parametrize("shift", [-18, -1, 5, 17])
def test_hue_turns_by_twice_the_shift_in_degrees_and_wraps(shift):
    pixels = [[200, 90, 60], [30, 120, 80], [10, 20, 230], [20, 10, 230]]
    distorted = distort(pixels, NO, NO, NO, COIN, (("integers", -18, 18), shift), NO)
    for before, after in zip(pixels, distorted):
        hue, saturation, value = hsv_bytes(before)
        red, green, blue = colorsys.hsv_to_rgb((hue + shift) % 180 / 180, saturation / 255, value / 255)
        assert np.abs(np.array(after) - [blue * 255, green * 255, red * 255]).max() <= 5


@pytest.mark.parametrize(("transform", "parameters"), PIPELINE_TRANSFORMS)
def test_a_transform_is_a_function_of_its_generator_and_touches_no_global_one(transform, parameters):
    numpy_before, python_before, torch_before = (
        np.random.get_state(),
        random.getstate(),
        torch.get_rng_state(),
    )
    first = transform(a_tile(), np.random.default_rng(7), **parameters)
    np.random.default_rng(1).random(5)
    again = transform(a_tile(), np.random.default_rng(7), **parameters)
    assert first.image.tobytes() == again.image.tobytes()
    assert first.mask.tobytes() == again.mask.tobytes()
    numpy_after = np.random.get_state()
    assert all(np.array_equal(a, b) for a, b in zip(numpy_before, numpy_after))
    assert python_before == random.getstate()
    assert torch.equal(torch_before, torch.get_rng_state())


@pytest.mark.parametrize(("transform", "parameters"), PIPELINE_TRANSFORMS)
def test_a_transform_leaves_its_input_as_it_was(transform, parameters):
    for seed in range(8):
        tile = a_tile()
        transform(tile, np.random.default_rng(seed), **parameters)
        assert (tile.image == a_tile().image).all()
        assert (tile.mask == a_tile().mask).all()


def test_opencv_starts_no_threads_of_its_own():
    assert transforms.cv2.getNumThreads() <= 1
