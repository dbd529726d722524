"""Sample predictions of a training: a few fixed validation tiles, each as image, truth and prediction in a row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mapsage.dataset.folders import Folder
from mapsage.dataset.palette import IGNORED
from mapsage.dataset.pipeline import Sample
from mapsage.picture import EARTHVQA_PALETTE, Colour, png_bytes, side_by_side
from unbroken.errors import DamagedFile
from unbroken.train import Progress, evaluating, spread

PANEL_PX = 240  # longest side of one of the three


def draw_samples(
    model: torch.nn.Module, dataset: Folder, predict: Callable[[Sample], torch.Tensor], count: int, _progress: Progress
) -> dict[str, bytes]:
    """PNG files by the names of their tiles; tiles that cannot be read are left out."""
    found: dict[str, bytes] = {}
    with evaluating(model), torch.inference_mode():
        for index in spread(len(dataset), count):
            try:
                sample = dataset.sample(index, np.random.default_rng(0))
            except DamagedFile:
                continue
            name = f"{sample.name} {index}" if sample.name in found else sample.name
            found[name] = sheet(sample, predict(sample).numpy(), dataset.classes)
    return found


def sheet(sample: Sample, prediction_HW: NDArray[np.integer], classes: Sequence[str]) -> bytes:
    """One tile at a size at which three stand side by side."""
    height, width = prediction_HW.shape
    size = _panel(height, width)
    image_HW3 = sample.image.permute(1, 2, 0).numpy()[..., ::-1]
    truth_HW = sample.label.numpy() if sample.label is not None else np.full((height, width), IGNORED)
    drawn = side_by_side(
        np.asarray(Image.fromarray(np.ascontiguousarray(image_HW3)).resize(size, _filter(size, width))),
        _resized(truth_HW, size),
        _resized(prediction_HW, size),
        class_names=classes,
        palette=palette(len(classes)),
    )
    return png_bytes(drawn)


def palette(classes: int) -> tuple[Colour, ...]:
    """The data set's own colours, and further ones where there are more classes than it has."""
    more = max(classes - len(EARTHVQA_PALETTE), 0)
    # Steps of the golden ratio around the colour wheel: neighbours differ as much as they can.
    hues = [int(255 * (0.13 + 0.618034 * number) % 255) for number in range(more)]
    pixels = (Image.new("HSV", (1, 1), (hue, 150, 200)).convert("RGB").tobytes() for hue in hues)
    return (*EARTHVQA_PALETTE, *((red, green, blue) for red, green, blue in pixels))


def _panel(height: int, width: int) -> tuple[int, int]:
    """Width and height of a panel: small tiles are enlarged by whole numbers, so that their pixels stay square."""
    longest = max(height, width)
    if longest <= PANEL_PX:
        factor = PANEL_PX // longest
        return width * factor, height * factor
    return max(round(width * PANEL_PX / longest), 1), max(round(height * PANEL_PX / longest), 1)


def _filter(size: tuple[int, int], width: int) -> Image.Resampling:
    return Image.Resampling.NEAREST if size[0] >= width else Image.Resampling.BOX


def _resized(labels_HW: NDArray[np.integer], size: tuple[int, int]) -> NDArray[np.integer]:
    """Labels are not mixed: each pixel takes one of them; what has no colour stays without."""
    within = np.where((labels_HW >= 0) & (labels_HW <= IGNORED), labels_HW, IGNORED).astype(np.uint8)
    return np.asarray(Image.fromarray(within).resize(size, Image.Resampling.NEAREST))
