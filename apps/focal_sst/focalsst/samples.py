"""Sample data: synthetic sonar frames in the layout of Focal-SST-Sonar, to train on without a download."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from focalsst.dataset.infos import Annotation, write_infos
from focalsst.dataset.points import BINARY, TEXT, write_points
from focalsst.scenery import World, draw_frame
from unbroken import Disk, durable_folder, write_whole
from unbroken.demo import write_samples
from unbroken.errors import UsageError

Progress = Callable[[int, int], None]  # frames that are done, frames in all

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
        train=train, val=val, points=points, reach_m=float(reach_m), frames_per_sequence=frames_per_sequence, seed=seed
    )
    _require_sensible(settings)
    return write_samples(
        directory, asdict(settings), noun="frames", write=lambda: _write_frames(directory, settings, progress)
    )


def _require_sensible(settings: Settings) -> None:
    longest, most = LONGEST_SEQUENCE, MOST_SEQUENCES * settings.frames_per_sequence
    in_all = f"{MOST_SEQUENCES} sequences of {settings.frames_per_sequence} frames in a split"
    checks = [
        (min(settings.train, settings.val) >= 1, "too few frames", "train and val of 1 or more"),
        (1 <= settings.frames_per_sequence <= longest, "the sequences have no such length", f"1 to {longest} frames"),
        (settings.points >= FEWEST_POINTS, "too few points for a frame", f"{FEWEST_POINTS} or more"),
        (REACH_M[0] <= settings.reach_m <= REACH_M[1], "the reach is not a sonar's", "{} to {} m".format(*REACH_M)),
        (max(settings.train, settings.val) <= most, "too many sequences", in_all),
    ]
    for is_met, what, expected in checks:
        if not is_met:
            found = ", ".join(f"{key} {value}" for key, value in asdict(settings).items() if key != "format")
            raise UsageError("sample data", what, expected=expected, found=found)


def _write_frames(
    directory: Path, settings: Settings, progress: Progress | None
) -> tuple[dict[str, dict[str, int]], dict[str, int]]:
    world = World(points=settings.points, reach_m=settings.reach_m, seed=settings.seed)
    total, done = settings.train + settings.val, 0
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
        frames, infos = f"ImageSets/{split}.txt", f"sonar_infos_{split}.npz"
        durable_folder(Disk(), (directory / frames).parent)
        listed = "".join(f"{annotation.frame}\n" for annotation in annotations)
        files[frames] = write_whole(Disk(), directory / frames, listed.encode())
        files[infos] = write_infos(directory / infos, annotations)
        objects = [name for annotation in annotations for name in annotation.names]
        splits[split] = {"frames": len(annotations), **{name: objects.count(name) for name in ("Box", "Diver")}}
    return splits, files
