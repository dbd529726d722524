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

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unbroken.checkpoint import NEVER_FEWER_THAN
from unbroken.checkpoint.manifest import manifest_path, read_manifest
from unbroken.checkpoint.removal import finish_removal, leftovers, let_go
from unbroken.checkpoint.sharded import files_in, head_of
from unbroken.clock import Clock
from unbroken.errors import DamagedFile, Refused
from unbroken.ids import free_name
from unbroken.journal.events import saved_digest
from unbroken.keep.destination import mirror_folder
from unbroken.keep.inventory import (
    NOT_THE_RUNS,
    CheckpointFile,
    Inventory,
    ListedFile,
    checkpoints_of,
    inventory_of,
    stamp_of,
)
from unbroken.keep.sync import (
    BackupList,
    Moving,
    Sync,
    divergence,
    is_beginning,
    read_list,
    require_room,
    set_aside,
    write_list,
)
from unbroken.run.candidates import look_at
from unbroken.run.folder import checkpoint_files, require_inside, unreachable, walk
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, manifests, own
from unbroken.run.record import read_record
from unbroken.run.survey import require_reachable
from unbroken.storage import PARTIAL_SUFFIX, Disk, durable_folder, is_ordinary
from unbroken.storage.digest import Digests
from unbroken.storage.lock import kept_out
from unbroken.storage.moved import Moved

PASSES = 4  # over a run whose files change while they are read
GROWING = (f"{OWN_FOLDER}/journal.jsonl", f"{OWN_FOLDER}/metrics.jsonl")


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


def back_up(run: Path, dest: Path, *, archive: bool = True, anew: bool = False, disk: Disk, clock: Clock) -> Backup:
    """Bring the mirror of a run below `dest` up to date, see `mirror`; `dest` is made where only it is missing."""
    target = mirror_folder(run, dest)
    if not dest.is_dir():
        try:
            durable_folder(disk, dest)
        except OSError as error:
            raise Refused(dest, f"the folder cannot be made ({error.strerror or error})", do="Name another.") from error
    return mirror(run, target, archive=archive, anew=anew, disk=disk, clock=clock)


# -- what may be written over, and what leaves: decided from records -------------------------------------------------


def mirror(source: Path, target: Path, *, archive: bool = True, anew: bool = False, disk: Disk, clock: Clock) -> Backup:
    """Bring `target`, which is of the same run or empty, up to date with `source`; nobody else writes it meanwhile.

    Without `archive`, old histories are left out; with `anew`, all that is there is read again. Raises Refused where
    the two have parted, where there is no room, and when the source never stands still.
    """
    inventory = inventory_of(source)
    require_reachable(target, unreachable(target, inventory.layout) if target.is_dir() else "")
    require_inside(target, inventory.layout)
    _require_same_run(inventory, target)
    try:
        durable_folder(disk, own(target))
        with kept_out(own(target)):
            _require_same_run(inventory, target)
            return _Mirroring(inventory, target, archive=archive, anew=anew, disk=disk, clock=clock).run()
    except OSError as error:
        raise Refused(
            target,
            f"it could not be written ({error.strerror or error})",
            do="What was there is whole. Make room or make it reachable again, then run the same command again.",
        ) from error


