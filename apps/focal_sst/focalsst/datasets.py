"""The data of a job: its frames, its objects to paste, and what is asked of them before a training begins. No torch.

`why`, `train` and `unbroken check` ask alike. What nothing could be learned from, or would be learned wrong, is
refused; what may be meant is a warning. Annotations are looked at in full, points in the first and the last frame of
each part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from focalsst.config import SonarConfig, detector_settings
from focalsst.config.data import Augmentation as Entry
from focalsst.config.data import GtSampling, RandomWorldFlip, RandomWorldRotation, RandomWorldScaling
from focalsst.dataset.database import Database, paste_objects, read_database
from focalsst.dataset.folder import SonarFolder
from focalsst.dataset.infos import Annotation, read_infos, read_pickled_infos
from focalsst.dataset.points import Floats, are_classes, read_points
from focalsst.dataset.scene import Augmentation, Extent, points_in_box, random_flip, random_rotation, random_scaling
from focalsst.dataset.splits import leaked_frames
from focalsst.recipes import SonarOptions
from unbroken import Job, is_ordinary
from unbroken.errors import ConfigError, DamagedFile, UsageError

Tried = tuple[Floats, Annotation]  # the points of a frame as they lie in its file, and what is known of it
TURN: Final = 2 * np.pi
MOST_TURNS: Final = 2  # of a heading that was added up over frames; degrees are far beyond
RAW: Final = (1e5, 1e13)  # raw intensities of echoes: real ones lie between 2e8 and 2e11
USUAL: Final = {"standard": "-1 to 3", "original": "0.78 to 0.97"}  # what the network sees of them
FEW: Final = 0.5  # a smaller share of boxes or points in the range is worth a word
LIMIT: Final = "MODEL.DENSE_HEAD.POST_PROCESSING.POST_CENTER_LIMIT_RANGE"
RANGE: Final = "DATA_CONFIG.POINT_CLOUD_RANGE"
AXES: Final = "x forward, y left, z up, in metres"


def datasets(job: Job) -> dict[str, SonarFolder]:
    """The data sets of a job's config, for checking them: missing points are a frame that cannot be read."""
    own: SonarOptions = job.options.own
    return {
        name: build_dataset(own.config, own.data_root, training=name == "train", skip_bad=True)
        for name in ("train", "test")
    }


def build_dataset(config: SonarConfig, data_root: Path, *, training: bool, skip_bad: bool = False) -> SonarFolder:
    """The frames of a config's training or test part; with `skip_bad` some may lack their file of points."""
    if not data_root.is_dir():
        raise UsageError(
            data_root,
            "the folder of the data does not exist",
            expected="what DATA_CONFIG.DATA_PATH names: a folder with ImageSets/, points_binary/ and infos",
            do=f"Put the data there, or set DATA_PATH. To try it with made-up data: unbroken data sonar {data_root}",
        )
    data, part = config.DATA_CONFIG, "train" if training else "test"
    named = data_root / getattr(data.INFO_PATH, part)[0]
    # The same infos in another form will do; a pickle is read without executing it.
    forms = [named, *(named.with_suffix(suffix) for suffix in (".npz", ".json", ".pkl"))]
    infos = next((form for form in forms if is_ordinary(form)), named)
    known = read_pickled_infos(infos) if infos.suffix == ".pkl" else read_infos(infos)
    entries, database = data.DATA_AUGMENTOR.enabled if training else (), None
    if wanted := next((entry for entry in entries if isinstance(entry, GtSampling)), None):
        encoding = data.POINT_FEATURE_ENCODING.INTENSITY
        database = read_database(
            data_root, split=data.DATA_SPLIT.train, min_points=wanted.least_points, encoding=encoding
        )
        for stored in (each for kind in database.objects.values() for each in kind):
            stored.require_whole()  # now, and not when it is drawn
    geometry = detector_settings(config).geometry
    return SonarFolder(
        root=data_root,
        split=getattr(data.DATA_SPLIT, part),
        infos=known,
        infos_from=infos,
        training=training,
        classes=config.class_names,
        extent=Extent(low=geometry.lower_m, high=geometry.upper_m),
        augmentations=augmentations_of(entries, database),
        intensity=data.POINT_FEATURE_ENCODING.INTENSITY,
        binary=data.USE_BINARY_FORMAT,
        mask_z=data.mask.MASK_Z,
        advice="" if skip_bad else "To go on without frames that cannot be read: --on-bad-sample skip",
        gaps=skip_bad,
    )


