"""The data sets of a config: tiles with their masks. Loads no torch before a sample is made."""

from __future__ import annotations

from mapsage.config import MapSageConfig, SegDataset
from mapsage.dataset.folders import AerialFolder, Concatenation, Folder
from mapsage.dataset.pipeline import Pipeline
from unbroken import Job
from unbroken.config import canonical


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
