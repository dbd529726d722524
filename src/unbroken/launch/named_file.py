"""A file that a person names: there, or what is near it instead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from unbroken.checkpoint.folders import require_no_folder_of_others
from unbroken.errors import UsageError
from unbroken.storage import is_ordinary, require_local

NEAR_LEVELS, MOUNT_POINT = 3, Path("/mnt")
MOST_NEAR, NEAR_DEPTH, MOST_NEAR_FOLDERS = 8, 5, 500


def require_file(path: Path) -> None:
    """Raise UsageError where this is no file, with the checkpoints near it."""
    if is_ordinary(path):
        return
    require_local(path)
    require_no_folder_of_others(path)
    what = "this is a folder, not a file" if path.is_dir() else "there is no such file"
    what = f"this is a link to {path.readlink()}, which is not there" if path.is_symlink() else what
    found = _neighbours(path)
    do = "Check the path." if found.startswith("in ") else "Check the path, and that the data set or disk is attached."
    raise UsageError(path, what, found=found, do=do)


def _neighbours(path: Path) -> str:
    """What exists near a path that does not: checkpoints below the nearest folder that does, else its content.

    Where a mount point is all that exists of the path, or more of it is missing, what lies there is not near.
    """
    folders = path.absolute().parents
    near = next(folder for folder in folders if folder.is_dir())
    if near not in folders[:NEAR_LEVELS] or (near != folders[0] and len(near.parts) <= len(MOUNT_POINT.parts)):
        return f"nothing of that path but {near}"
    found = list(islice(_checkpoints_below(near), MOST_NEAR + 1))
    names = found or sorted(item.name for item in near.iterdir())
    listed = ", ".join(names[:MOST_NEAR]) + (" and more" if len(names) > MOST_NEAR else "")
    return f"in {near}: {listed or 'nothing'}"


def _checkpoints_below(folder: Path) -> Iterator[str]:
    for count, (place, folders, files) in enumerate(os.walk(folder)):
        here = Path(place).relative_to(folder)
        yield from (str(here / name) for name in sorted(files) if name.endswith(".pth"))
        folders[:] = sorted(folders) if len(here.parts) < NEAR_DEPTH and count < MOST_NEAR_FOLDERS else []
