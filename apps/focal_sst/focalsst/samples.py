"""Sample data: synthetic sonar frames in the layout of Focal-SST-Sonar, to train on without a download."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from focalsst.dataset.infos import Annotation, write_infos
from focalsst.dataset.points import BINARY, TEXT, write_points
from focalsst.scenery import World, draw_frame
from unbroken import Disk, LeadsOut, durable_folder, is_ordinary, place, read_json, write_json, write_whole
from unbroken.errors import UsageError

Progress = Callable[[int, int], None]  # frames that are done, frames in all

SETTINGS: Final = "settings.json"  # written first: whose directory this is
MANIFEST: Final = "manifest.json"  # written last: that it is complete
SPLITS: Final = {"train": 1, "val": 2}  # first digit of the ids
FEWEST_POINTS: Final = 200
REACH_M: Final = (16.0, 48.0)
LONGEST_SEQUENCE, MOST_SEQUENCES = 1000, 1000


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All that decides the content of a directory of sample data."""

    format: str = "focalsst sample data 1"
    train: int
    val: int
    points: int
    reach_m: float
    frames_per_sequence: int
    seed: int

    def world(self) -> World:
        """Give what all frames share."""
        return World(points=self.points, reach_m=self.reach_m, seed=self.seed)

    def frames(self, split: str) -> Iterator[tuple[int, int, str]]:
        """List (sequence, number in it, id) of every frame of a split; no sequence is in both splits."""
        for index in range(self.train if split == "train" else self.val):
            sequence, number = divmod(index, self.frames_per_sequence)
            yield sequence, number, f"{SPLITS[split]}{sequence:03d}{number:03d}"


def write_sample_data(
    directory: Path,
    *,
    train: int = 240,
    val: int = 80,
    points: int = 2200,
    reach_m: float = 30.0,
    frames_per_sequence: int = 8,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write points in both forms, ImageSets, infos and a manifest of counts; return what was done.

    `points` per frame is 38 552 in real recordings, and objects have their share of them; `reach_m` is up to 48.
    A repeated call with the same parameters writes nothing, and one after a kill writes the frames again. A
    directory that holds anything else is refused (`UsageError`).
    """
    settings = Settings(
        train=train,
        val=val,
        points=points,
        reach_m=float(reach_m),
        frames_per_sequence=frames_per_sequence,
        seed=seed,
    )
    _require_sensible(settings)
    finished = _survey(directory, settings)
    if finished is not None:
        return _summary(directory, finished, written=0)
    durable_folder(Disk(), directory)
    write_json(Disk(), directory / SETTINGS, asdict(settings))
    manifest = _write_frames(directory, settings, progress)
    write_json(Disk(), directory / MANIFEST, manifest)
    return _summary(directory, manifest, written=train + val)


def _require_sensible(settings: Settings) -> None:
    longest = LONGEST_SEQUENCE
    checks = [
        (min(settings.train, settings.val) >= 1, "too few frames", "train and val of 1 or more"),
        (1 <= settings.frames_per_sequence <= longest, "the sequences have no such length", f"1 to {longest} frames"),
        (settings.points >= FEWEST_POINTS, "too few points for a frame", f"{FEWEST_POINTS} or more"),
        (REACH_M[0] <= settings.reach_m <= REACH_M[1], "the reach is not a sonar's", "{} to {} m".format(*REACH_M)),
    ]
    for is_met, what, expected in checks:
        if not is_met:
            raise UsageError("sample data", what, expected=expected, found=_describe_settings(asdict(settings)))
    if max(settings.train, settings.val) > MOST_SEQUENCES * settings.frames_per_sequence:
        most = f"{MOST_SEQUENCES} sequences of {settings.frames_per_sequence} frames in a split"
        raise UsageError("sample data", "too many sequences", expected=most, found=_describe_settings(asdict(settings)))


def _survey(directory: Path, settings: Settings) -> dict[str, Any] | None:
    """Give the manifest if all is there already, None if there is something to write."""
    if not directory.exists():
        return None
    found = _read_json(directory / SETTINGS)
    if found is None and directory.is_dir() and all(entry.name == SETTINGS for entry in directory.iterdir()):
        return None  # empty, or killed while the settings were being written
    if found != asdict(settings):
        raise UsageError(
            directory,
            "the directory is in use",
            expected="an empty directory, or sample data of the same parameters",
            found=_describe(found, settings.format),
            do="Choose another directory.",
        )
    manifest = _read_json(directory / MANIFEST)
    return manifest if manifest is not None and _is_whole(directory, manifest) else None


def _has_size(path: Path, size_bytes: int) -> bool:
    return is_ordinary(path) and path.stat().st_size == size_bytes


def _is_whole(directory: Path, manifest: Mapping[str, Any]) -> bool:
    """Whether every file of the manifest is there; one that lists something else is none."""
    try:
        return all(_has_size(place(directory, name), size_bytes) for name, size_bytes in manifest["files"].items())
    except (LeadsOut, KeyError, AttributeError):
        return False


def _describe(found: Mapping[str, Any] | None, format_name: str) -> str:
    if found is None or found.get("format") != format_name:
        return "other files"
    return f"sample data of {_describe_settings(found)}"


def _describe_settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items() if key != "format")


def _write_frames(directory: Path, settings: Settings, progress: Progress | None) -> dict[str, Any]:
    world, total, done = settings.world(), settings.train + settings.val, 0
    files: dict[str, int] = {}
    splits: dict[str, dict[str, int]] = {}
    for split in SPLITS:
        annotations: list[Annotation] = []
        for sequence, number, frame in settings.frames(split):
            points, annotation = draw_frame(world, split, sequence, number, frame)
            annotations.append(annotation)
            for folder, suffix in (TEXT, BINARY):
                name = f"{folder}/{frame}{suffix}"
                files[name] = write_points(directory / name, points)
            done += 1
            if progress is not None:
                progress(done, total)
        files |= _write_lists(directory, split, annotations)
        splits[split] = _count(annotations)
    return {"format": settings.format, "settings": asdict(settings), "splits": splits, "files": files}


def _write_lists(directory: Path, split: str, annotations: list[Annotation]) -> dict[str, int]:
    frames, infos = f"ImageSets/{split}.txt", f"sonar_infos_{split}.npz"
    durable_folder(Disk(), (directory / frames).parent)
    listed = "".join(f"{annotation.frame}\n" for annotation in annotations)
    return {
        frames: write_whole(Disk(), directory / frames, listed.encode()),
        infos: write_infos(directory / infos, annotations),
    }


def _count(annotations: list[Annotation]) -> dict[str, int]:
    objects = [name for annotation in annotations for name in annotation.names]
    return {"frames": len(annotations), **{name: objects.count(name) for name in ("Box", "Diver")}}


def _summary(directory: Path, manifest: Mapping[str, Any], *, written: int) -> dict[str, Any]:
    settings = manifest["settings"]
    frames = f"{settings['train']} training and {settings['val']} validation frames"
    did = f"Wrote {frames}" if written else f"Nothing to do: {frames} of these parameters are already there"
    return {
        "directory": str(directory),
        "written": written,
        "message": f"{did} ({directory}).",
        "settings": settings,
        "splits": manifest["splits"],
    }


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        data = read_json(path)
    except (OSError, ValueError):  # a kill may have torn it
        return None
    return data if isinstance(data, dict) else None
