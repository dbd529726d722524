"""Procedural tiles: a ground plan, which class and which thing is at every pixel, and its look in colour and texture.

A plan is drawn like a map: parcels of land, then water, roads, playgrounds and buildings on top, then in a
quarter of the tiles a strip without data. Lengths are in px; `yx` grids are HW. No class can be told by its colour
alone: town ground, roads and water share greys, bare soil and some roofs share tans, forest and fields share greens.
What tells them apart is texture and shape, as in real pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Field = NDArray[np.float32]
Mask = NDArray[np.bool_]
Rng = np.random.Generator

# The values in EarthVQA's mask files.
NO_DATA, BACKGROUND, BUILDING, ROAD, WATER, BARREN, FOREST, AGRICULTURE, PLAYGROUND = range(9)

PARCELS: Final = (BACKGROUND, BARREN, FOREST, AGRICULTURE)
RURAL_MIX: Final = (0.30, 0.07, 0.22, 0.41)
URBAN_MIX: Final = (0.72, 0.06, 0.12, 0.10)
RURAL_NEEDS: Final = (BACKGROUND, ROAD, WATER, BARREN, FOREST, AGRICULTURE)
URBAN_NEEDS: Final = (BACKGROUND, BUILDING, ROAD, PLAYGROUND)
NEEDED_SHARE: Final = 0.02  # of a tile, so that a split of any size has every class
REDRAWS: Final = 50
MOST_PARCELS: Final = 60  # each costs an array of the size of the tile
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


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is where: all arrays are HW of the tile's size."""

    label: NDArray[np.uint8]  # values of EarthVQA's mask files
    parcel: NDArray[np.int64]  # number of the parcel of land
    roof: NDArray[np.int64]  # number of the building, 0 outside
    ridge: Field  # signed distance from the ridge of a roof, as a share of its half width
    oval: Field  # 0 in the middle of a playground, 1 at its edge
    lane: Field  # signed distance from the middle of the road, as a share of its half width
    heading: float  # direction of the roads, in radians


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Coordinates along (`u`) and across (`v`) a heading, from the middle of the tile, in px."""

    u: Field
    v: Field


def draw_plan(size_px: int, rng: Rng, *, urban: bool, strip: bool) -> Plan:
    """Draw ground plans until one holds every class that a rural or an urban tile has to show."""
    needs = URBAN_NEEDS if urban else RURAL_NEEDS
    for _ in range(REDRAWS):
        plan = _draw_once(size_px, rng, urban=urban, strip=strip)
        shares = np.bincount(plan.label.ravel(), minlength=9) / plan.label.size
        if all(shares[value] >= NEEDED_SHARE for value in needs):
            break
    return plan


def smooth_noise(size_px: int, cell_px: float, rng: Rng) -> Field:
    """Give noise HW of mean about 0 and deviation about 1 whose bumps are about `cell_px` wide."""
    cells = max(2, round(size_px / cell_px) + 1)
    coarse = Image.fromarray(rng.standard_normal((cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((size_px, size_px), Image.Resampling.BICUBIC), dtype=np.float32)


def frame(size_px: int, heading: float, centre: tuple[float, float] = (0.0, 0.0)) -> Frame:
    """Turn positions by `heading` radians around a centre, given as (across, down) from the middle."""
    y, x = np.mgrid[:size_px, :size_px].astype(np.float32) - np.float32((size_px - 1) / 2)
    x, y = x - centre[0], y - centre[1]
    cos, sin = np.float32(np.cos(heading)), np.float32(np.sin(heading))
    return Frame(u=x * cos + y * sin, v=y * cos - x * sin)


def _draw_once(size_px: int, rng: Rng, *, urban: bool, strip: bool) -> Plan:
    heading = float(rng.uniform(0, np.pi))
    parcel, label = _parcels(size_px, heading, rng, URBAN_MIX if urban else RURAL_MIX)
    label[_water(size_px, rng, river=not urban or rng.random() < 0.15)] = WATER
    road, lane = _roads(size_px, heading, rng, urban=urban)
    label[road] = ROAD
    oval = _playgrounds(size_px, heading, rng, label) if urban else np.ones(label.shape, np.float32)
    label[oval < 1] = PLAYGROUND
    roof, ridge = _buildings(size_px, heading, rng, label, urban=urban)
    label[roof > 0] = BUILDING
    if strip:
        label[_outside(size_px, rng)] = NO_DATA
    return Plan(label=label, parcel=parcel, roof=roof, ridge=ridge, oval=oval, lane=lane, heading=heading)


def _parcels(
    size_px: int, heading: float, rng: Rng, mix: tuple[float, ...]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Divide the land into Voronoi cells, stretched along the roads as fields are."""
    count = min(max(7, round((size_px / 38) ** 2)), MOST_PARCELS)
    sites = rng.uniform(-0.62 * size_px, 0.62 * size_px, (count, 2)).astype(np.float32)
    grid = frame(size_px, heading)
    wobble = [smooth_noise(size_px, size_px / 9, rng) * 1.8 for _ in range(2)]
    u, v = grid.u + wobble[0], (grid.v + wobble[1]) * 1.5
    distance = (u[..., None] - sites[:, 0]) ** 2 + (v[..., None] - sites[:, 1] * 1.5) ** 2
    parcel = distance.argmin(axis=-1)
    kinds = rng.choice(PARCELS, size=count, p=mix)
    kinds[rng.permutation(count)[: len(PARCELS)]] = PARCELS
    return parcel, kinds[parcel].astype(np.uint8)


