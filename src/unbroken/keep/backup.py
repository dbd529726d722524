"""A backup: a mirror of a run that is itself a run, brought up to date by what has changed, each file read back.

The source is only read, and may be trained meanwhile. What is true at any instant: the mirror is empty, or a launch
that searches it finds a verified checkpoint there, and its records reach at least as far as its checkpoints (but
before its first records have come). So the order of one pass is

1. what retention removed at the source leaves, if two newer verified ones are in the mirror already (it makes room);
2. where the mirror has no checkpoint to continue from, the furthest one comes first, and its manifest;
3. what launches moved aside at the source is moved in the mirror too;
4. the records, the journal after the steps: they were listed after the checkpoints were, so they cover them;
5. the checkpoints, the furthest first, each with its manifest; then all other files; then the archive;
6. the pointer; then 1 again, and the list of what is held.

A kill between any two of these leaves what a killed session may leave too: records that know of more than there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unbroken.checkpoint.manifest import manifest_path, read_manifest
from unbroken.checkpoint.removal import finish_removal, leftovers, let_go
from unbroken.checkpoint.retention import NEVER_FEWER_THAN
from unbroken.clock import Clock
from unbroken.errors import DamagedFile, Refused
from unbroken.ids import free_name
from unbroken.keep.backup_list import BackupList, read_list, stamp_of, write_list
from unbroken.keep.copying import Copying, Moving, prefix_digest
from unbroken.keep.following import Mirrored, leaving, parting, removed_saves, set_aside
from unbroken.keep.inventory import NOT_THE_RUNS
from unbroken.keep.listing import Found, Listing, Point, list_run, points_of
from unbroken.run.bounds import require_inside
from unbroken.run.candidates import look_at
from unbroken.run.folder import walk
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, manifests, own
from unbroken.run.links import unreachable
from unbroken.run.record import read_record
from unbroken.run.survey import require_reachable
from unbroken.storage import PARTIAL_SUFFIX, Disk, durable_folder, point_to
from unbroken.storage.lock import kept_out
from unbroken.storage.moved import Moved

PASSES = 4  # over a run whose files change while they are read
METRICS = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class Backup:
    """What was done; `unsound` are files of the source that were not taken, `step` is where the mirror stands."""

    mirror: Path
    run: str
    step: int | None
    copied: Mapping[str, int]  # bytes by name
    kept: int
    removed: tuple[str, ...]
    moved: tuple[str, ...]
    unsound: Mapping[str, str]  # reasons by name
    links: tuple[str, ...]  # left out
    parted: tuple[str, ...] = ()  # where older records of the mirror are kept that the source does not continue


@dataclass(frozen=True, kw_only=True)
class Ways:
    """How a mirror is made: with the archive or not; with `anew`, all that is there is read again."""

    archive: bool = True
    anew: bool = False


def mirror(source: Path, target: Path, ways: Ways, *, disk: Disk, clock: Clock) -> Backup:
    """Bring `target`, which is of the same run or empty, up to date with `source`; nobody else writes it meanwhile.

    Raises Refused where the two have parted, where there is no room, and when the source never stands still.
    """
    listing = list_run(source)
    require_reachable(target, unreachable(target, listing.layout) if target.is_dir() else "")
    require_inside(target, listing.layout)
    require_same_run(listing, target)
    with _out_of_reach(target):
        durable_folder(disk, own(target))
        with kept_out(own(target)):
            require_same_run(listing, target)
            return _Mirroring(listing, target, ways, disk=disk, clock=clock).run()


def identity(run: Path) -> str | None:
    """The id of the run that lies in a folder, "" for one of another program; None where nothing lies."""
    listed, record = read_list(run), read_record(run)
    if record is not None:
        return record.id
    if listed is not None:
        return listed.run
    links = list[str]()
    for folder, name, _ in walk(str(run), (), links):
        if folder != OWN_FOLDER or name.removesuffix(PARTIAL_SUFFIX) not in NOT_THE_RUNS:
            return "?"
    return "?" if links else None


def require_same_run(listing: Listing, target: Path) -> None:
    """Raise Refused where the target holds something else, or what this run never was."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise Refused(target, "something that is no folder has this name", do="Move it away.")
    found, listed = identity(target), read_list(target)
    another = listing.id == "" and (listed is None or listed.source != str(listing.run.resolve()))
    if found is None:
        return
    if found != listing.id or another:
        raise Refused(
            target,
            "this holds something else, and nothing is written over it",
            expected=f"run {listing.id}" if listing.id else f"the backup of {listing.run}",
            found=f"run {found}" if found not in ("", "?") else "files of unknown origin",
            do=f"Name another folder, or move this one aside: mv {target} {target}_old"
            + (" (a launch with --fresh begins another run)." if found not in ("", "?") else "."),
        )
    _require_not_parted(listing, target)


