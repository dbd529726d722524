"""Maps of classes as pictures: painted in the classes' colours, and beside the image and the truth."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from mapsage.dataset.folders import Folder
from mapsage.dataset.palette import EARTHVQA_PALETTE, IGNORED
from mapsage.dataset.pipeline import Sample
from unbroken.errors import DamagedFile
from unbroken.train import Progress, evaluating, spread

Colour = tuple[int, int, int]
Bytes_HW3 = NDArray[np.uint8]

NO_DATA_COLOUR: Colour = (0, 0, 0)

_GAP_PX = 8
_TITLE_PX = 18
_SWATCH_PX = 12
_LEGEND_ROW_PX = 18
_PAPER: Colour = (245, 245, 245)
_INK: Colour = (30, 30, 30)
PANEL_PX = 240  # longest side of one of the three


def paint(labels_HW: NDArray[Any], palette: Sequence[Colour]) -> Bytes_HW3:
    """RGB uint8 HW3 from integer labels HW; a label without a colour, such as 255 for ignored, is black."""
    colours_L3 = np.full((256, 3), NO_DATA_COLOUR, dtype=np.uint8)
    colours_L3[: len(palette)] = np.asarray(palette, dtype=np.uint8)
    known = (labels_HW >= 0) & (labels_HW < len(palette))
    return colours_L3[np.where(known, labels_HW, 255)]


def side_by_side(
    image_HW3: Bytes_HW3,
    truth_HW: NDArray[Any],
    prediction_HW: NDArray[Any],
    *,
    class_names: Sequence[str],
    palette: Sequence[Colour] = EARTHVQA_PALETTE,
) -> Image.Image:
    """RGB image, truth and prediction in a row, each with a title, above a legend of the classes."""
    panels = {"image": image_HW3, "truth": paint(truth_HW, palette), "prediction": paint(prediction_HW, palette)}
    height, width = image_HW3.shape[:2]
    sheet_width = _GAP_PX + (width + _GAP_PX) * len(panels)
    legend = _legend(class_names, palette, width=sheet_width)
    sheet = Image.new("RGB", (sheet_width, _TITLE_PX + height + _GAP_PX + legend.height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for i, (title, panel_HW3) in enumerate(panels.items()):
        left = _GAP_PX + i * (width + _GAP_PX)
        draw.text((left, 4), title, fill=_INK)
        sheet.paste(Image.fromarray(np.ascontiguousarray(panel_HW3)), (left, _TITLE_PX))
    sheet.paste(legend, (0, _TITLE_PX + height + _GAP_PX))
    return sheet


def png_bytes(picture: Image.Image, notes: Mapping[str, str] | None = None) -> bytes:
    """The picture as the content of a PNG file, with `notes` as its text; whoever owns the disk writes it."""
    text = PngInfo()
    for name, words in (notes or {}).items():
        text.add_text(name, words)
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()


def overlay(image_HW3: Bytes_HW3, labels_HW: NDArray[Any], palette: Sequence[Colour]) -> Image.Image:
    """The image half covered by the colours of its labels."""
    painted = Image.fromarray(paint(labels_HW, palette))
    return Image.blend(Image.fromarray(np.ascontiguousarray(image_HW3)), painted, 0.5)


def _legend(class_names: Sequence[str], palette: Sequence[Colour], *, width: int) -> Image.Image:
    """Swatches with names, filled line by line into the given width."""
    entries = [*zip(class_names, palette), ("no data", NO_DATA_COLOUR)]
    places: list[tuple[int, int]] = []
    x = y = 0
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))  # widths in the font that PIL brings along
    for name, _ in entries:
        entry_px = _SWATCH_PX + 4 + int(ruler.textlength(name)) + 1 + 2 * _GAP_PX
        if x and x + entry_px > width - _GAP_PX:
            x, y = 0, y + _LEGEND_ROW_PX
        places.append((_GAP_PX + x, y))
        x += entry_px
    legend = Image.new("RGB", (width, y + _LEGEND_ROW_PX + _GAP_PX), _PAPER)
    draw = ImageDraw.Draw(legend)
    for (left, top), (name, colour) in zip(places, entries):
        box = (left, top + 1, left + _SWATCH_PX, top + 1 + _SWATCH_PX)
        draw.rectangle(box, fill=colour, outline=_INK)
        draw.text((left + _SWATCH_PX + 4, top), name, fill=_INK)
    return legend


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
    longest = max(height, width)
    if longest <= PANEL_PX:  # small tiles are enlarged by whole numbers, so that their pixels stay square
        size = (width * (PANEL_PX // longest), height * (PANEL_PX // longest))
    else:
        size = (max(round(width * PANEL_PX / longest), 1), max(round(height * PANEL_PX / longest), 1))
    smooth = Image.Resampling.NEAREST if size[0] >= width else Image.Resampling.BOX
    image_HW3 = sample.image.permute(1, 2, 0).numpy()[..., ::-1]
    truth_HW = sample.label.numpy() if sample.label is not None else np.full((height, width), IGNORED)
    drawn = side_by_side(
        np.asarray(Image.fromarray(np.ascontiguousarray(image_HW3)).resize(size, smooth)),
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


def _resized(labels_HW: NDArray[np.integer], size: tuple[int, int]) -> NDArray[np.integer]:
    """Labels are not mixed: each pixel takes one of them; what has no colour stays without."""
    within = np.where((labels_HW >= 0) & (labels_HW <= IGNORED), labels_HW, IGNORED).astype(np.uint8)
    return np.asarray(Image.fromarray(within).resize(size, Image.Resampling.NEAREST))
