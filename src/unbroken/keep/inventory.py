"""Every file of a run as it is when it is looked at: what is backed up, restored and packed. Looks only.

It may be asked while the run is trained. The checkpoints are listed before the records are: a record that is read
later than the checkpoint was there covers all the steps on the way to it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbroken.checkpoint.manifest import manifest_path
from unbroken.checkpoint.removal import GOING_SUFFIX
from unbroken.checkpoint.sharded import SUFFIX, files_in, is_cut_off
from unbroken.errors import Refused, UsageError
from unbroken.run.candidates import Candidate, list_candidates
from unbroken.run.folder import walk
from unbroken.run.layout import ARCHIVE_FOLDER, BACKUP_LIST, OWN_FOLDER, Layout, manifests, own
from unbroken.run.locate import holds_run
from unbroken.run.record import RESTORING, read_record
from unbroken.run.survey import require_reachable
from unbroken.run.view import RunView
from unbroken.storage import PARTIAL_SUFFIX
from unbroken.storage.lock import LOCK_FILES
from unbroken.storage.moved import looked_again
from unbroken.storage.stop_request import FILE as REQUEST

PACKING_LIST = "packed.json"  # in the run's own folder: what a file that travelled held
# Of a process here, or of an earlier journey.
NOT_THE_RUNS = {*LOCK_FILES, REQUEST, RESTORING, PACKING_LIST, BACKUP_LIST}
LEFT_BEHIND = (PARTIAL_SUFFIX, f".pth{GOING_SUFFIX}")  # by a write or a removal that was cut off
FOLDERS_LEFT_BEHIND = f"{SUFFIX}{GOING_SUFFIX}/"
LAST_RECORDS = ("metrics.jsonl", "journal.jsonl", "run.json")  # what says that there is a history comes after it


@dataclass(frozen=True, kw_only=True)
class FileStat:
    """What a file looks like from outside; a save always makes a new one."""

    size_bytes: int
    changed_ns: int


@dataclass(frozen=True, kw_only=True)
class ListedFile:
    """A file as it was when it was listed, by its path below the run's folder with `/`."""

    name: str
    stamp: FileStat
    inode: int

    @property
    def size_bytes(self) -> int:
        """How much it held."""
        return self.stamp.size_bytes


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """A checkpoint, with its manifest where it has one: `found` is its file, or the head of a folder with `shards`."""

    found: ListedFile
    shards: tuple[ListedFile, ...] = ()
    candidate: Candidate
    manifest_found: ListedFile | None


@dataclass(frozen=True, kw_only=True)
class Inventory:
    """All of a run; `checkpoints` with the furthest step first, `archive` with the journals of old histories last."""

    run: Path
    id: str
    layout: Layout
    checkpoints: tuple[CheckpointFile, ...]
    records: tuple[ListedFile, ...]
    others: tuple[ListedFile, ...]
    archive: tuple[ListedFile, ...]
    links: tuple[str, ...]  # that are not followed
    pointer: str  # the name that the run's own link says
    events: Sequence[Mapping[str, Any]] = field(repr=False)

    @property
    def all(self) -> tuple[ListedFile, ...]:
        """Every file."""
        return (*self.records, *_with_manifests(self.checkpoints), *self.others, *self.archive)


def inventory_of(run: Path) -> Inventory:
    """List a run's files; UsageError for a folder of something else, Refused while files are being moved in it."""
    if not run.is_dir():
        raise UsageError(run, "there is no such folder", expected="the folder of a run", do="See `unbroken ls ROOT`.")
    if not is_run(run):
        raise UsageError(run, "this is not the folder of a run", do="See `unbroken ls ROOT`.")
    try:
        return _inventory_of(run)
    except OSError as error:
        raise Refused(run, f"the run cannot be read ({error.strerror or error})", do="Look after its disk.") from error


