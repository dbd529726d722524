"""Where backups go: a folder that holds one mirror for each run, under the name of the run's folder."""

from __future__ import annotations

from pathlib import Path

from unbroken.clock import Clock
from unbroken.errors import Refused, UsageError
from unbroken.keep.backup import Backup, Ways, mirror
from unbroken.keep.backup_list import read_list
from unbroken.keep.listing import is_run
from unbroken.storage import Disk, durable_folder, require_local


def back_up(run: Path, dest: Path, ways: Ways, *, disk: Disk, clock: Clock) -> Backup:
    """Bring the mirror of a run below `dest` up to date, see `mirror`; `dest` is made where only it is missing."""
    target = place_of(run, dest)
    if not dest.is_dir():
        try:
            durable_folder(disk, dest)
        except OSError as error:
            raise Refused(dest, f"the folder cannot be made ({error.strerror or error})", do="Name another.") from error
    return mirror(run, target, ways, disk=disk, clock=clock)


def place_of(run: Path, dest: Path) -> Path:
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
