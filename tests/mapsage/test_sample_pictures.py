"""Sample predictions of tiles: small sheets of image, truth and prediction, whatever the tiles are like."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from mapsage.dataset.palette import EARTHVQA_CLASSES, IGNORED
from mapsage.dataset.pipeline import Sample
from mapsage.picture import EARTHVQA_PALETTE, draw_samples, palette, sheet
from unbroken.errors import DamagedFile
from unbroken.train import Progress

LONGEST_PX = 768


def tile(height: int, width: int, *, name: str = "tile", masked: bool = True) -> Sample:
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[2] = 200  # red, in BGR
    label = torch.full((height, width), 3, dtype=torch.int64) if masked else None
    return Sample(image=image, label=label, name=name, ori_shape=(height, width))


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data)).convert("RGB")


@pytest.mark.parametrize("size", [(64, 64), (1024, 1024), (300, 1200), (2000, 100), (1, 1), (241, 239)])
def test_sheets_are_small_for_tiles_of_any_size(size: tuple[int, int]) -> None:
    drawn = opened(sheet(tile(*size), np.zeros(size, dtype=np.int64), EARTHVQA_CLASSES))
    assert max(drawn.size) <= LONGEST_PX


def test_image_truth_and_prediction_stand_side_by_side_in_their_colours() -> None:
    drawn = opened(sheet(tile(480, 480), np.full((480, 480), 1), EARTHVQA_CLASSES))
    middles = [drawn.getpixel((8 + 248 * panel + 120, 138)) for panel in range(3)]
    assert middles == [(200, 0, 0), EARTHVQA_PALETTE[3], EARTHVQA_PALETTE[1]]


def test_without_a_mask_the_truth_is_black_and_strange_labels_have_no_colour() -> None:
    prediction = np.array([[IGNORED, 300], [-1, 2]]).repeat(120, 0).repeat(120, 1)
    drawn = opened(sheet(tile(240, 240, masked=False), prediction, EARTHVQA_CLASSES))
    assert drawn.getpixel((8 + 248 + 120, 138)) == (0, 0, 0)
    corners = [drawn.getpixel((8 + 2 * 248 + x, 18 + y)) for x, y in ((10, 10), (230, 10), (10, 230), (230, 230))]
    assert corners == [(0, 0, 0), (0, 0, 0), (0, 0, 0), EARTHVQA_PALETTE[2]]


def test_more_classes_than_the_data_set_has_get_colours_of_their_own() -> None:
    found = palette(20)
    assert found[:8] == EARTHVQA_PALETTE and len(set(found)) == 20
    assert palette(3) == EARTHVQA_PALETTE


class Tiles:
    """Ten tiles; some cannot be read, some have the name of another one."""

    classes: Sequence[str] = EARTHVQA_CLASSES
    names = tuple(f"t{index}" for index in range(10))

    def __len__(self) -> int:
        return len(self.names)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        if index == 9:
            raise DamagedFile("t9.png", "this is no picture")
        return tile(64, 64, name="same" if index < 5 else f"t{index}")

    def fingerprint(self) -> str:
        return ""


def test_the_samples_are_always_the_same_and_unreadable_ones_are_left_out() -> None:
    model = torch.nn.Dropout(0.5)
    model.train()

    def predict(sample: Sample) -> torch.Tensor:
        assert not model.training
        assert sample.label is not None
        return sample.label

    found = [draw_samples(model, Tiles(), predict, 4, Progress()) for _ in range(2)]
    assert found[0] == found[1] and list(found[0]) == ["same", "same 3", "t6"]
    assert model.training