def augmentations_of(entries: Sequence[Entry], database: Database | None = None) -> tuple[Augmentation, ...]:
    """The entries of a config as functions of a scene and a generator, in their order; `database` is of gt_sampling."""
    steps: list[Augmentation] = []
    for place, entry in enumerate(entries):
        match entry:
            case RandomWorldFlip():
                steps.append(random_flip)
            case RandomWorldRotation(WORLD_ROT_ANGLE=angle):
                range_rad = angle if isinstance(angle, tuple) else (-angle, angle)
                steps.append(partial(random_rotation, range_rad=range_rad))
            case RandomWorldScaling(WORLD_SCALE_RANGE=factors):
                steps.append(partial(random_scaling, factors=factors))
            case GtSampling() if database is not None:
                if strange := sorted(set(entry.groups) - set(database.objects)):
                    known = ", ".join(database.objects) or "no class at all"
                    where, what = f"AUG_CONFIG_LIST[{place}] (gt_sampling)", "the database has no such class"
                    raise ConfigError(where, what, expected=known, found=", ".join(strange))
                pasted = partial(paste_objects, database=database, groups=entry.groups)
                steps.append(
                    partial(pasted, limit_whole_scene=entry.LIMIT_WHOLE_SCENE, extra_width_m=entry.REMOVE_EXTRA_WIDTH)
                )
    return tuple(steps)


def preflight(job: Job) -> list[str]:
    """Everything a training of this job would refuse before its first step is raised; returns what to warn of."""
    own: SonarOptions = job.options.own
    config, root = own.config, own.data_root
    if job.options.device not in ("auto", "cpu"):  # torch is asked only where it has to be
        from unbroken.train import pick_device

        pick_device(job.options.device, deterministic=False)  # refuses one that is none, or is not there
    skip_bad = job.options.accidents.on_bad == "skip"
    training, validation = (build_dataset(config, root, training=part, skip_bad=skip_bad) for part in (True, False))
    warnings = [*_about_limit(config, training.extent)]
    if leaked := leaked_frames(training.names, validation.names):
        warnings.append(
            f"{len(leaked)} of {len(validation)} frames of {_part(validation)} are trained on too, as themselves or as "
            f"a copy (first {leaked[0]}): the scores will be too good; divide by recordings"
        )
    for data in (training, validation):
        # The first and the last frame are loaded: data of another form ends the launch, not the night.
        tried: list[Tried] = []
        for index in range(0 if skip_bad else len(data)):
            data.require_known_classes(index)
        for index in sorted({0, len(data) - 1}):
            try:
                data.prepared(index, np.random.default_rng(0))
                tried.append((read_points(data.path(index)), data.annotation(index)))
            except DamagedFile:
                if not skip_bad:
                    raise
        if data.unlisted:
            more = f" and {len(data.unlisted) - 1} more" if len(data.unlisted) > 1 else ""
            found = f"{data.infos_from} also knows {data.unlisted[0]}{more}"
            warnings.append(f"{found}, which {_part(data)} does not list: not used")
        warnings += [*_about_boxes(data), *_about_points(data, tried)]
    return warnings


def _about_limit(config: SonarConfig, extent: Extent) -> Iterator[str]:
    """The range that detections are kept in, where it cuts off part of the range that is trained in."""
    limit = config.MODEL.DENSE_HEAD.POST_PROCESSING.POST_CENTER_LIMIT_RANGE
    low, high = np.array(limit[:3]), np.array(limit[3:])
    if (low >= extent.high).any() or (high <= extent.low).any():
        raise ConfigError(
            LIMIT,
            f"it has nothing in common with {RANGE}: every detection would be dropped",
            expected=f"a range that holds {list(extent.low)} to {list(extent.high)}",
            found=list(limit),
        )
    if (low > extent.low).any() or (high < extent.high).any():
        yield (
            f"{LIMIT} {list(limit)} lies inside {RANGE} {[*extent.low, *extent.high]}: objects beyond it are trained "
            "on and can never be detected; set it to hold the whole range"
        )


