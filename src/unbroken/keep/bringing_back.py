"""Bringing a run back from a backup: whole where nothing is, and else only what is missing or damaged.

A whole run is built beside its place, under a name that nothing takes for a run, and moved there when it is complete.
Into a run that is there, records come first, then the checkpoints, the furthest first: a kill in between leaves a run
that knows of more than it has, as a killed session does. Killed anywhere, the same command goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unbroken.clock import Clock
from unbroken.errors import DamagedFile, Refused
from unbroken.ids import free_name
from unbroken.journal import NO_SESSION, Journal
from unbroken.keep.backup import METRICS, Ways, mirror
from unbroken.keep.backup_list import stamp_of
from unbroken.keep.copying import Copying, prefix_digest
from unbroken.keep.destination import beside, is_vacant, owned
from unbroken.keep.following import Parting, parting, set_aside
from unbroken.keep.listing import Found, Listing, Point, list_run, points_of
from unbroken.run.bounds import require_inside
from unbroken.run.candidates import look_at
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, manifests, own
from unbroken.run.links import FOLDERS, unreachable
from unbroken.run.names import BACKUP_LIST
from unbroken.run.record import layout_of, read_record
from unbroken.run.survey import Survey, require_reachable, survey
from unbroken.storage import Disk, durable_folder, explained, point_to
from unbroken.storage.digest import sha256_of
from unbroken.storage.lock import RunLock
from unbroken.storage.moved import Moved, looked_again

JOURNAL = f"{OWN_FOLDER}/journal.jsonl"
STEPS = f"{OWN_FOLDER}/{METRICS}"
RECORD = f"{OWN_FOLDER}/run.json"


@dataclass(frozen=True, kw_only=True)
class BroughtBack:
    """What was brought from where; `notes` are things that were found and left as they are."""

    run: Path
    source: Path
    whole: bool  # nothing was there before
    brought: Mapping[str, int]  # bytes by name
    aside: tuple[str, ...]  # damaged or older files, by their new place
    unsound: Mapping[str, str]  # files of the backup that are damaged, with the reason
    notes: tuple[str, ...]
    facts: Survey


def bring_back(run: Path, source: Path, *, disk: Disk, clock: Clock) -> BroughtBack:
    """Bring the run in a backup to its place; Refused where something else, or something newer, is there."""
    require_reachable(run, unreachable(run, layout_of(source)))
    while is_vacant(run):
        try:
            return _bring_whole(run, source, disk=disk, clock=clock)
        except Refused:
            if is_vacant(run):
                raise  # else somebody else has put something there meanwhile
    return _Mending(run, source, disk=disk, clock=clock).run()


# -- where nothing is ------------------------------------------------------------------------------------------------


def _bring_whole(run: Path, source: Path, *, disk: Disk, clock: Clock) -> BroughtBack:
    building = beside(run)
    with (
        explained(disk, run, "the run could not be brought back"),
        owned(run, "restore", disk=disk, clock=clock) as fill,
    ):
        done = mirror(source, building, Ways(), disk=disk, clock=clock)
        facts = survey(building, layout_of(building), is_copy=True)
        if facts.has_history and facts.newest_good is None:
            raise DamagedFile(source, "no checkpoint in this backup is sound", do=f"See `unbroken verify {source}`.")
        disk.remove(own(building) / BACKUP_LIST)
        fill(building)
    return BroughtBack(
        run=run,
        source=source,
        whole=True,
        brought=done.copied,
        aside=(),
        unsound=done.unsound,
        notes=(),
        facts=survey(run, layout_of(run)),
    )


# -- where the run is ------------------------------------------------------------------------------------------------


class _Mending:
    """One call of `bring_back` into a run that is there."""

    def __init__(self, run: Path, source: Path, *, disk: Disk, clock: Clock) -> None:
        self._run, self._source, self._disk, self._clock = run, source, disk, clock
        self._listing = list_run(source)
        self._copying = Copying(disk, source, run, {}, linked={*FOLDERS, self._listing.layout.checkpoint_folder})
        self._aside: list[str] = []
        self._notes: list[str] = []
        self._place = ""

    def run(self) -> BroughtBack:
        """Compare, then bring, with the run to itself."""
        require_inside(self._run, self._listing.layout)
        self._require_same()
        with explained(self._disk, self._run, "the run could not be brought back"):
            durable_folder(self._disk, own(self._run))
            lock = RunLock(self._disk, own(self._run), self._clock)
            lock.acquire("restore")
            try:
                looked_again(self._source, self._mend)
            finally:
                lock.withdraw()
        return BroughtBack(
            run=self._run,
            source=self._source,
            whole=False,
            brought=dict(self._copying.copied),
            aside=tuple(self._aside),
            unsound=dict(self._copying.unsound),
            notes=tuple(self._notes),
            facts=survey(self._run, layout_of(self._run)),
        )

    def _require_same(self) -> None:
        wanted, found = self._listing.id, _whose(self._run)
        elsewhere = f"unbroken restore {self._run}_restored --from {self._source}"
        if found != {wanted} or not wanted:
            raise Refused(
                self._run,
                "something else is here, and nothing is written over it",
                expected=f"nothing, or run {wanted}" if wanted else "nothing: the backup is of another program",
                found=f"run {', '.join(sorted(found))}" if found - {""} else "files of unknown origin",
                do=f"Bring the backup to another folder ({elsewhere}), or move this one aside first.",
            )
        apart = self._parting()
        mine, others = (sorted(item for item in only if item) for only in (apart.only_here, apart.only_there))
        if mine and others:
            raise Refused(
                self._run,
                f"this run and the backup went different ways: here is session {', '.join(mine[:3])}, "
                f"there is session {', '.join(others[:3])}",
                do=f"Nothing is mixed. To have both: {elsewhere}. What is here is untouched.",
            )

    def _parting(self) -> Parting:
        return parting(self._run / JOURNAL, self._source / JOURNAL)

    def _mend(self) -> None:
        self._listing = listing = list_run(self._source)
        self._require_same()
        apart = self._parting()
        behind = not apart.only_here  # or as far: the journal comes first, and what follows it may have been cut off
        self._require_room(listing)
        for item in listing.records:
            self._record(item, behind=behind)
        gone = self._gone()
        for point in listing.points:
            self._bring_point(point, gone=gone, behind=behind)
        for item in listing.others:
            self._rest(item)
        for item in listing.archive:
            self._rest(item)
        self._point(listing, behind=behind)
        if self._copying.moving:  # the backup is being brought up to date
            self._copying.moving.clear()
            raise Moved(self._source)
        self._record_it()

    def _record(self, item: Found, *, behind: bool) -> None:
        """A record that is missing, or the beginning of the backup's."""
        path = self._run / item.name
        unreadable = item.name == RECORD and read_record(self._run) is None
        grows = item.name in (JOURNAL, STEPS)
        if not path.exists() or unreadable or (grows and self._is_beginning(path, item)):
            self._copying.take(item)
        elif grows and behind:
            self._notes.append(f"{item.name} is not the beginning of the backup's, and stays as it is")

    def _is_beginning(self, path: Path, item: Found) -> bool:
        here = stamp_of(path)
        if here is None or here.size_bytes > item.stamp.size_bytes:
            return False
        return prefix_digest(path, here.size_bytes) == prefix_digest(self._source / item.name, here.size_bytes)

    def _gone(self) -> set[str]:
        """What this run has let go of or set aside itself: it is not missing."""
        events = list_run(self._run).events
        gone = {name for name, _ in set_aside(events)}
        for event in events:
            match event.get("event"):
                case "removed":
                    gone.add(str(event.get("file")))
                case "saved":
                    gone.discard(str(event.get("file")))
        return gone

    def _bring_point(self, point: Point, *, gone: set[str], behind: bool) -> None:
        """A checkpoint that is missing; one that is damaged, or a rolling one of an earlier step, moves aside first."""
        path = self._run / point.found.name
        if path.exists():
            seen = look_at(path, manifests(self._run))
            rolls = path.name == self._listing.layout.rolling_name
            older = behind and rolls and seen.step < point.candidate.step
            if seen.state != "damaged" and not older:
                self._manifest_of(path, point)
                return
        elif path.name in gone:
            return
        if not self._is_sound(point):
            return
        if path.exists():
            self._move_aside(path)
        if self._copying.take(point.found, still=True) and point.manifest_found is not None:
            self._copying.take(point.manifest_found, still=True)

    def _manifest_of(self, path: Path, point: Point) -> None:
        """Bring the manifest alone, where only that is missing."""
        listed, manifest = point.manifest_found, point.manifest
        if listed is None or manifest is None or (self._run / listed.name).exists():
            return
        if sha256_of(path) == manifest.sha256:
            self._copying.take(listed, still=True)

    def _is_sound(self, point: Point) -> bool:
        seen = look_at(point.candidate.path, manifests(self._source))
        if seen.state in ("good", "newer"):
            return True
        self._copying.unsound[point.found.name] = f"damaged: {seen.reason}"
        return False

    def _move_aside(self, path: Path) -> None:
        if not self._place:
            taken = {folder.name for folder in (self._run / ARCHIVE_FOLDER).glob("*")}
            self._place = f"{ARCHIVE_FOLDER}/{free_name(self._clock.now(), taken)}"
        target = self._run / self._place / path.name
        durable_folder(self._disk, target.parent)
        self._disk.rename(path, target)
        for folder in (path.parent, target.parent):
            self._disk.sync_folder(folder)
        self._aside.append(f"{self._place}/{path.name}")

    def _rest(self, item: Found) -> None:
        """Any other file: where it is missing, or the beginning of what the backup has."""
        path = self._run / item.name
        if not path.exists() or self._is_beginning(path, item):
            self._copying.take(item)

    def _point(self, listing: Listing, *, behind: bool) -> None:
        folder = listing.layout.checkpoints(self._run)
        name, pointer = listing.pointer, folder / listing.layout.pointer
        wanted = behind or not pointer.is_symlink()
        if name and Path(name).name == name and (folder / name).is_file() and wanted:
            point_to(self._disk, pointer, name)

    def _require_room(self, listing: Listing) -> None:
        missing = (item.stamp.size_bytes for item in listing.all if not (self._run / item.name).exists())
        needed, free = sum(missing), self._disk.free_bytes(self._run)
        if needed > free:
            raise Refused(
                self._run,
                "there is no room for what is missing here",
                expected=f"{needed:,} bytes",
                found=f"{free:,} bytes free",
                do="Make room. Nothing was changed.",
            )

    def _record_it(self) -> None:
        if not self._copying.copied or not (self._run / JOURNAL).exists():
            return
        journal = Journal(self._disk, self._run / JOURNAL, clock=self._clock, session=NO_SESSION)
        journal.write("brought back", source=str(self._source), files=sorted(self._copying.copied))
        journal.close()


def _whose(run: Path) -> set[str]:
    """The ids of the runs that files in a folder are of; "" where nothing says."""
    record = read_record(run)
    if record is not None:
        return {record.id}
    return {point.candidate.run for point in points_of(run, layout_of(run))} or {""}
