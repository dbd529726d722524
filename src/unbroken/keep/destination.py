"""Where a run is written to: a place that it is built beside and owns until it is there, and where its backups go.

Nothing that others put meanwhile where a run is restored or unpacked is lost: whoever comes finds the place locked, and
before the run takes its place, what is there is looked at once more. Only what a lock leaves is ever removed; a folder
with anything else in it cannot be. A folder of backups holds one mirror for each run, under the name of its folder.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unbroken.clock import Clock
from unbroken.errors import Refused, UsageError
from unbroken.keep.inventory import is_run
from unbroken.keep.sync import read_list
from unbroken.run.layout import own
from unbroken.run.record import RESTORING
from unbroken.storage import PARTIAL_SUFFIX, Disk, require_local
from unbroken.storage.lock import LOCK_FILES, RunLock
from unbroken.storage.stop_request import FILE as REQUEST

NOT_EMPTY = {errno.ENOTEMPTY, errno.EEXIST}
LEFT_BY_LAUNCHES = {*LOCK_FILES, REQUEST, RESTORING}


def is_vacant(place: Path) -> bool:
    """Whether nothing is there but what a launch that was refused leaves: empty folders, and files of its lock."""
    if place.is_symlink() or not place.is_dir():
        return not place.is_symlink() and not place.exists()
    return all(
        path.parent == own(place) and path.name.removesuffix(PARTIAL_SUFFIX) in LEFT_BY_LAUNCHES
        for path in place.rglob("*")
        if path.is_symlink() or not path.is_dir()
    )


def beside(place: Path) -> Path:
    """Where a run is built before it takes its place; UsageError for the current folder, which nothing can replace."""
    if Path.cwd().is_relative_to(place.resolve()):
        raise UsageError(
            place,
            "this is the current folder, or one above it: no finished run can take its place",
            expected="a folder below it, or elsewhere",
            do="Go out of it (cd ..) and name it, or name a new folder.",
        )
    return place.with_name(place.name + PARTIAL_SUFFIX)


@contextmanager
def owned(place: Path, purpose: str, *, disk: Disk, clock: Clock) -> Iterator[Callable[[Path], None]]:
    """Own a vacant place, and be given what moves a finished folder into it; RunHeld where somebody works there.

    Where nothing was moved in, what owning it has made goes again.
    """
    require_vacant(place)
    lock = RunLock(disk, own(place), clock)
    lock.acquire(purpose)

    def move_in(finished: Path) -> None:
        require_vacant(place)
        try:
            _clear(disk, place, lock)
            disk.rename(finished, place)
        except OSError as error:
            if error.errno not in NOT_EMPTY:
                raise
            raise taken(place) from error  # somebody came in this moment, and has it now
        disk.sync_folder(place.absolute().parent)

    try:
        require_vacant(place)
        yield move_in
    finally:
        lock.withdraw()


def require_vacant(place: Path) -> None:
    """Raise Refused where something is there."""
    if not is_vacant(place):
        raise taken(place)


def taken(place: Path) -> Refused:
    """The refusal to put a run where something is."""
    return Refused(
        place,
        "something is there already, and nothing is overwritten",
        expected="a folder that is new or empty",
        do="Name another folder, or move this one aside first.",
    )


def _clear(disk: Disk, place: Path, lock: RunLock) -> None:
    """Remove what launches have left, the lock last; a folder in which something else has appeared cannot go."""
    for path in sorted(place.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if path != own(place):
                disk.remove_folder(path)
        elif path.name not in LOCK_FILES:
            disk.remove(path)
    lock.discard()
    disk.remove_folder(own(place))
    disk.remove_folder(place)


# -- folders of backups ----------------------------------------------------------------------------------------------


def mirror_folder(run: Path, dest: Path) -> Path:
    """The mirror's folder; UsageError where a backup cannot lie."""
    require_apart(run, dest)
    if dest.exists() and not dest.is_dir():
        raise UsageError(dest, "this is a file", expected="a folder for backups", do="Name another.")
    if not dest.is_dir() and not dest.absolute().parent.is_dir():
        raise UsageError(
            dest.absolute().parent,
            "there is no such folder",
            do="Is the disk mounted? Otherwise make the folder first: a backup makes none but the last.",
        )
    return dest / run.resolve().name


def require_apart(run: Path, dest: Path) -> None:
    """Raise UsageError where a mirror below `dest` would lie in the run, or the run in it."""
    require_local(dest, is_folder=True)
    here, there = run.resolve(), dest.resolve() / run.resolve().name
    if dest.resolve().is_relative_to(here) or there.is_relative_to(here) or here.is_relative_to(there):
        raise UsageError(
            dest,
            f"a backup here would lie in {run}, or that in it",
            do="Name a folder elsewhere, best on another disk.",
        )


def has_mirror(run: Path, dest: Path) -> bool:
    """Whether a backup of a run was begun there."""
    return read_list(dest / run.resolve().name) is not None


def mirror_in(run: Path, dest: Path) -> Path:
    """The backup that `dest` is, or that it holds of a run with this folder's name; UsageError if there is none."""
    named = dest / run.resolve().name
    for folder in (named, dest):
        if folder.is_dir() and is_run(folder):
            return folder
    there = sorted(path.name for path in dest.iterdir() if is_run(path))[:8] if dest.is_dir() else []
    raise UsageError(
        dest,
        f"there is no backup of {run.resolve().name} here",
        found=", ".join(there) or ("no run" if dest.is_dir() else "no such folder"),
        do="Name the folder that was given to `unbroken backup`, or the run's folder in it.",
    )