def _inventory_of(run: Path) -> Inventory:
    view = RunView(run)
    layout = view.require_layout()
    require_reachable(run, view.unreachable)
    checkpoints = checkpoints_of(run, layout)  # before all others, see above
    if view.restoring is not None or view.history.archiving:
        raise Refused(
            run,
            "files are being moved here from one history to another, and half of two lie here",
            do="If nothing is at work here, run the command again that was cut off (`unbroken restore`, or the launch "
            "with --fresh); then this one.",
        )
    files, links = files_of(run, layout)
    taken = {item.name for item in _with_manifests(checkpoints)}
    in_archive, own_ones, of_manifests = (
        f"{folder}/" for folder in (ARCHIVE_FOLDER, OWN_FOLDER, manifests(run).relative_to(run).as_posix())
    )
    rest = [item for item in files if item.name not in taken and not item.name.startswith(of_manifests)]
    pointer = layout.checkpoints(run) / layout.pointer if layout.pointer else None
    return Inventory(
        run=run,
        id=view.record.id if view.record is not None else "",
        layout=layout,
        checkpoints=checkpoints,
        records=tuple(sorted((item for item in rest if item.name.startswith(own_ones)), key=_record_order)),
        others=tuple(item for item in rest if not item.name.startswith((own_ones, in_archive))),
        archive=tuple(sorted((item for item in rest if item.name.startswith(in_archive)), key=_archive_order)),
        links=links,
        pointer=str(pointer.readlink()) if pointer is not None and pointer.is_symlink() else "",
        events=view.events,
    )


def files_of(run: Path, layout: Layout) -> tuple[tuple[ListedFile, ...], tuple[str, ...]]:
    """A run's ordinary files, and the links that are not followed, each by name.

    The pointer is made again, and what was cut off is no file of the run.
    """
    links, files = list[str](), list[ListedFile]()
    for folder, name, facts in walk(str(run), (layout.checkpoint_folder,), links):
        kept_here = folder == OWN_FOLDER and name in NOT_THE_RUNS
        if SUFFIX in folder and any(is_cut_off(run / part) for part in (folder, *map(str, Path(folder).parents))):
            continue
        if not name.endswith(LEFT_BEHIND) and FOLDERS_LEFT_BEHIND not in f"{folder}/" and not kept_here:
            files.append(as_found(f"{folder}/{name}" if folder else name, facts))
    pointer = (layout.checkpoints(run) / layout.pointer).relative_to(run).as_posix() if layout.pointer else ""
    return tuple(sorted(files, key=lambda item: item.name)), tuple(sorted(set(links) - {pointer}))


def checkpoints_of(run: Path, layout: Layout) -> tuple[CheckpointFile, ...]:
    """The files of the checkpoint folder, the furthest step first."""
    listed_in, files = manifests(run), list[CheckpointFile]()
    for item in looked_again(run, lambda: list_candidates(layout.checkpoints(run), listed_in)):
        named = manifest_path(listed_in, item.name)
        *shards, found = (look(run, path) for path in files_in(item.path))
        if found is not None and None not in shards:
            listed = look(run, named) if named.is_file() else None
            whole = tuple(filter(None, shards))
            files.append(CheckpointFile(found=found, shards=whole, candidate=item, manifest_found=listed))
    return tuple(files)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, ours or of another program."""
    return read_record(folder) is not None or (own(folder) / "journal.jsonl").exists() or holds_run(str(folder)) is None


def look(run: Path, path: Path) -> ListedFile | None:
    """One file as it is now; None if it has just gone."""
    try:
        return as_found(path.relative_to(run).as_posix(), path.stat())
    except OSError:
        return None


def as_found(name: str, facts: os.stat_result) -> ListedFile:
    """A file of which the system says this."""
    return ListedFile(
        name=name, stamp=FileStat(size_bytes=facts.st_size, changed_ns=facts.st_mtime_ns), inode=facts.st_ino
    )


def stamp_of(path: Path) -> FileStat | None:
    """The stamp of an ordinary file; None where there is none, or something else (a link) has the name."""
    try:
        facts = path.lstat()
    except OSError:
        return None
    return as_found(path.name, facts).stamp if stat.S_ISREG(facts.st_mode) else None


def _with_manifests(checkpoints: Sequence[CheckpointFile]) -> list[ListedFile]:
    return [
        found for item in checkpoints for found in (*item.shards, item.found, item.manifest_found) if found is not None
    ]


def _record_order(item: ListedFile) -> tuple[int, str]:
    name = item.name.split("/", 1)[1]
    return (LAST_RECORDS.index(name) if name in LAST_RECORDS else -1), name


def _archive_order(item: ListedFile) -> tuple[bool, str]:
    return item.name.endswith("/journal.jsonl"), item.name