def _require_same_run(inventory: Inventory, target: Path) -> None:
    """Raise Refused where the target holds something else, or what this run never was."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise Refused(target, "something that is no folder has this name", do="Move it away.")
    found, listed = _identity(target), read_list(target)
    another = inventory.id == "" and (listed is None or listed.source != str(inventory.run.resolve()))
    if found is None:
        return
    if found != inventory.id or another:
        raise Refused(
            target,
            "this holds something else, and nothing is written over it",
            expected=f"run {inventory.id}" if inventory.id else f"the backup of {inventory.run}",
            found=f"run {found}" if found not in ("", "?") else "files of unknown origin",
            do=f"Name another folder, or move this one aside: mv {target} {target}_old"
            + (" (a launch with --fresh begins another run)." if found not in ("", "?") else "."),
        )
    apart = divergence(target, inventory.run)
    sessions = sorted(session for session in apart.only_here if session)
    if sessions and not apart.is_beginning:
        raise Refused(
            target,
            f"this knows of something that {inventory.run} does not: the record of session {', '.join(sessions[:3])} "
            + ("goes further here" if not apart.only_there else "goes on another way here"),
            do=f"Bring it back (`unbroken restore DIR --from {target}`), or keep both: name another folder for the "
            "backup.",
        )


def _identity(target: Path) -> str | None:
    """The id of the run that lies in a folder, "" for one of another program, "?" for what is no run; None for none."""
    listed, record = read_list(target), read_record(target)
    if record is not None:
        return record.id
    if listed is not None:
        return listed.run
    links = list[str]()
    for folder, name, _ in walk(str(target), (), links):
        if folder != OWN_FOLDER or name.removesuffix(PARTIAL_SUFFIX) not in NOT_THE_RUNS:
            return "?"
    return "?" if links else None


@dataclass(frozen=True, kw_only=True)
class Mirrored:
    """A checkpoint or a weights file in the mirror; `verified` since it was last written."""

    name: str
    kind: str
    step: int
    metric: str
    digest: str
    verified: bool


def removed_saves(events: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The names of the files that retention removed and nothing was saved under since, each with its digest."""
    saved: dict[str, str] = {}
    removed: dict[str, str] = {}
    for event in events:
        name = str(event.get("file"))
        match event.get("event"):
            case "saved":
                saved[name] = saved_digest(event)
                removed.pop(name, None)
            case "removed" if name in saved:
                removed[name] = saved[name]
    return removed


def leaving(
    mirrored: Sequence[Mirrored], *, at_source: Collection[str], removed: Mapping[str, str]
) -> tuple[Mirrored, ...]:
    """What may leave the mirror, the oldest first: what retention removed at the source, with two newer verified here.

    Of weights, one newer verified file by their metric is enough, and two verified states. What is gone at the source
    without a word in its journal was removed by hand and stays.
    """
    going = [item for item in mirrored if item.name not in at_source and removed.get(item.name) == item.digest]
    return tuple(item for item in sorted(going, key=lambda item: item.step) if _is_replaced(item, mirrored))


def _is_replaced(item: Mirrored, mirrored: Sequence[Mirrored]) -> bool:
    states = [other for other in mirrored if other.verified and other.kind == "checkpoint"]
    if item.kind == "checkpoint":
        return sum(other.step > item.step for other in states) >= NEVER_FEWER_THAN
    better = [other for other in mirrored if other.kind == item.kind and other.metric == item.metric]
    newer = any(other.verified and other.step > item.step for other in better)
    return newer and len(states) >= NEVER_FEWER_THAN


# -- bringing it up to date ------------------------------------------------------------------------------------------


