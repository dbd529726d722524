"""A run restored from a backup: whole where nothing is, and else only what is missing or damaged.

A whole run is built beside its place, under a name that nothing takes for a run, and moved there when it is complete.
Into a run that is there, records come first, then the checkpoints, the furthest first: a kill in between leaves a run
that knows of more than it has, as a killed session does. Killed anywhere, the same command goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unbroken.checkpoint.sharded import head_of
from unbroken.clock import Clock
from unbroken.errors import DamagedFile, Refused
from unbroken.ids import free_name
from unbroken.journal import NO_SESSION, Journal
from unbroken.journal.events import FileSaved, Removed
from unbroken.keep.backup import GROWING, mirror
from unbroken.keep.destination import beside, is_vacant, owned
from unbroken.keep.inventory import CheckpointFile, Inventory, ListedFile, checkpoints_of, inventory_of, stamp_of
from unbroken.keep.sync import Divergence, Sync, divergence, is_beginning, require_room, set_aside
from unbroken.run.candidates import look_at
from unbroken.run.folder import FOLDERS, require_inside, unreachable
from unbroken.run.layout import ARCHIVE_FOLDER, BACKUP_LIST, OWN_FOLDER, manifests, own
from unbroken.run.record import layout_of, read_record
from unbroken.run.survey import Survey, require_reachable, survey
from unbroken.storage import Disk, durable_folder, explained
from unbroken.storage.digest import is_of
from unbroken.storage.lock import RunLock
from unbroken.storage.moved import Moved, looked_again

RECORD = f"{OWN_FOLDER}/run.json"


@dataclass(frozen=True, kw_only=True)
class Restored:
    """What was brought from where; `notes` are things that were found and left as they are."""

    run: Path
    source: Path
    whole: bool  # nothing was there before
    brought: Mapping[str, int]  # bytes by name
    aside: tuple[str, ...] = ()  # damaged or older files, by their new place
    unsound: Mapping[str, str]  # files of the backup that are damaged, with the reason
    notes: tuple[str, ...] = ()
    facts: Survey


def restore_from(run: Path, source: Path, *, disk: Disk, clock: Clock) -> Restored:
    """Bring the run in a backup to its place; Refused where something else, or something newer, is there."""
    require_reachable(run, unreachable(run, layout_of(source)))
    while is_vacant(run):
        try:
            return _restore_whole(run, source, disk=disk, clock=clock)
        except Refused:
            if is_vacant(run):
                raise  # else somebody else has put something there meanwhile
    inventory = inventory_of(source)
    require_inside(run, inventory.layout)
    _require_same(run, inventory)
    with explained(disk, run, "the run could not be brought back"):
        durable_folder(disk, own(run))
        lock = RunLock(disk, own(run), clock)
        lock.acquire("restore")
        try:
            mending = _Mending(run, inventory, disk=disk, clock=clock)
            looked_again(source, mending.run)
        finally:
            lock.withdraw()
    return Restored(
        run=run,
        source=source,
        whole=False,
        brought=dict(mending.sync.copied),
        aside=tuple(mending.aside),
        unsound=dict(mending.sync.unsound),
        notes=tuple(mending.notes),
        facts=survey(run, layout_of(run)),
    )


def _restore_whole(run: Path, source: Path, *, disk: Disk, clock: Clock) -> Restored:
    building = beside(run)
    with (
        explained(disk, run, "the run could not be brought back"),
        owned(run, "restore", disk=disk, clock=clock) as move_in,
    ):
        done = mirror(source, building, disk=disk, clock=clock)
        facts = survey(building, layout_of(building), is_copy=True)
        if facts.has_history and facts.newest_good is None:
            raise DamagedFile(source, "no checkpoint in this backup is sound", do=f"See `unbroken verify {source}`.")
        disk.remove(own(building) / BACKUP_LIST)
        move_in(building)
    facts = survey(run, layout_of(run))
    return Restored(run=run, source=source, whole=True, brought=done.copied, unsound=done.unsound, facts=facts)


def _require_same(run: Path, inventory: Inventory) -> Divergence:
    """Raise Refused where another run is here, or one that went another way; how the two journals differ."""
    wanted, source, record = inventory.id, inventory.run, read_record(run)
    here = checkpoints_of(run, layout_of(run)) if record is None else ()
    found = {record.id} if record is not None else {item.candidate.run for item in here} or {""}
    elsewhere = f"unbroken restore {run}_restored --from {source}"
    if found != {wanted} or not wanted:
        raise Refused(
            run,
            "something else is here, and nothing is written over it",
            expected=f"nothing, or run {wanted}" if wanted else "nothing: the backup is of another program",
            found=f"run {', '.join(sorted(found))}" if found - {""} else "files of unknown origin",
            do=f"Bring the backup to another folder ({elsewhere}), or move this one aside first.",
        )
    apart = divergence(run, source)
    mine, others = (sorted(item for item in only if item) for only in (apart.only_here, apart.only_there))
    if mine and others:
        raise Refused(
            run,
            f"this run and the backup went different ways: here is session {', '.join(mine[:3])}, "
            f"there is session {', '.join(others[:3])}",
            do=f"Nothing is mixed. To have both: {elsewhere}. What is here is untouched.",
        )
    return apart


class _Mending:
    """What is missing or damaged in a run that is there; its lock is ours."""

    def __init__(self, run: Path, inventory: Inventory, *, disk: Disk, clock: Clock) -> None:
        self._run, self._source, self._disk, self._clock = run, inventory.run, disk, clock
        self._inventory = inventory
        self.sync = Sync(disk, self._source, run, {}, linked={*FOLDERS, inventory.layout.checkpoint_folder})
        self.aside: list[str] = []
        self.notes: list[str] = []
        self._place = ""  # where what moves aside goes

    def run(self) -> None:
        """Compare, and bring: records, checkpoints, all other files, the archive, the pointer; Moved to do it again."""
        self._inventory = inventory = inventory_of(self._source)
        apart = _require_same(self._run, inventory)
        behind = not apart.only_here  # or as far: the journal comes first, and what follows it may have been cut off
        require_room(
            self._run,
            needed=sum(item.size_bytes for item in inventory.all if not (self._run / item.name).exists()),
            free=self._disk.free_bytes(self._run),
            what="for what is missing here",
            do="Make room. Nothing was changed.",
        )
        for item in inventory.records:
            self._take_record(item, behind=behind)
        gone = self._gone()
        for checkpoint in inventory.checkpoints:
            self._take_checkpoint(checkpoint, gone=gone, behind=behind)
        for item in (*inventory.others, *inventory.archive):
            if not (self._run / item.name).exists() or self._is_beginning(item):
                self.sync.take(item)
        if behind or not (inventory.layout.checkpoints(self._run) / inventory.layout.pointer).is_symlink():
            self.sync.point(inventory)
        if self.sync.moving:  # the backup is being brought up to date
            self.sync.moving.clear()
            raise Moved(self._source)
        journal_path = own(self._run) / "journal.jsonl"
        if self.sync.copied and journal_path.exists():
            journal = Journal(self._disk, journal_path, clock=self._clock, session=NO_SESSION)
            journal.write("brought back", source=str(self._source), files=sorted(self.sync.copied))
            journal.close()

    def _take_record(self, item: ListedFile, *, behind: bool) -> None:
        """A record that is missing, or the beginning of the backup's."""
        unreadable = item.name == RECORD and read_record(self._run) is None
        grows = item.name in GROWING
        if not (self._run / item.name).exists() or unreadable or (grows and self._is_beginning(item)):
            self.sync.take(item)
        elif grows and behind:
            self.notes.append(f"{item.name} is not the beginning of the backup's, and stays as it is")

    def _is_beginning(self, item: ListedFile) -> bool:
        here = stamp_of(self._run / item.name)
        is_longer = here is None or here.size_bytes > item.size_bytes
        return not is_longer and is_beginning(self._run / item.name, self._source / item.name)

    def _gone(self) -> set[str]:
        """What this run has let go of or set aside itself: it is not missing."""
        events = inventory_of(self._run).events
        gone = {name for name, _ in set_aside(events)}
        for event in events:
            match event:
                case Removed(file=str(file)):
                    gone.add(file)
                case FileSaved(file=file):
                    gone.discard(file)
        return gone

    def _take_checkpoint(self, item: CheckpointFile, *, gone: set[str], behind: bool) -> None:
        """A checkpoint that is missing; one that is damaged, or a rolling one of an earlier step, moves aside first."""
        listed, manifest = item.manifest_found, item.candidate.manifest
        path = self._run / item.candidate.path.relative_to(self._source)
        is_here = head_of(path).exists()
        if not is_here and path.name in gone:
            return
        if is_here:
            seen = look_at(path, manifests(self._run))
            rolls = self._inventory.layout.part_of(path.name)[0] == "rolling"
            older = behind and rolls and seen.step < item.candidate.step
            if seen.state != "damaged" and not older:
                if listed is None or manifest is None or (self._run / listed.name).exists():
                    return
                if is_of(head_of(path), manifest.digest):  # only the manifest is missing
                    self.sync.take(listed, still=True)
                return
        there = look_at(item.candidate.path, manifests(self._source))
        if there.state not in ("good", "newer"):
            self.sync.unsound[item.found.name] = f"damaged: {there.reason}"
            return
        if is_here:
            if not self._place:
                taken = {folder.name for folder in (self._run / ARCHIVE_FOLDER).glob("*")}
                self._place = f"{ARCHIVE_FOLDER}/{free_name(self._clock.now(), taken)}"
            self.sync.move(path, f"{self._place}/{path.name}")
            self.aside.append(f"{self._place}/{path.name}")
        self.sync.take_checkpoint(item)
