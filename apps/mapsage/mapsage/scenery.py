"""The ground plan of a procedural tile: which class and which thing is at every pixel.

A plan is drawn like a map: parcels of land, then water, roads, playgrounds and buildings on top, then in a
quarter of the tiles a strip without data. Lengths are in px; `yx` grids are HW.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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
    rows: slice,
    columns: slice,
    centre: tuple[float, float],
    heading: float,
    half: tuple[float, float],
    margin: float,
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
