"""The look of a procedural tile: colour and texture for every class of a ground plan.

No class can be told by its colour alone: town ground, roads and water share greys, bare soil and some roofs
share tans, forest and fields share greens. What tells them apart is texture and shape, as in real pictures.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from mapsage.scenery import (
    AGRICULTURE,
    BACKGROUND,
    BARREN,
    BUILDING,
    FOREST,
    NO_DATA,
    PLAYGROUND,
    ROAD,
    WATER,
    Field,
    Plan,
    Rng,
    frame,
    smooth_noise,
)

Colour = NDArray[np.float32]  # HW3, RGB in grey levels

TOWNS: Final = ((124, 122, 114), (138, 128, 110), (112, 116, 112))
GREEN_MEADOW: Final = (112, 124, 86)
GREY_ROAD: Final = (128, 127, 123)
WATERS: Final = ((98, 112, 108), (84, 98, 84), (122, 120, 104))
SOILS: Final = ((166, 146, 116), (146, 128, 104), (150, 142, 124))
GREEN_FOREST: Final = (76, 94, 62)
FIELDS: Final = ((108, 122, 76), (124, 130, 92), (154, 142, 104), (134, 118, 92), (88, 106, 66))
ROOFS: Final = ((166, 146, 118), (142, 92, 78), (150, 150, 148), (186, 184, 178), (108, 122, 140))
TRACK: Final = (146, 96, 82)
LAWN: Final = (104, 126, 80)
JITTER: Final = 8.0  # grey levels of deviation of a colour from tile to tile
WHITE_BALANCE: Final = 0.03  # relative deviation of a channel from tile to tile
BLUR_PX: Final = 0.5
SENSOR_NOISE: Final = 2.5


def render(plan: Plan, rng: Rng) -> NDArray[np.uint8]:
    """Paint a ground plan: uint8 RGB HWC, black where there is no data."""
    label, size_px = plan.label, plan.label.shape[0]
    paint = {
        BACKGROUND: _background(plan, size_px, rng),
        BARREN: _barren(size_px, rng),
        FOREST: _forest(size_px, rng),
        AGRICULTURE: _fields(plan, size_px, rng),
        WATER: _water(size_px, rng),
        ROAD: _road(plan, size_px, rng),
        PLAYGROUND: _playground(plan, size_px, rng),
        BUILDING: _roofs(plan, size_px, rng),
    }
    picture = np.zeros((*label.shape, 3), np.float32)
    for value, colours in paint.items():
        where = label == value
        picture[where] = colours[where]
    picture = _expose(picture * _shadows(plan, rng)[..., None], rng)
    picture[label == NO_DATA] = 0
    return np.clip(picture, 0, 255).astype(np.uint8)


def _tint(base: tuple[int, int, int], rng: Rng) -> Colour:
    # Brightness wanders more than hue does: light and season move all channels together.
    return (np.array(base) + rng.normal(0, JITTER) + rng.normal(0, 0.35 * JITTER, 3)).astype(np.float32)


def _tint_one(bases: tuple[tuple[int, int, int], ...], rng: Rng) -> Colour:
    return _tint(bases[rng.integers(len(bases))], rng)


def _shade(base: Colour, relief: Field) -> Colour:
    return base + relief[..., None]


def _grain(size_px: int, amount: float, rng: Rng) -> Field:
    return rng.normal(0, amount, (size_px, size_px)).astype(np.float32)


def _background(plan: Plan, size_px: int, rng: Rng) -> Colour:
    """Paving that turns into meadow and back, with single trees."""
    town = np.count_nonzero(plan.label == BUILDING) > 0.03 * plan.label.size
    green = smooth_noise(size_px, 22, rng) + 0.35 * smooth_noise(size_px, 7, rng)
    share = 1 / (1 + np.exp(-3 * (green - (0.5 if town else -0.6))))
    town_colour, meadow_colour = _tint_one(TOWNS, rng), _tint(GREEN_MEADOW, rng)
    ground = town_colour + (meadow_colour - town_colour) * share[..., None].astype(np.float32)
    trees = smooth_noise(size_px, 4, rng) > 1.75
    relief = 4 * smooth_noise(size_px, 9, rng) + 4 * smooth_noise(size_px, 2.5, rng) + _grain(size_px, 3, rng)
    return np.where(trees[..., None], _tint(GREEN_FOREST, rng), _shade(ground, relief))


def _barren(size_px: int, rng: Rng) -> Colour:
    """Bare soil: broad light and dark patches, no fine structure."""
    relief = 9 * smooth_noise(size_px, 26, rng) + 5 * smooth_noise(size_px, 9, rng) + _grain(size_px, 1.5, rng)
    return _shade(_tint_one(SOILS, rng), relief)


def _forest(size_px: int, rng: Rng) -> Colour:
    """Crowns lit from one side: a height field seen as its slope."""
    height = smooth_noise(size_px, 4.5, rng) + 0.5 * smooth_noise(size_px, 2.5, rng)
    slope = height - np.roll(height, (1, 1), (0, 1))
    relief = 15 * slope + 7 * height + 6 * smooth_noise(size_px, 24, rng)
    return _shade(_tint(GREEN_FOREST, rng), relief)


def _fields(plan: Plan, size_px: int, rng: Rng) -> Colour:
    """Crop rows: every parcel has its own colour, direction and distance of rows."""
    count = int(plan.parcel.max()) + 1
    colours = np.stack([_tint_one(FIELDS, rng) for _ in range(count)])
    turns = plan.heading + rng.choice((0.0, np.pi / 2), size=count) + rng.normal(0, 0.1, count)
    step = rng.uniform(3.2, 6.5, count)
    grid, turn = frame(size_px, 0.0), turns[plan.parcel]
    across = grid.v * np.cos(turn) - grid.u * np.sin(turn)
    rows = np.sin(across * (2 * np.pi / step[plan.parcel])).astype(np.float32)
    strength = rng.uniform(6, 13, count)[plan.parcel].astype(np.float32)
    relief = rows * strength + 4 * smooth_noise(size_px, 18, rng) + _grain(size_px, 2, rng)
    return _shade(colours[plan.parcel], relief)


def _water(size_px: int, rng: Rng) -> Colour:
    """Smooth, with slow changes only."""
    relief = 4 * smooth_noise(size_px, 40, rng) + _grain(size_px, 0.8, rng)
    return _shade(_tint_one(WATERS, rng), relief)


def _road(plan: Plan, size_px: int, rng: Rng) -> Colour:
    """Asphalt with a worn middle, and some cars."""
    cars = (smooth_noise(size_px, 3, rng) > 2.1) & (np.abs(np.abs(plan.lane) - 0.45) < 0.3)
    relief = _grain(size_px, 2.5, rng) + 8 * (np.abs(plan.lane) < 0.16) - 10 * (np.abs(plan.lane) > 0.85)
    paint = 60 * np.sign(smooth_noise(size_px, 6, rng))
    return _shade(_tint(GREY_ROAD, rng), np.where(cars, paint, relief))


def _playground(plan: Plan, size_px: int, rng: Rng) -> Colour:
    """A lawn inside a running track with light lines."""
    lawn = _shade(_tint(LAWN, rng), _grain(size_px, 3, rng))
    track = _shade(_tint(TRACK, rng), _grain(size_px, 2, rng) + 26 * (np.abs(plan.oval - 0.82) < 0.035))
    return np.where((plan.oval < 0.66)[..., None], lawn, track).astype(np.float32)


def _roofs(plan: Plan, size_px: int, rng: Rng) -> Colour:
    """Every roof has its own colour, and a light and a dark side unless it is flat."""
    count = int(plan.roof.max()) + 1
    colours = np.stack([_tint_one(ROOFS, rng) for _ in range(count)])
    slope = (rng.uniform(6, 20, count) * (rng.random(count) < 0.7)).astype(np.float32)
    relief = slope[plan.roof] * np.sign(plan.ridge) + 10 * (np.abs(plan.ridge) > 0.82) + _grain(size_px, 2.5, rng)
    return _shade(colours[plan.roof], relief)


def _shadows(plan: Plan, rng: Rng) -> Field:
    """Factors HW below 1 where buildings and the edge of the forest shade the ground beside them."""
    sun = rng.uniform(0, 2 * np.pi)
    shaded = np.zeros(plan.label.shape, bool)
    for casts, length in ((plan.roof > 0, 4), (plan.label == FOREST, 2)):
        for step in range(1, length + 1):
            shaded |= _moved(casts, round(step * np.sin(sun)), round(step * np.cos(sun))) & ~casts
    shaded &= ~np.isin(plan.label, (BUILDING, FOREST))
    return np.where(shaded, np.float32(0.55), np.float32(1))


def _moved(mask: NDArray[np.bool_], down: int, right: int) -> NDArray[np.bool_]:
    height, width = mask.shape
    padded = np.pad(mask, 8)
    return padded[8 - down : 8 - down + height, 8 - right : 8 - right + width]


def _expose(picture: Colour, rng: Rng) -> Colour:
    """Light of the day, uneven light across the tile, the lens and the sensor."""
    size_px = picture.shape[0]
    uneven = 1 + 0.05 * smooth_noise(size_px, size_px / 2, rng)
    light = rng.uniform(0.8, 1.2) * (1 + rng.normal(0, WHITE_BALANCE, 3))
    lit = np.clip(picture * light.astype(np.float32) * uneven[..., None], 0, 255)
    seen = Image.fromarray(lit.astype(np.uint8)).filter(ImageFilter.GaussianBlur(BLUR_PX))
    noise = rng.normal(0, SENSOR_NOISE, picture.shape)
    return (np.asarray(seen, dtype=np.float32) + noise).astype(np.float32)
