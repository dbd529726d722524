"""How a file goes, in its one place: first under a name that nothing reads, then from the records, then from the disk.

Killed at any instant, the file is there whole under its name, or it is left under the other name, where the next
removal, retention or launch of the run ends what was begun. Whoever regrets it until then renames it back.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from unbroken.checkpoint.manifest import manifest_path
from unbroken.storage import Disk

GOING_SUFFIX = ".going"
CUT_OFF = "its removal had been cut off"
Record = Callable[..., None]  # Journal.write, taken as a function: this room does not know the journal


def let_go(disk: Disk, folder: Path, name: str, *, manifests: Path, record: Record, reason: str) -> None:
    """Remove one file of a run durably; a file that is not there only leaves the records."""
    going = folder / (name + GOING_SUFFIX)
    if (folder / name).exists():
        disk.rename(folder / name, going)
        disk.sync_folder(folder)
    _forget(disk, going, name, manifests=manifests, record=record, reason=reason)


def leftovers(folder: Path, writes: Callable[[str], bool]) -> list[str]:
    """The names of files whose removal was cut off, as they were called: only those that this run would write."""
    found = (path.name.removesuffix(GOING_SUFFIX) for path in folder.glob(f"*{GOING_SUFFIX}") if not path.is_symlink())
    return sorted(name for name in found if writes(name))


def finish_removal(disk: Disk, folder: Path, name: str, *, manifests: Path, record: Record) -> None:
    """End a removal that was cut off; the records of a newer file of the same name are none of its business."""
    going = folder / (name + GOING_SUFFIX)
    if (folder / name).exists():
        remove_all(disk, going)
    else:
        _forget(disk, going, name, manifests=manifests, record=record, reason=CUT_OFF)


def _forget(disk: Disk, going: Path, name: str, *, manifests: Path, record: Record, reason: str) -> None:
    try:
        record("removed", file=name, reason=reason)
    finally:  # a full disk refuses the record, and needs the room all the same
        for path in (manifest_path(manifests, name), going):
            if path.exists():
                remove_all(disk, path)


def remove_all(disk: Disk, path: Path) -> None:
    """Remove a checkpoint or what is left of one: a file, or a folder with all that is in it."""
    if not path.is_dir() or path.is_symlink():
        disk.remove(path)
        return
    for inner in sorted(path.iterdir()):
        remove_all(disk, inner)
    disk.remove_folder(path)
