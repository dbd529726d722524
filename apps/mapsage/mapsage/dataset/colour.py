"""Photometric distortion: random brightness, contrast, saturation and hue, in bytes at every step.

The steps, their order and their rounding are those of mmseg 1.2 `PhotoMetricDistortion`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from mapsage.dataset.transforms import Pixels, Tile

HUES = 180  # OpenCV stores a hue of 0..360 degrees in half degrees, to fit a byte


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
        image = _scale_saturation(image, _draw(rng, saturation_range))
    if _coin(rng):
        image = _shift_hue(image, int(rng.integers(-hue_delta, hue_delta)))
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


def _scale_saturation(image: Pixels, factor: float) -> Pixels:
    hsv = _as_bytes(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
    hsv[..., 1] = adjust(hsv[..., 1], factor=factor)
    return _as_bytes(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR))


def _shift_hue(image: Pixels, shift: int) -> Pixels:
    hsv = _as_bytes(cv2.cvtColor(image, cv2.COLOR_BGR2HSV))
    hsv[..., 0] = (hsv[..., 0].astype(np.int64) + shift) % HUES
    return _as_bytes(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR))


def _as_bytes(pixels: object) -> Pixels:
    return np.asarray(pixels, dtype=np.uint8)