def _water(size_px: int, rng: Rng, *, river: bool) -> Mask:
    """A winding river or, in half of the other tiles, a pond."""
    grid = frame(size_px, float(rng.uniform(0, np.pi)))
    rough = smooth_noise(size_px, size_px / 8, rng)
    if not river:
        radius = size_px * rng.uniform(0.05, 0.11) * (rng.random() < 0.5)
        across, down = rng.uniform(-0.4, 0.4, 2) * size_px
        pond: Mask = np.hypot(grid.u - across, (grid.v - down) * 1.6) + rough < radius
        return pond
    bend = rng.uniform(0.03, 0.1) * size_px
    wave = np.sin(grid.u * (2 * np.pi / (size_px * rng.uniform(0.7, 1.6))) + rng.uniform(0, 2 * np.pi))
    middle = bend * wave + rng.uniform(-0.3, 0.3) * size_px
    stream: Mask = np.abs(grid.v - middle) + 0.8 * rough < size_px * rng.uniform(0.035, 0.075)
    return stream


def _roads(size_px: int, heading: float, rng: Rng, *, urban: bool) -> tuple[Mask, Field]:
    """Straight roads: a grid of streets in town, one or two country roads outside."""
    lane = np.full((size_px, size_px), 9.0, np.float32)
    grid = frame(size_px, heading)
    if urban:
        block = rng.uniform(38, 54)
        lines = [(distance, 3.0) for distance in _streets(size_px, grid.v, block, rng)]
        lines += [(distance, 2.0) for distance in _streets(size_px, grid.u, block * 1.5, rng)]
    else:
        lines = [(grid.v - rng.uniform(-0.3, 0.3) * size_px, rng.uniform(2.0, 3.6))]
        other = frame(size_px, heading + rng.uniform(0.9, 2.2))
        lines += [(other.v - rng.uniform(-0.3, 0.3) * size_px, 1.9)] * int(rng.random() < 0.8)
    for distance, half_width in lines:
        lane = np.where(np.abs(distance) < half_width, distance / np.float32(half_width), lane)
    return np.abs(lane) < 1, lane


def _streets(size_px: int, across: Field, block_px: float, rng: Rng) -> list[Field]:
    start = rng.uniform(0, block_px)
    places = np.arange(-0.75 * size_px + start, 0.75 * size_px, block_px)
    return [across - np.float32(place) for place in places]


def _playgrounds(size_px: int, heading: float, rng: Rng, label: NDArray[np.uint8]) -> Field:
    """Running tracks, about one for every 128 x 128 px; streets end at them."""
    oval = np.ones(label.shape, np.float32)
    for _ in range(max(1, round(0.8 * (size_px / 128) ** 2))):
        free = ~np.isin(label, (WATER, ROAD)) & (oval == 1)
        oval = np.minimum(oval, _track(size_px, heading, rng, free))
    return oval


