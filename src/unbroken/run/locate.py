"""Finding runs: folders that hold one, ours or one that another program left."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from unbroken.run.names import ARCHIVE_FOLDER, BACKUP_LIST, CHECKPOINT_FOLDER, OWN_FOLDER
from unbroken.storage import PARTIAL_SUFFIX

DEPTH = 6
NUMBER = "[0-9]"  # where a name has a step or an epoch, so that `iter_best.pth` is no sign of a run


def find_runs(root: Path) -> Iterator[Path]:
    """Folders at and below `root` that hold a run; archived histories, and what is inside a run, are left out."""
    return (Path(folder) for folder in run_folders(str(root)))


def run_folders(root: str) -> Iterator[str]:
    """The same as text, sorted within each folder: a Path costs as much as the look itself."""
    waiting = [(root, 0)]
    while waiting:
        folder, depth = waiting.pop()
        inside = holds_run(folder)
        if inside is None:
            yield folder
        elif depth < DEPTH:
            waiting += [(path, depth + 1) for path in reversed(inside)]


def is_backup(folder: str) -> bool:
    """Whether the run in this folder is a backup of another one."""
    return os.path.isfile(f"{folder}/{OWN_FOLDER}/{BACKUP_LIST}")  # noqa: PTH113 - as everywhere here


def holds_run(folder: str) -> list[str] | None:
    """None where this folder holds a run; else the folders in it that may, sorted. Changes nothing."""
    folders: list[str] = []
    others: list[str] = []  # files, and links, which are not followed to look for runs
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                (folders if entry.is_dir(follow_symlinks=False) else others).append(entry.name)
    except OSError:  # it cannot be read, or went away meanwhile
        return []
    start = folder if folder.endswith(os.sep) else folder + os.sep
    if os.path.isfile(f"{start}{OWN_FOLDER}/run.json"):  # noqa: PTH113
        return None
    if any(name.endswith(".pth") for name in others) and _looks_like_a_run("", others):
        return None
    if any(name.endswith(".dcp") for name in folders) and _looks_like_a_run("", folders):
        return None
    if (CHECKPOINT_FOLDER in folders or CHECKPOINT_FOLDER in others) and _holds_checkpoints(start + CHECKPOINT_FOLDER):
        return None
    folders = [name for name in folders if name != ARCHIVE_FOLDER and not name.endswith(PARTIAL_SUFFIX)]
    return [start + name for name in sorted(folders)]


def _holds_checkpoints(folder: str) -> bool:
    try:
        return _looks_like_a_run(CHECKPOINT_FOLDER, os.listdir(folder))  # noqa: PTH208
    except OSError:
        return False


def _looks_like_a_run(part: str, names: list[str]) -> bool:
    """Whether files are called as a training calls those in its folder `part`."""
    return any(map(_names()[part].match, names))


@cache
def _names() -> dict[str, re.Pattern[str]]:
    """By the folder of checkpoints: the names that a training gives them."""
    from unbroken.run.layout import LAYOUTS, as_folder

    wanted: dict[str, list[str]] = {}
    for layout in LAYOUTS:
        files = [*filter(None, (layout.checkpoint_name, layout.rolling_name))]
        for name in (*files, *map(as_folder, files)):
            pattern = re.sub(r"\\{(step|epoch)\\}", f"{NUMBER}.*", re.escape(name))
            wanted.setdefault(layout.checkpoint_folder, []).append(pattern)
    return {part: re.compile(f"(?:{'|'.join(patterns)})$") for part, patterns in wanted.items()}