class _Mirroring:
    """One call of `mirror`, which has the target to itself."""

    def __init__(
        self, inventory: Inventory, target: Path, *, archive: bool, anew: bool, disk: Disk, clock: Clock
    ) -> None:
        self._inventory, self._target, self._with_archive = inventory, target, archive
        self._disk, self._clock = disk, clock
        self._removed, self._moved, self._parted = list[str](), list[str](), list[str]()
        listed = read_list(target)
        self._listed = listed or BackupList(run=inventory.id, source=str(inventory.run.resolve()))
        self._sync = Sync(disk, inventory.run, target, self._listed.files, anew=anew)

    def run(self) -> Backup:
        """As many passes as it takes until nothing changed while it was read."""
        if read_list(self._target) is None:
            self._write_list()  # whose mirror this is stands here before the first file does
        for path in sorted(self._target.rglob(f"*{PARTIAL_SUFFIX}")):  # of a call that was cut off
            if path.is_file() and not path.is_symlink():
                with suppress(FileNotFoundError):
                    self._disk.remove(path)
        sync = self._sync
        for left in reversed(range(PASSES)):
            sync.moving.clear()
            self._pass()
            if not sync.moving:
                return self._done()
            if left:
                self._inventory = inventory_of(self._inventory.run)
                _require_same_run(self._inventory, self._target)  # another history may have taken its place meanwhile
        raise Refused(
            self._inventory.run,
            f"its files change faster than they can be read ({', '.join(sorted(sync.moving)[:3])})",
            do="All others are in the backup. Run it again when the session has ended.",
        )

    def _pass(self) -> None:
        """The six steps at the top of this file, in their order."""
        inventory, sync = self._inventory, self._sync
        self._let_go()
        self._require_room()
        if not self._can_be_continued():
            states = (item for item in inventory.checkpoints if item.candidate.resumable)
            next((item for item in states if self._take_checkpoint(item)), None)
        folder = inventory.layout.checkpoints(self._target)
        for name, to in self._moves():
            sync.move(folder / name, to)
            self._moved.append(name)
        for item in inventory.records:
            self._keep_parted(item)
            sync.take(item)
        for checkpoint in inventory.checkpoints:
            self._take_checkpoint(checkpoint)
        for item in inventory.others:
            sync.take(item)
        for item in inventory.archive if self._with_archive else ():
            sync.take(item, once=True)
        sync.point(inventory)
        self._let_go()
        self._write_list()

    def _write_list(self) -> None:
        self._listed = replace(self._listed, run=self._inventory.id, files=dict(self._sync.files))
        write_list(self._disk, self._target, self._listed)

    def _require_room(self) -> None:
        """Refuse before copying what cannot fit; what may be the same already counts nothing."""
        archive = {item.name for item in self._inventory.archive}
        needed = 0
        for item in self._inventory.all:
            here = stamp_of(self._target / item.name)
            left_out = item.name in archive and (here is not None or not self._with_archive)
            if not left_out and (here is None or here.size_bytes != item.size_bytes):
                needed += item.size_bytes
        require_room(
            self._target,
            needed=needed,
            free=self._disk.free_bytes(self._target),
            what="for what is missing here",
            do="What was here is whole. Make room, or name another folder.",
        )

    def _can_be_continued(self) -> bool:
        """Whether the mirror has a checkpoint, besides those that will be moved aside."""
        going = {name for name, _ in self._moves()}
        if any(item.name not in going for item in self._mirrored_states()):
            return True
        return any(item.candidate.resumable and self._sync.is_held(item.found) for item in self._inventory.checkpoints)

    def _take_checkpoint(self, item: CheckpointFile) -> bool:
        """A checkpoint, if it is as its manifest says or sound by its content; what is large is noted at once."""

        def why_unsound(digests: Digests) -> str:
            is_listed = item.candidate.manifest is not None and item.candidate.manifest.digest in digests.all
            if is_listed and not item.shards:
                return ""
            try:
                seen = look_at(item.candidate.path, manifests(self._inventory.run))
            except Moved:
                raise Moving from None
            return "" if seen.state in ("good", "newer") else f"damaged: {seen.reason}"

        before = len(self._sync.copied)
        taken = self._sync.take_checkpoint(item, why_unsound)
        if len(self._sync.copied) > before:
            self._write_list()
        return taken

    def _keep_parted(self, item: ListedFile) -> None:
        """Keep a record of the mirror that is not the beginning of the source's: steps that a crash undid there."""
        path = self._target / item.name
        if item.name not in GROWING or stamp_of(path) is None or self._sync.is_held(item):
            return
        if not is_beginning(path, self._inventory.run / item.name):
            taken = {folder.name for folder in (self._target / ARCHIVE_FOLDER).glob("*")}
            aside = f"{ARCHIVE_FOLDER}/{free_name(self._clock.now(), taken)}/{path.name}"
            self._sync.move(path, aside)
            self._parted.append(aside)

    def _let_go(self) -> None:
        """Let go of what retention removed at the source; its journal, which comes along, says why."""
        layout, listed_in = self._inventory.layout, manifests(self._target)
        folder = layout.checkpoints(self._target)
        if len(self._mirrored_states()) >= NEVER_FEWER_THAN:
            for name in leftovers(folder, lambda name: layout.part_of(name)[0] != ""):
                finish_removal(self._disk, folder, name, manifests=listed_in, record=_not_here)
        going = leaving(
            list(self._mirrored()),
            at_source={item.candidate.name for item in self._inventory.checkpoints},
            removed=removed_saves(self._inventory.events),
        )
        for item in going:
            let_go(self._disk, folder, item.name, manifests=listed_in, record=_not_here, reason="")
            for path in (folder / item.name, manifest_path(listed_in, item.name)):
                self._sync.forget(path)
            self._removed.append(item.name)

    def _mirrored_states(self) -> list[Mirrored]:
        return [item for item in self._mirrored() if item.verified and item.kind == "checkpoint"]

    def _mirrored(self) -> Iterator[Mirrored]:
        """The files of the mirror that have a manifest and are known from when they were read back."""
        for path in checkpoint_files(self._inventory.layout.checkpoints(self._target), self._target):
            manifest = read_manifest(manifests(self._target), path.name)
            held = self._sync.held(head_of(path))
            if manifest is not None and held is not None:
                yield Mirrored(
                    name=path.name,
                    kind=manifest.kind,
                    step=manifest.step,
                    metric=manifest.metric or "",
                    digest=manifest.digest if manifest.digest in held.digests else held.digests[0],
                    verified=manifest.digest in held.digests and all(map(self._sync.is_as_it_came, files_in(path))),
                )

    def _moves(self) -> list[tuple[str, str]]:
        """The files of the mirror that launches moved aside at the source, with their place in its archive.

        Only those that still lie here as they lay there: what was superseded there is not continued from here.
        """
        folder, found = self._inventory.layout.checkpoints(self._target), dict[str, str]()
        at_source = {item.found.name: item.found for item in self._inventory.checkpoints}
        for name, to in set_aside(self._inventory.events):
            head = head_of(folder / name)
            held, there = self._sync.held(head), at_source.get(head.relative_to(self._target).as_posix())
            is_as_it_lay = held is not None and stamp_of(head) == held.copy
            if not is_as_it_lay or (held is not None and there is not None and held.source == there.stamp):
                continue
            if is_ordinary(head_of(self._inventory.run / to)) and not (self._target / to).exists():
                found[name] = to
        return list(found.items())

    def _done(self) -> Backup:
        """What was done; DamagedFile unless the mirror, as it lies there now, can be continued where the source can."""
        sync, inventory = self._sync, self._inventory
        sound = [item.candidate for item in inventory.checkpoints if item.found.name not in sync.unsound]
        arrived = [item.candidate for item in checkpoints_of(self._target, inventory.layout)]
        here, there = (
            max((item.step for item in items if item.resumable and item.state != "damaged"), default=-1)
            for items in (sound, arrived)
        )
        if there < here:
            raise DamagedFile(
                self._target,
                f"the checkpoint of step {here} did not arrive: what is here goes on from "
                + (f"step {there}" if there >= 0 else "nothing"),
                do="The disk there may be failing: look after it, then run the same command again.",
            )
        held = (item for item in inventory.checkpoints if item.candidate.resumable and sync.is_held(item.found))
        steps = [*(item.candidate.step for item in held), *(item.step for item in self._mirrored_states())]
        return Backup(
            mirror=self._target,
            run=inventory.id,
            step=max(steps, default=None),
            copied=dict(sync.copied),
            kept=len(sync.kept - sync.copied.keys()),
            removed=tuple(self._removed),
            moved=tuple(self._moved),
            unsound=dict(sync.unsound),
            links=inventory.links,
            parted=tuple(self._parted),
        )


def _not_here(*_event: Any, **_facts: Any) -> None:
    """The journal of a mirror is the source's: nothing is recorded in it."""
