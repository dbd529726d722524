"""Unpacking a run: beside its place first, under a name that nothing takes for a run, and moved there when it is whole.

Killed anywhere, the same command goes on: files that have arrived whole are kept, others are written again.
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from unbroken.clock import Clock
from unbroken.errors import DamagedFile, Refused, UsageError
from unbroken.ids import place
from unbroken.keep.destination import beside, owned, require_vacant
from unbroken.keep.packed import PackedFile, PackingList, read_blocks, read_list
from unbroken.keep.sync import require_room, write_verified
from unbroken.run.record import layout_of
from unbroken.run.survey import Survey, survey
from unbroken.storage import Disk, durable_folder, explained, is_ordinary, open_ordinary
from unbroken.storage.digest import Digests, sha256_of


@dataclass(frozen=True, kw_only=True)
class Unpacked:
    """A run that arrived, and what it is."""

    directory: Path
    listed: PackingList
    facts: Survey
    kept: int  # files that an earlier, interrupted call had brought


def unpack(path: Path, directory: Path | None, *, disk: Disk, clock: Clock) -> Unpacked:
    """Unpack into a new folder; nothing that is there is overwritten.

    Raises DamagedFile for a file that is not whole or not ours, Refused where the folder is in use or has no room.
    """
    if not is_ordinary(path):
        raise UsageError(path, "there is no such file", do="Name a file that `unbroken pack` wrote.")
    listed = read_list(path)
    target = directory or Path(listed.folder)
    require_vacant(target)
    building = beside(target)
    if building.is_symlink() or (building.exists() and not building.is_dir()):
        raise Refused(building, "this name is needed for unpacking, and something else has it", do="Move it away.")
    with (
        explained(disk, target, "the run could not be unpacked"),
        owned(target, "unpack", disk=disk, clock=clock) as move_in,
    ):
        there = next(folder for folder in (target.absolute(), *target.absolute().parents) if folder.is_dir())
        arrived = [path.stat().st_size for path in building.rglob("*") if path.is_file()] if building.is_dir() else []
        require_room(
            target,
            needed=sum(item.size_bytes for item in listed.files),
            free=disk.free_bytes(there) + sum(arrived),
            what="to unpack the run",
            do="Make room, or pack less: unbroken pack RUN OUT --minimal.",
        )
        durable_folder(disk, building)
        _remove_others(disk, listed, building)
        kept = _fill(disk, path, listed, building)
        move_in(building)
    return Unpacked(directory=target, listed=listed, facts=survey(target, layout_of(target)), kept=kept)


def _remove_others(disk: Disk, listed: PackingList, beside: Path) -> None:
    """Remove what an interrupted call with another file, or in the middle of a file, has left."""
    wanted = {beside / item.name for item in listed.files}
    for path in sorted(beside.rglob("*"), reverse=True):
        if path.is_symlink() or (path.is_file() and path not in wanted):
            disk.remove(path)
        elif path.is_dir() and not any(path.iterdir()):
            disk.remove_folder(path)


def _fill(disk: Disk, path: Path, listed: PackingList, beside: Path) -> int:
    """Write every file that is not there yet, each compared with the list as it lies on the disk; how many were."""
    kept = 0
    with open_ordinary(path) as file, zipfile.ZipFile(file) as archive:
        for item in listed.files:
            target = place(beside, item.name)
            if target.is_file() and target.stat().st_size == item.size_bytes and sha256_of(target) == item.sha256:
                kept += 1
                continue
            durable_folder(disk, target.parent)

            def require(digests: Digests, item: PackedFile = item) -> None:
                if digests.sha256 != item.sha256:
                    raise DamagedFile(
                        path, f"{item.name} in it is not what was packed", do="Copy or download it again."
                    )

            write_verified(disk, target, read_blocks(path, archive, f"{listed.folder}/{item.name}"), require=require)
    return kept