def _track(size_px: int, heading: float, rng: Rng, free: Mask) -> Field:
    """One running track; of several places the one that covers the least of what is not free."""
    length = min(0.2 * size_px, 24.0) * rng.uniform(0.85, 1.1)
    best, least = np.ones(free.shape, np.float32), free.size
    for _ in range(12):
        across, down = rng.uniform(-0.36, 0.36, 2) * size_px
        grid = frame(size_px, heading, (across, down))
        # A stadium: a straight of its own length between two half circles.
        bow = np.hypot(np.maximum(np.abs(grid.u) - 0.45 * length, 0), grid.v)
        oval = (bow / (0.55 * length)).astype(np.float32)
        covered = int(np.count_nonzero((oval < 1.1) & ~free))
        if covered < least:
            best, least = oval, covered
    return best


def _buildings(
    size_px: int, heading: float, rng: Rng, label: NDArray[np.uint8], *, urban: bool
) -> tuple[NDArray[np.int64], Field]:
    """Rectangles along the roads, on free land only, and never touching each other."""
    roof, ridge = np.zeros(label.shape, np.int64), np.zeros(label.shape, np.float32)
    taken = np.isin(label, (WATER, ROAD, PLAYGROUND))
    tries = round((size_px / 128) ** 2 * (120 if urban else 8))
    middle = (size_px - 1) / 2
    for number in range(1, tries + 1):
        across, down = rng.uniform(-0.5, 0.5, 2) * size_px
        half = rng.uniform(4.5, 10.5 if urban else 7), rng.uniform(3.5, 6.5 if urban else 4.5)
        reach = int(np.hypot(*half)) + 3
        rows, columns = _window(down + middle, reach, size_px), _window(across + middle, reach, size_px)
        inside, side = _rectangle(rows, columns, (across + middle, down + middle), heading, half, 2.0)
        if taken[rows, columns][inside].any():
            continue
        inside, side = _rectangle(rows, columns, (across + middle, down + middle), heading, half, 0.0)
        roof[rows, columns][inside] = number
        ridge[rows, columns][inside] = side[inside]
        taken[rows, columns] |= inside
    return roof, ridge


def _window(centre: float, reach: int, size_px: int) -> slice:
    return slice(max(int(centre) - reach, 0), min(int(centre) + reach + 1, size_px))


def _rectangle(
    rows: slice, columns: slice, centre: tuple[float, float], heading: float, half: tuple[float, float], margin: float
) -> tuple[Mask, Field]:
    y, x = np.mgrid[rows, columns].astype(np.float32)
    x, y = x - np.float32(centre[0]), y - np.float32(centre[1])
    cos, sin = np.float32(np.cos(heading)), np.float32(np.sin(heading))
    u, v = x * cos + y * sin, y * cos - x * sin
    inside = (np.abs(u) < half[0] + margin) & (np.abs(v) < half[1] + margin)
    return inside, v / np.float32(half[1])


def _outside(size_px: int, rng: Rng) -> Mask:
    """A slightly slanted strip at one side, as at the edge of a mosaic of flights."""
    side = int(rng.integers(4))
    grid = frame(size_px, side * np.pi / 2 + rng.uniform(-0.06, 0.06))
    return grid.u > size_px * (0.5 - rng.uniform(0.06, 0.17))


def render(plan: Plan, rng: Rng) -> NDArray[np.uint8]:
    """Paint a ground plan: uint8 RGB HWC, black where there is no data."""
    label, size_px = plan.label, plan.label.shape[0]
    paint = {
        BACKGROUND: _background(plan, size_px, rng),
        BARREN: _barren(size_px, rng),
        FOREST: _forest(size_px, rng),
        AGRICULTURE: _fields(plan, size_px, rng),
        WATER: _surface_of_water(size_px, rng),
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


def _surface_of_water(size_px: int, rng: Rng) -> Colour:
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
