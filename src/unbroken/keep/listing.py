"""The files of a run in the order in which a backup takes them: looks only, and may be asked while the run is trained.

The checkpoints are listed before the records are: a record that is read later than the checkpoint was there covers all
the steps on the way to it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbroken.checkpoint.manifest import Manifest, manifest_path, read_manifest
from unbroken.errors import Refused, UsageError
from unbroken.journal import read_events
from unbroken.keep.backup_list import Stamp
from unbroken.keep.inventory import files_of
from unbroken.run.candidates import Candidate, list_candidates
from unbroken.run.layout import ARCHIVE_FOLDER, Layout, looks_like_a_run, manifests, own
from unbroken.run.links import unreachable
from unbroken.run.record import layout_of, read_record
from unbroken.run.survey import RESTORING, is_archiving, require_reachable
from unbroken.storage.moved import looked_again

LAST_RECORDS = ("metrics.jsonl", "journal.jsonl", "run.json")  # what says that there is a history comes after it


@dataclass(frozen=True, kw_only=True)
class Found:
    """A file as it was when it was listed, by its path below the run's folder with `/`."""

    name: str
    stamp: Stamp
    inode: int


@dataclass(frozen=True, kw_only=True)
class Point:
    """A file of the checkpoint folder, with its manifest where it has one."""

    found: Found
    candidate: Candidate
    manifest: Manifest | None
    manifest_found: Found | None


@dataclass(frozen=True, kw_only=True)
class Listing:
    """All of a run; `points` with the furthest step first, `archive` with the journals of old histories last."""

    run: Path
    id: str
    layout: Layout
    points: tuple[Point, ...]
    records: tuple[Found, ...]
    others: tuple[Found, ...]
    archive: tuple[Found, ...]
    links: tuple[str, ...]  # that are not followed
    pointer: str  # the name that the run's own link says
    events: Sequence[Mapping[str, Any]] = field(repr=False)

    @property
    def all(self) -> tuple[Found, ...]:
        """Every file."""
        told = [item for point in self.points for item in (point.found, point.manifest_found) if item is not None]
        return (*self.records, *told, *self.others, *self.archive)


def list_run(run: Path) -> Listing:
    """List a run's files; Refused while files are being moved from one history to another."""
    _require_run(run)
    try:
        return _listed(run)
    except OSError as error:
        raise Refused(run, f"the run cannot be read ({error.strerror or error})", do="Look after its disk.") from error


def _listed(run: Path) -> Listing:
    layout = layout_of(run)
    require_reachable(run, unreachable(run, layout))
    points = points_of(run, layout)
    events = read_events(own(run) / "journal.jsonl")
    _require_whole(run, events)
    record = read_record(run)
    taken = {item.name for point in points for item in (point.found, point.manifest_found) if item is not None}
    manifest_folder = manifests(run).relative_to(run).as_posix()
    files = files_of(run, layout)
    seen = (look(run, run / name) for name in files.sizes if name not in taken)
    found = [item for item in seen if item is not None]
    found = [item for item in found if not item.name.startswith(f"{manifest_folder}/")]
    own_ones = [item for item in found if item.name.startswith(f"{own(run).name}/")]
    archive = [item for item in found if item.name.startswith(f"{ARCHIVE_FOLDER}/")]
    pointer = layout.checkpoints(run) / layout.pointer if layout.pointer else None
    return Listing(
        run=run,
        id=record.id if record is not None else "",
        layout=layout,
        points=points,
        records=tuple(sorted(own_ones, key=_record_order)),
        others=tuple(item for item in found if item not in own_ones and item not in archive),
        archive=tuple(sorted(archive, key=_archive_order)),
        links=files.links,
        pointer=str(pointer.readlink()) if pointer is not None and pointer.is_symlink() else "",
        events=events,
    )


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run, ours or of another program."""
    return read_record(folder) is not None or (own(folder) / "journal.jsonl").exists() or looks_like_a_run(folder)


def look(run: Path, path: Path) -> Found | None:
    """One file as it is now; None if it has just gone."""
    try:
        facts = path.stat()
    except OSError:
        return None
    stamp = Stamp(size_bytes=facts.st_size, changed_ns=facts.st_mtime_ns)
    return Found(name=path.relative_to(run).as_posix(), stamp=stamp, inode=facts.st_ino)


def points_of(run: Path, layout: Layout) -> tuple[Point, ...]:
    """The files of the checkpoint folder, the furthest step first."""
    candidates = looked_again(run, lambda: list_candidates(layout.checkpoints(run), manifests(run)))
    return tuple(point for item in candidates if (point := _point(run, item)) is not None)


def _point(run: Path, candidate: Candidate) -> Point | None:
    manifest = read_manifest(manifests(run), candidate.name)
    found = look(run, candidate.path)
    if found is None:
        return None
    named = manifest_path(manifests(run), candidate.name)
    return Point(
        found=found,
        candidate=candidate,
        manifest=manifest if manifest is not None and manifest.file == candidate.name else None,
        manifest_found=look(run, named) if named.is_file() else None,
    )


def _record_order(item: Found) -> tuple[int, str]:
    name = item.name.split("/", 1)[1]
    return (LAST_RECORDS.index(name) if name in LAST_RECORDS else -1), name


def _archive_order(item: Found) -> tuple[bool, str]:
    return item.name.endswith("/journal.jsonl"), item.name


def _require_run(run: Path) -> None:
    if not run.is_dir():
        raise UsageError(run, "there is no such folder", expected="the folder of a run", do="See `unbroken ls ROOT`.")
    if not is_run(run):
        raise UsageError(run, "this is not the folder of a run", do="See `unbroken ls ROOT`.")


def _require_whole(run: Path, events: Sequence[Mapping[str, Any]]) -> None:
    if (own(run) / RESTORING).exists() or is_archiving(events):
        raise Refused(
            run,
            "files are being moved here from one history to another, and half of two lie here",
            do="If nothing is at work here, run the command again that was cut off (`unbroken restore`, or the launch "
            "with --fresh); then this one.",
        )
