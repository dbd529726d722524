"""Runs of this recipe and tag in folders that are within reach: a launch from another folder is no silent beginning.

Looked at are the folders in which the same command keeps its runs when it is typed elsewhere (beside the config, above
the current folder), and a bounded number of folders around the run and around the current folder. Nothing is verified.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from unbroken.launch.job import Job
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, own

LEVELS_ABOVE = 3
MOST_FOLDERS, DEPTH, MOST_ENTRIES = 300, 4, 500  # together some 20 ms
NO_RUNS_IN = {ARCHIVE_FOLDER, OWN_FOLDER, "node_modules", "site-packages", "__pycache__"}


def usual_places(job: Job) -> Iterator[Path]:
    """The folder of this very run for the same command, typed in another folder."""
    yield from job.usual
    yield from _above(job.directory)


def _above(directory: Path) -> Iterator[Path]:
    if not directory.is_absolute():
        yield from (above / directory for above in islice(Path.cwd().parents, LEVELS_ABOVE))


def same_run_elsewhere(directory: Path) -> Path | None:
    """A run that the same words would lead to from another folder; None where there is none within reach."""
    if directory.is_absolute():
        return None
    likely = (*_above(directory), *runs_around(directory))
    there = (folder for folder in likely if folder.parts[-len(directory.parts) :] == directory.parts)
    here = directory.resolve()
    return next((each for each in there if each.resolve() != here and _is_run(each)), None)


def runs_around(directory: Path) -> Iterator[Path]:
    """Folders of runs around this one and around the current folder, the nearest first."""
    here = Path.cwd()
    starts = [directory.absolute().parent.parent, here, here.parent]
    waiting = deque((folder, 0) for folder in dict.fromkeys(starts) if folder != folder.parent)
    seen: set[str] = set()
    while waiting and len(seen) < MOST_FOLDERS:
        folder, depth = waiting.popleft()
        if str(folder) in seen:
            continue
        seen.add(str(folder))
        if _is_run(folder):
            yield folder
        elif depth < DEPTH:
            waiting.extend((path, depth + 1) for path in _folders_in(folder))


def _is_run(folder: Path) -> bool:
    try:
        return (own(folder) / "run.json").is_file()
    except OSError:  # somebody else's folder, or one that is just going
        return False


def _folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that may hold runs: no links, and none of another disk."""
    try:
        with os.scandir(folder) as entries:
            disk = folder.stat().st_dev
            return sorted(
                Path(entry.path)
                for entry in islice(entries, MOST_ENTRIES)
                if entry.is_dir(follow_symlinks=False)
                and not entry.name.startswith(".")
                and entry.name not in NO_RUNS_IN
                and entry.stat(follow_symlinks=False).st_dev == disk
            )
    except OSError:
        return []