def _require_not_parted(listing: Listing, target: Path) -> None:
    apart = parting(_journal(target), _journal(listing.run))
    sessions = sorted(session for session in apart.only_here if session)
    if apart.is_beginning or not sessions:
        return
    raise Refused(
        target,
        f"this knows of something that {listing.run} does not: the record of session {', '.join(sessions[:3])} "
        + ("goes further here" if not apart.only_there else "goes on another way here"),
        do=f"Bring it back (`unbroken restore DIR --from {target}`), or keep both: name another folder for the backup.",
    )


def _journal(run: Path) -> Path:
    return own(run) / "journal.jsonl"


@contextmanager
def _out_of_reach(target: Path) -> Iterator[None]:
    """Turn what the operating system says into a refusal that says how much room is left, and what to do."""
    try:
        yield
    except OSError as error:
        raise Refused(
            target,
            f"it could not be written ({error.strerror or error})",
            do="What was there is whole. Make room or make it reachable again, then run the same command again.",
        ) from error


@dataclass(kw_only=True)
class _Done:
    removed: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    parted: list[str] = field(default_factory=list)


class _Mirroring:
    """One call of `mirror`, which has the target to itself."""

    def __init__(self, listing: Listing, target: Path, ways: Ways, *, disk: Disk, clock: Clock) -> None:
        self._listing, self._target, self._ways = listing, target, ways
        self._disk, self._clock, self._done = disk, clock, _Done()
        listed = read_list(target)
        self._listed = listed or BackupList(run=listing.id, source=str(listing.run.resolve()))
        self._copying = Copying(disk, listing.run, target, self._listed.files, anew=ways.anew)

    def run(self) -> Backup:
        """As many passes as it takes until nothing changed while it was read."""
        if read_list(self._target) is None:
            self._write_list()  # whose mirror this is stands here before the first file does
        self._remove_partials()
        for left in reversed(range(PASSES)):
            self._copying.moving.clear()
            self._pass()
            if not self._copying.moving:
                self._require_as_far()
                return self._as_backup()
            if left:
                self._listing = list_run(self._listing.run)
                require_same_run(self._listing, self._target)  # another history may have taken its place meanwhile
        raise Refused(
            self._listing.run,
            f"its files change faster than they can be read ({', '.join(sorted(self._copying.moving)[:3])})",
            do="All others are in the backup. Run it again when the session has ended.",
        )

    def _pass(self) -> None:
        listing, take = self._listing, self._copying.take
        self._let_go()
        self._require_room()
        if not self._can_be_continued():
            next((point for point in listing.points if point.candidate.resumable and self._take_point(point)), None)
        self._follow_moves()
        for item in listing.records:
            self._keep_parted(item)
            take(item)
        for point in listing.points:
            self._take_point(point)
        for item in listing.others:
            take(item)
        for item in listing.archive if self._ways.archive else ():
            take(item, once=True)
        self._point()
        self._let_go()
        self._write_list()

    def _can_be_continued(self) -> bool:
        """Whether the mirror has a checkpoint, besides those that will be moved aside."""
        folder = self._listing.layout.checkpoints(self._target)
        going = {name for name, _ in self._moves()}
        mine = (item for item in self._mirrored(folder) if item.verified and item.kind == "checkpoint")
        held = (point for point in self._listing.points if self._copying.is_held(point.found))
        return any(item.name not in going for item in mine) or any(point.candidate.resumable for point in held)

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def _take_point(self, point: Point) -> bool:
        """A checkpoint if it is sound, then its manifest; what is large is noted at once."""
        before = len(self._copying.copied)
        if not self._copying.take(point.found, lambda digest: self._why_unsound(point, digest), still=True):
            return False
        if point.manifest_found is not None:
            self._copying.take(point.manifest_found, still=True)
        if len(self._copying.copied) > before:
            self._write_list()
        return True

    def _why_unsound(self, point: Point, digest: str) -> str:
        """What is wrong with a checkpoint of this digest: it is as its manifest says, or judged by its content."""
        if point.manifest is not None and point.manifest.sha256 == digest:
            return ""
        try:
            seen = look_at(point.candidate.path, manifests(self._listing.run))
        except Moved:
            raise Moving from None
        return "" if seen.state in ("good", "newer") else f"damaged: {seen.reason}"

    def _let_go(self) -> None:
        """Let go of what retention removed at the source."""
        layout = self._listing.layout
        folder = layout.checkpoints(self._target)
        mirrored = list(self._mirrored(folder))
        if sum(item.verified and item.kind == "checkpoint" for item in mirrored) >= NEVER_FEWER_THAN:
            for name in leftovers(folder, lambda name: layout.part_of(name)[0] != ""):
                finish_removal(self._disk, folder, name, manifests=manifests(self._target), record=_said)
        going = leaving(
            mirrored,
            at_source={point.candidate.name for point in self._listing.points},
            removed=removed_saves(self._listing.events),
        )
        for item in going:
            let_go(self._disk, folder, item.name, manifests=manifests(self._target), record=_said, reason="")
            for path in (folder / item.name, manifest_path(manifests(self._target), item.name)):
                self._copying.files.pop(path.relative_to(self._target).as_posix(), None)
            self._done.removed.append(item.name)

    def _mirrored(self, folder: Path) -> Iterator[Mirrored]:
        for path in sorted(folder.glob("*.pth")):
            manifest = read_manifest(manifests(self._target), path.name)
            held = self._copying.files.get(path.relative_to(self._target).as_posix())
            if manifest is None or held is None or manifest.file != path.name:
                continue
            yield Mirrored(
                name=path.name,
                kind=manifest.kind,
                step=manifest.step,
                metric=manifest.metric or "",
                sha256=held.sha256,
                verified=held.sha256 == manifest.sha256 and held.copy == stamp_of(path),
            )

    def _follow_moves(self) -> None:
        """Move what launches moved aside at the source: what was superseded there is not continued from here."""
        folder = self._listing.layout.checkpoints(self._target)
        for name, to in self._moves():
            path, place = folder / name, self._target / to
            durable_folder(self._disk, place.parent)
            self._disk.rename(path, place)
            for touched in (path.parent, place.parent):
                self._disk.sync_folder(touched)
            self._copying.files[to] = self._copying.files.pop(path.relative_to(self._target).as_posix())
            self._done.moved.append(name)

    def _moves(self) -> list[tuple[str, str]]:
        """The files of the mirror that still lie where they lay at the source, with their place in the archive."""
        folder, found = self._listing.layout.checkpoints(self._target), dict[str, str]()
        at_source = {point.found.name: point.found for point in self._listing.points}
        for name, to in set_aside(self._listing.events):
            path = folder / name
            key = path.relative_to(self._target).as_posix()
            held, there = self._copying.files.get(key), at_source.get(key)
            if held is None or stamp_of(path) != held.copy or (there is not None and held.source == there.stamp):
                continue
            if (self._listing.run / to).is_file() and not (self._target / to).exists():
                found[name] = to
        return list(found.items())

    # -- records and the rest ----------------------------------------------------------------------------------------

    def _keep_parted(self, item: Found) -> None:
        """Keep a record of the mirror that is not the beginning of the source's: steps that a crash undid there."""
        path = self._target / item.name
        here = stamp_of(path)
        grows = path in (_journal(self._target), own(self._target) / METRICS)
        if here is None or not grows or self._copying.is_held(item):
            return
        size = here.size_bytes
        if prefix_digest(self._listing.run / item.name, size) == prefix_digest(path, size):
            return
        taken = {folder.name for folder in (self._target / ARCHIVE_FOLDER).glob("*")}
        aside = f"{ARCHIVE_FOLDER}/{free_name(self._clock.now(), taken)}/{path.name}"
        durable_folder(self._disk, (self._target / aside).parent)
        self._disk.rename(path, self._target / aside)
        self._disk.sync_folder((self._target / aside).parent)
        self._copying.files.pop(item.name, None)
        self._done.parted.append(aside)

    def _point(self) -> None:
        """Make the run's link again, where the file system has links."""
        pointer = self._listing.layout.checkpoints(self._target) / self._listing.layout.pointer
        name = self._listing.pointer
        if not name or Path(name).name != name or not (pointer.parent / name).is_file():
            return
        if not pointer.is_symlink() or pointer.readlink() != Path(name):
            point_to(self._disk, pointer, name)

    def _require_room(self) -> None:
        """Refuse before copying what cannot fit; what may be the same already counts nothing."""
        archive = {item.name for item in self._listing.archive}
        needed = 0
        for item in self._listing.all:
            here = stamp_of(self._target / item.name)
            left_out = item.name in archive and (here is not None or not self._ways.archive)
            if not left_out and (here is None or here.size_bytes != item.stamp.size_bytes):
                needed += item.stamp.size_bytes
        free = self._disk.free_bytes(self._target)
        if needed > free:
            raise Refused(
                self._target,
                f"there is no room for what is missing here: {needed - free:,} bytes more are needed",
                expected=f"{needed:,} bytes",
                found=f"{free:,} bytes free",
                do="What was here is whole. Make room, or name another folder.",
            )

    def _remove_partials(self) -> None:
        for path in sorted(self._target.rglob(f"*{PARTIAL_SUFFIX}")):
            if path.is_file() and not path.is_symlink():
                with suppress(FileNotFoundError):
                    self._disk.remove(path)

    def _write_list(self) -> None:
        self._listed = replace(self._listed, run=self._listing.id, files=dict(self._copying.files))
        write_list(self._disk, self._target, self._listed)

    def _require_as_far(self) -> None:
        """Raise DamagedFile unless the mirror, as it lies there now, can be continued where the source can."""
        sound = [point for point in self._listing.points if point.found.name not in self._copying.unsound]
        here, there = (
            max((item.step for item in items if item.resumable and item.state != "damaged"), default=-1)
            for items in (
                [point.candidate for point in sound],
                [point.candidate for point in points_of(self._target, self._listing.layout)],
            )
        )
        if there < here:
            raise DamagedFile(
                self._target,
                f"the checkpoint of step {here} did not arrive: what is here goes on from "
                + (f"step {there}" if there >= 0 else "nothing"),
                do="The disk there may be failing: look after it, then run the same command again.",
            )

    def _as_backup(self) -> Backup:
        copying, listing = self._copying, self._listing
        good = [p.candidate.step for p in listing.points if p.candidate.resumable and copying.is_held(p.found)]
        mine = self._mirrored(listing.layout.checkpoints(self._target))
        good += [item.step for item in mine if item.verified and item.kind == "checkpoint"]
        return Backup(
            mirror=self._target,
            run=listing.id,
            step=max(good, default=None),
            copied=dict(copying.copied),
            kept=len(copying.kept - copying.copied.keys()),
            removed=tuple(self._done.removed),
            moved=tuple(self._done.moved),
            unsound=dict(copying.unsound),
            links=listing.links,
            parted=tuple(self._done.parted),
        )


def _said(*_event: Any, **_facts: Any) -> None:
    """The source's journal, which comes along, says why a file was removed."""
