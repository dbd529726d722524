"""The data sets of a job tried out: listed, and the first and last tile of each read. Loads no torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import cast

import numpy as np

from mapsage.config import MapSageConfig
from mapsage.dataset.folders import Folder
from mapsage.dataset.shapes import require_comparable, require_trainable
from mapsage.dataset.transforms import Tile
from mapsage.datasets import build_folder
from unbroken import Job
from unbroken.errors import DamagedFile


class Extreme:
    """Stands where a random generator does, and gives the lowest or the highest number that it could draw."""

    def __init__(self, *, highest: bool) -> None:
        self._highest = highest

    def random(self) -> float:
        """From [0, 1)."""
        return math.nextafter(1.0, 0.0) if self._highest else 0.0

    def uniform(self, low: float, high: float) -> float:
        """From [low, high)."""
        return high if self._highest else low

    def integers(self, low: int, high: int | None = None) -> int:
        """From [low, high), or [0, low)."""
        first, end = (0, low) if high is None else (low, high)
        return end - 1 if self._highest else first


def try_out(job: Job) -> tuple[list[str], list[str]]:
    """Raise what no training could be done with.

    Returns:
        What to warn of, and all files and folders that this hangs on; none of these where they cannot be named.
    """
    config: MapSageConfig = job.options.own
    skip_bad = job.options.accidents.on_bad == "skip"
    warnings, looked_at = list[str](), list[list[str]]()
    for name in ("train", "val"):
        for key, dataset in config.datasets_by_key(name):
            folder = build_folder(dataset, gaps=skip_bad)
            check = _comparable if name == "val" else partial(_trainable, batch_HW=config.train_size_px)
            _try_out(folder, f"{key}.pipeline", check, skip_bad=skip_bad)
            warnings += filter(None, [folder.left_out()])
            looked_at.append(folder.looked_at(*_tried(folder)))
    return [*warnings, *_coded_otherwise(config)], list(chain(*looked_at)) if all(looked_at) else []


def _coded_otherwise(config: MapSageConfig) -> Iterator[str]:
    """Masks whose numbers would mean other classes in validation than in training, or in one folder than in another."""
    _, first = next(config.datasets_by_key("train"))
    for name in ("train", "val"):
        for key, dataset in config.datasets_by_key(name):
            if dataset.zero_is_no_data != first.zero_is_no_data:
                both = f"{dataset.zero_is_no_data}, and {first.zero_is_no_data} in training"
                yield f"{key}.reduce_zero_label is {both}: their labels differ by one, unless the masks do, too"


def _try_out(folder: Folder, key: str, check: Callable[[str, Tile], None], *, skip_bad: bool) -> None:
    """Run the pipeline on the first and the last tile, with the smallest and the largest of what it may draw.

    Masks that are coded otherwise than the config says, and shapes that do not fit, end the launch, not the night.
    """
    for index in _tried(folder):
        for highest in (False, True):
            try:
                tile = folder.tile(index, cast(np.random.Generator, Extreme(highest=highest)))
            except DamagedFile:
                if not skip_bad:
                    raise
            else:
                check(f"{key} ({folder.names[index]})", tile)


def _tried(folder: Folder) -> list[int]:
    return sorted({0, len(folder) - 1})


def _trainable(where: str, tile: Tile, *, batch_HW: tuple[int, int]) -> None:
    require_trainable(where, tile.shape, None if tile.mask is None else tile.mask.shape, batch_HW=batch_HW)


def _comparable(where: str, tile: Tile) -> None:
    require_comparable(where, None if tile.mask is None else tile.mask.shape, file_HW=tile.ori_shape)