def _about_boxes(data: SonarFolder) -> Iterator[str]:
    """Headings in degrees, boxes outside the range, parts or classes without a box."""
    known = [data.annotation(index) for index in range(len(data))]
    names = [name for annotation in known for name in annotation.names]
    boxes = np.concatenate([annotation.boxes for annotation in known])
    yield from _about_headings(data, known, boxes)
    ours = np.array([name in data.classes for name in names], bool)
    centres = boxes[ours, :3]
    inside = np.asarray(((centres >= data.extent.low) & (centres <= data.extent.high)).all(axis=1))
    where, purpose = data.infos_from, "learn from" if data.training else "judge by: its scores will say nothing"
    if not len(centres):
        words = f"not one of the {len(known)} frames of {_part(data)} has an object of {', '.join(data.classes)}"
        if data.training and data.has_infos:
            raise UsageError(where, words, do="Look at CLASS_NAMES, and at the infos: there is nothing to learn from.")
        yield f"{where}: {words}: there is nothing to {purpose}"
    elif not inside.any():
        low, high = (np.round(side(centres.astype(np.float64), axis=0), 2).tolist() for side in (np.min, np.max))
        words = f"not one of the {len(centres)} objects of {_part(data)} lies in the range"
        if data.training:
            raise UsageError(
                where,
                words,
                expected=f"centres within {list(data.extent.low)} to {list(data.extent.high)} m",
                found=f"{low} to {high} m",
                do=f"Look at the infos ({AXES}), or at {RANGE}.",
            )
        yield f"{where}: {words} ({low} to {high} m): there is nothing to {purpose}"
    else:
        if inside.mean() < FEW:
            yield f"{where}: {len(inside) - inside.sum()} of {len(inside)} objects of {_part(data)} lie outside {RANGE}"
        seen = {name for name, one_of_ours in zip(names, ours) if one_of_ours}
        for name in [name for name in data.classes if name not in seen]:
            yield f"{where}: no frame of {_part(data)} has an object of class {name}"


def _about_headings(data: SonarFolder, known: Sequence[Annotation], boxes: Floats) -> Iterator[str]:
    turns = np.abs(boxes[:, 6]) / TURN if len(boxes) else np.zeros(1)
    if turns.max() > MOST_TURNS:
        owner = next(a for a in known if len(a.boxes) and (np.abs(a.boxes[:, 6]) / TURN > MOST_TURNS).any())
        raise DamagedFile(
            data.infos_from,
            f"the headings are no radians: {(turns > MOST_TURNS).sum()} of {len(boxes)} boxes turn more than "
            f"{MOST_TURNS} times around, the first in frame {owner.frame}",
            expected="radians about z, from -3.14 to 3.14",
            found=f"up to {np.abs(boxes[:, 6]).max():g}",
            do="Are they degrees? Write heading * pi / 180 into the infos.",
        )
    if turns.max() > 1.001:
        yield f"{data.infos_from}: headings reach {turns.max() * TURN:.4g} rad, more than a turn: are they degrees?"


def _about_points(data: SonarFolder, tried: Sequence[Tried]) -> Iterator[str]:
    """What is odd about the frames that were read, each kind once: the others of a part are mostly like them."""
    for look in (_intensity, _fifth_column, _range):
        said = [f"{data.path_of(known.frame)}: {words}" for raw, known in tried if (words := look(raw, data))]
        yield from said[:1]
    boxes = [(raw, box) for raw, known in tried for box in known.boxes]
    if boxes and not any(points_in_box(raw, box).any() for raw, box in boxes):
        frames = ", ".join(known.frame for _, known in tried)
        yield (
            f"{data.infos_from}: not one box of the frames {frames} has a point in it: do points and boxes have the "
            f"same axes ({AXES}; heading in radians)?"
        )


def _intensity(raw: Floats, data: SonarFolder) -> str:
    loud = raw[:, 3]
    if loud.max() >= RAW[0] and loud.min() >= 0 and np.median(loud) <= RAW[1] and loud.min() < loud.max():
        return ""
    seen = data.encoded(loud)
    return (
        f"intensities lie between {loud.min():.4g} and {loud.max():.4g}, where raw ones (about 2e8 to 2e11) are "
        f"expected by POINT_FEATURE_ENCODING.INTENSITY {data.intensity}: the network sees {seen.min():.4g} to "
        f"{seen.max():.4g}, and is made for about {USUAL[data.intensity]}"
    )


def _fifth_column(raw: Floats, _data: SonarFolder) -> str:
    sound = are_classes(raw[:, 4])
    return "" if sound else "the fifth column holds no classes (whole numbers): is it x y z intensity class?"


def _range(raw: Floats, data: SonarFolder) -> str:
    share = ((raw[:, :3] >= data.extent.low) & (raw[:, :3] <= data.extent.high)).all(axis=1).mean()
    return f"only {share:.0%} of its points lie in {RANGE} ({AXES})" if share < FEW else ""


def _part(data: SonarFolder) -> str:
    return f"ImageSets/{data.split}.txt"
