"""The data sets of a config: frames with their boxes, and objects to paste. Loads no torch before a sample is made."""

from __future__ import annotations

from pathlib import Path

from focalsst.config import SonarConfig, detector_settings
from focalsst.dataset.database import Database, read_database
from focalsst.dataset.folder import SonarFolder
from focalsst.dataset.infos import Annotation, read_infos, read_pickled_infos
from focalsst.dataset.original_entries import augmentations_from, min_points_from
from focalsst.dataset.scene import Extent
from focalsst.pickled import read_plain_pickle
from focalsst.recipes import SonarOptions
from unbroken import Job, is_ordinary
from unbroken.errors import UsageError


def datasets(job: Job) -> dict[str, SonarFolder]:
    """The data sets of a job's config, for checking them: missing points are a frame that cannot be read."""
    parts = {"train": True, "test": False}
    own: SonarOptions = job.options.own
    return {
        name: build_dataset(own.config, own.data_root, training=training, skip_bad=True)
        for name, training in parts.items()
    }


def build_dataset(config: SonarConfig, data_root: Path, *, training: bool, skip_bad: bool = False) -> SonarFolder:
    """The frames of a config's training or test part; with `skip_bad` some may lack their file of points."""
    _require_root(data_root)
    infos = _infos_file(data_root / config.infos["train" if training else "test"])
    geometry = detector_settings(config).geometry
    augmentations = augmentations_from(config.augmentations, database=_database(config, data_root)) if training else ()
    return SonarFolder(
        root=data_root,
        split=config.splits["train" if training else "test"],
        infos=_annotations(infos),
        infos_from=infos,
        training=training,
        classes=config.class_names,
        extent=Extent(low=geometry.lower_m, high=geometry.upper_m),
        augmentations=augmentations,
        intensity=config.intensity,
        binary=config.binary,
        mask_z=config.mask_z,
        advice="" if skip_bad else "To go on without frames that cannot be read: --on-bad-sample skip",
        gaps=skip_bad,
    )


def _require_root(data_root: Path) -> None:
    if not data_root.is_dir():
        raise UsageError(
            data_root,
            "the folder of the data does not exist",
            expected="what DATA_CONFIG.DATA_PATH names: a folder with ImageSets/, points_binary/ and infos",
            do=f"Put the data there, or set DATA_PATH. To try it with made-up data: unbroken data sonar {data_root}",
        )


def _infos_file(path: Path) -> Path:
    """The infos under this name; the same in another form will do."""
    forms = [path, *(path.with_suffix(suffix) for suffix in (".npz", ".json", ".pkl"))]
    return next((form for form in forms if is_ordinary(form)), path)


def _annotations(path: Path) -> tuple[Annotation, ...]:
    """What infos say; a pickle is read without executing it."""
    return read_pickled_infos(path, read_plain_pickle) if path.suffix == ".pkl" else read_infos(path)


def _database(config: SonarConfig, data_root: Path) -> Database | None:
    """The objects to paste, if there is a gt_sampling."""
    wanted = [entry for entry in config.augmentations if entry["NAME"] == "gt_sampling"]
    if not wanted:
        return None
    least = min_points_from(wanted[0])
    found = read_database(data_root, split=config.splits["train"], min_points=least, encoding=config.intensity)
    for stored in (each for kind in found.objects.values() for each in kind):
        stored.require_whole()  # now, and not when it is drawn
    return found
