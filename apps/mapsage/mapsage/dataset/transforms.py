"""The transforms, geometric and photometric: each a function of a tile, its generator and its parameters.

The arithmetic, its rounding and the order of the draws are those of mmcv 2.1 and mmseg 1.2 (`Resize`, `RandomResize`,
`RandomCrop`, `RandomFlip`, `PhotoMetricDistortion`), except that every draw comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from mapsage.dataset.palette import IGNORED

# Loader workers are the parallelism; threads of OpenCV below them only fight, and do not survive a fork.
cv2.setNumThreads(0)

Pixels = NDArray[np.uint8]

REDRAWS = 10  # of a crop that one class dominates
HUES = 180  # OpenCV stores a hue of 0..360 degrees in half degrees, to fit a byte


@dataclass(frozen=True, kw_only=True)
class Tile:
    """A picture on its way through the pipeline: image uint8 BGR HWC, mask uint8 HW once it is loaded."""

    image: Pixels
    mask: Pixels | None = None
    ori_shape: tuple[int, int]  # height and width of the file, in px
    flipped: bool = False
    orientation: int = 1  # of the file, by its EXIF data: others than 1 were turned when it was read

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the image as it is now, in px."""
        return self.image.shape[0], self.image.shape[1]


def fit_size(shape: tuple[int, int], scale: Sequence[int]) -> tuple[int, int]:
    """Give the (height, width) in px of the largest picture of this shape that fits the scale.

    The longer edge stays within the larger number of `scale` and the shorter within the smaller. A strip of which
    nothing would be left keeps one pixel.
    """
    height, width = shape
    factor = min(max(scale) / max(height, width), min(scale) / min(height, width))
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


def resize(tile: Tile, _rng: np.random.Generator, *, scale: Sequence[int] | int, keep_ratio: bool = False) -> Tile:
    """Resize the image bilinearly, and the mask to the nearest pixel only if it is already loaded.

    `scale` is (width, height) in px. A mask that is loaded later keeps the size of its file, which is how
    validation compares predictions with the original pixels.
    """
    width, height = (scale, scale) if isinstance(scale, int) else scale
    if keep_ratio:
        height, width = fit_size(tile.shape, (width, height))
    image = _scale(tile.image, (width, height), cv2.INTER_LINEAR)
    mask = None if tile.mask is None else _scale(tile.mask, (width, height), cv2.INTER_NEAREST)
    return replace(tile, image=image, mask=mask)


def _scale(pixels: Pixels, size: tuple[int, int], interpolation: int) -> Pixels:
    return np.asarray(cv2.resize(pixels, size, interpolation=interpolation), dtype=np.uint8)


def random_resize(
    tile: Tile,
    rng: np.random.Generator,
    *,
    scale: Sequence[int] | int,
    ratio_range: Sequence[float] = (0.5, 2.0),
    keep_ratio: bool = False,
) -> Tile:
    """Resize to `scale` (width, height in px) times a ratio drawn evenly from `ratio_range`."""
    low, high = ratio_range
    ratio = rng.random() * (high - low) + low
    width, height = (scale, scale) if isinstance(scale, int) else scale
    scaled = max(int(width * ratio), 1), max(int(height * ratio), 1)
    return resize(tile, rng, scale=scaled, keep_ratio=keep_ratio)


def random_crop(
    tile: Tile, rng: np.random.Generator, *, crop_size: Sequence[int] | int, cat_max_ratio: float = 1.0
) -> Tile:
    """Cut out `crop_size` (height, width in px), avoiding crops that one class dominates.

    With `cat_max_ratio` below 1 a crop is drawn again, up to ten times, while it has a single class or one
    with that share of the labelled pixels; the last draw is taken as it comes. Smaller images give smaller
    crops.
    """
    size = (crop_size, crop_size) if isinstance(crop_size, int) else (crop_size[0], crop_size[1])
    window = _draw_window(tile.shape, size, rng)
    if cat_max_ratio < 1.0 and tile.mask is not None:
        for _ in range(REDRAWS):
            if _is_varied(tile.mask[window], cat_max_ratio):
                break
            window = _draw_window(tile.shape, size, rng)
    return replace(tile, image=tile.image[window], mask=None if tile.mask is None else tile.mask[window])


