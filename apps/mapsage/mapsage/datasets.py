"""The data of a job: its tiles with their masks, tried out before a training begins. Loads no torch."""

from __future__ import annotations

import math
from itertools import chain, product
from typing import cast

import numpy as np

from mapsage.config import MapSageConfig
from mapsage.config.data import SegDataset
from mapsage.dataset.folders import AerialFolder, Concatenation, Folder
from mapsage.dataset.pipeline import Pipeline, require_comparable, require_trainable
from unbroken import Job
from unbroken.config import canonical
from unbroken.errors import DamagedFile


def datasets(job: Job) -> dict[str, Folder]:
    """The data sets of a job's config, for checking them: a missing mask is a sample that cannot be read."""
    config: MapSageConfig = job.options.own
    loaders = {"train": config.train_dataloader, "validation": config.val_dataloader}
    return {name: build_dataset(loader.datasets, gaps=True) for name, loader in loaders.items() if loader is not None}


def build_dataset(datasets: tuple[SegDataset, ...], *, gaps: bool = False) -> Folder:
    """The tiles of a config's datasets, in their order; with `gaps` some may lack their mask."""
    folders = [build_folder(dataset, gaps=gaps) for dataset in datasets]
    return folders[0] if len(folders) == 1 else Concatenation(folders)


def build_folder(dataset: SegDataset, *, gaps: bool) -> AerialFolder:
    """The tiles of one dataset."""
    return AerialFolder(
        data_root=dataset.data_root,
        img_path=dataset.data_prefix.img_path,
        seg_map_path=dataset.data_prefix.seg_map_path,
        img_suffix=dataset.img_suffix,
        seg_map_suffix=dataset.seg_map_suffix,
        reduce_zero_label=dataset.zero_is_no_data,
        classes=dataset.class_names,
        pipeline=Pipeline([canonical(step) for step in dataset.pipeline]),
        gaps=gaps,
    )


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
    """Raise what no training could be done with; returns what to warn of, and all files and folders that it hangs on.

    The pipelines are run on the first and the last tile, with the smallest and the largest of what they may draw: masks
    that are coded otherwise than the config says, and shapes that do not fit, end the launch, not the night. Files are
    none where they cannot be named.
    """
    config: MapSageConfig = job.options.own
    skip_bad = job.options.accidents.on_bad == "skip"
    warnings, odd, looked_at = list[str](), list[str](), list[list[str]]()
    first = config.train_dataloader.datasets[0].zero_is_no_data
    for name in ("train", "val"):
        for key, dataset in config.datasets_by_key(name):
            folder = build_folder(dataset, gaps=skip_bad)
            tried = sorted({0, len(folder) - 1})
            for index, highest in product(tried, (False, True)):
                try:
                    tile = folder.tile(index, cast(np.random.Generator, Extreme(highest=highest)))
                except DamagedFile:
                    if not skip_bad:
                        raise
                    continue
                where, label_HW = (
                    f"{key}.pipeline ({folder.names[index]})",
                    None if tile.mask is None else tile.mask.shape,
                )
                if name == "train":
                    require_trainable(where, tile.shape, label_HW, batch_HW=config.train_size_px)
                else:
                    require_comparable(where, label_HW, file_HW=tile.ori_shape)
            warnings += filter(None, [folder.left_out()])
            looked_at.append(folder.looked_at(*tried))
            # Masks whose numbers would mean other classes in validation than in training, or in one folder of them.
            if dataset.zero_is_no_data != first:
                both = f"{dataset.zero_is_no_data}, and {first} in training"
                odd.append(f"{key}.reduce_zero_label is {both}: their labels differ by one, unless the masks do, too")
    return [*warnings, *odd], list(chain(*looked_at)) if all(looked_at) else []
