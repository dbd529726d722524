"""Pictures of what a run's weights predicted: `predictions/<step>/<name>.png`, of the best and of the last evaluations.

They are drawn from what is kept elsewhere, so they may go: how many there are stays bounded however long a run is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from unbroken.storage import PARTIAL_SUFFIX, Disk, durable_folder, write_whole

LAST_EVALUATIONS = 3  # whose pictures stay, besides those of the best
LONGEST_NAME = 40
SUFFIX = ".png"
PARTIAL = SUFFIX + PARTIAL_SUFFIX  # of a writing that was cut off


def kept_steps(steps: Iterable[int], *, now: int, best: int | None) -> set[int]:
    """Which evaluations keep their pictures at step `now`: what lies beyond it belongs to a history that was left."""
    past = sorted(step for step in steps if step <= now)
    return {*past[-LAST_EVALUATIONS:], *(step for step in past if step == best)}


def write_pictures(disk: Disk, folder: Path, step: int, pictures: Mapping[str, bytes]) -> None:
    """Write the pictures of one evaluation, each whole or not at all; OSError where the disk refuses."""
    place = folder / str(step)
    durable_folder(disk, place)
    for name, data in pictures.items():
        write_whole(disk, place / f"{name}{SUFFIX}", data)


def drop_pictures(disk: Disk, folder: Path, *, keep: Iterable[int]) -> None:
    """Remove the pictures of all other evaluations; what a user put beside them stays."""
    kept = set(keep)
    for step, place in evaluations_in(folder).items():
        endings = (PARTIAL,) if step in kept else (SUFFIX, PARTIAL)
        for path in sorted(path for path in place.iterdir() if path.name.endswith(endings)):
            disk.remove(path)
        if not any(place.iterdir()):
            disk.remove_folder(place)


def evaluations_in(folder: Path) -> dict[int, Path]:
    """The folders of pictures, by step."""
    found = sorted(folder.iterdir()) if folder.is_dir() else []
    return {int(path.name): path for path in found if re.fullmatch(r"\d{1,15}", path.name, re.ASCII) and path.is_dir()}


def file_names(names: Iterable[str]) -> list[str]:
    """For names of samples, names of files that no system minds, each another one also where case does not count."""
    found: list[str] = []
    for name in names:
        safe = re.sub(r"[^\w-]+", "_", name)[-LONGEST_NAME:].strip("_") or "sample"
        taken = {each.casefold() for each in found}
        number = next(n for n in range(1, len(found) + 2) if _numbered(safe, n).casefold() not in taken)
        found.append(_numbered(safe, number))
    return found


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}_{number}"