def _draw_window(shape: tuple[int, int], size: tuple[int, int], rng: np.random.Generator) -> tuple[slice, slice]:
    # Down first, then across: the order of the draws is part of what a seed means.
    top = int(rng.integers(0, max(shape[0] - size[0], 0) + 1))
    left = int(rng.integers(0, max(shape[1] - size[1], 0) + 1))
    return slice(top, top + size[0]), slice(left, left + size[1])


def _is_varied(mask: Pixels, cat_max_ratio: float) -> bool:
    counts = np.bincount(mask.ravel(), minlength=256)
    counts[IGNORED] = 0
    return bool(np.count_nonzero(counts) > 1 and counts.max() / counts.sum() < cat_max_ratio)


def random_flip(tile: Tile, rng: np.random.Generator, *, prob: float = 0.5) -> Tile:
    """Mirror left and right with probability `prob`; image and mask together."""
    if rng.random() >= prob:
        return tile
    mask = None if tile.mask is None else _mirror(tile.mask)
    return replace(tile, image=_mirror(tile.image), mask=mask, flipped=not tile.flipped)


def _mirror(pixels: Pixels) -> Pixels:
    return np.ascontiguousarray(pixels[:, ::-1])  # OpenCV takes no negative strides


def photo_metric_distortion(
    tile: Tile,
    rng: np.random.Generator,
    *,
    brightness_delta: int = 32,
    contrast_range: Sequence[float] = (0.5, 1.5),
    saturation_range: Sequence[float] = (0.5, 1.5),
    hue_delta: int = 18,
) -> Tile:
    """Change brightness, contrast, saturation and hue, each with a probability of one half.

    A further coin decides whether contrast comes before saturation and hue, or after them.
    """
    image = tile.image
    if _coin(rng):
        image = adjust(image, offset=rng.uniform(-brightness_delta, brightness_delta))
    contrast_first = _coin(rng)
    if contrast_first:
        image = _change_contrast(image, rng, contrast_range)
    if _coin(rng):
        factor, hsv = _draw(rng, saturation_range), _as_bytes(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
        hsv[..., 1] = adjust(hsv[..., 1], factor=factor)
        image = _as_bytes(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR))
    if _coin(rng):
        shift, hsv = int(rng.integers(-hue_delta, hue_delta)), _as_bytes(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
        hsv[..., 0] = (hsv[..., 0].astype(np.int64) + shift) % HUES
        image = _as_bytes(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR))
    if not contrast_first:
        image = _change_contrast(image, rng, contrast_range)
    return replace(tile, image=image)


def adjust(pixels: Pixels, *, factor: float = 1.0, offset: float = 0.0) -> Pixels:
    """Compute `pixels * factor + offset` in float32, clip to 0..255 and truncate to bytes."""
    scaled = pixels.astype(np.float32) * np.float32(factor) + np.float32(offset)
    clipped: Pixels = np.clip(scaled, 0, 255).astype(np.uint8)
    return clipped


def _coin(rng: np.random.Generator) -> bool:
    return bool(rng.integers(2))


def _draw(rng: np.random.Generator, bounds: Sequence[float]) -> float:
    low, high = bounds
    return rng.uniform(low, high)


def _change_contrast(image: Pixels, rng: np.random.Generator, factors: Sequence[float]) -> Pixels:
    return adjust(image, factor=_draw(rng, factors)) if _coin(rng) else image


def _as_bytes(pixels: object) -> Pixels:
    return np.asarray(pixels, dtype=np.uint8)
