"""Packing a run into one file that travels, and making sure that it is whole; the run is only read, and not locked.

What goes in is a pure choice among its files, each with the reason it stays behind. The *minimum* is what a run can be
continued from without losing its history: the newest verified checkpoint, the best weights, the records, and the
curves of all sessions. When a parcel is too large, what is least needed goes first: older checkpoints (the oldest
first), then pictures and results, then logs and files of sessions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path

from unbroken.checkpoint.sharded import SUFFIX as SHARDED
from unbroken.checkpoint.sharded import files_in
from unbroken.clock import Clock, utc_text
from unbroken.errors import DamagedFile, Refused, RunHeld, UsageError
from unbroken.ids import why_unsafe
from unbroken.keep.inventory import ListedFile, files_of, look
from unbroken.keep.packed import FORMAT, ChangedMeanwhile, PackingList, check_packed, write_packed
from unbroken.run.candidates import Candidate, confirm
from unbroken.run.folder import checkpoint_files
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, Layout, own
from unbroken.run.record import layout_of
from unbroken.run.survey import Survey, require_reachable, survey
from unbroken.storage import PARTIAL_SUFFIX, Disk, WritableFile, durable_folder, durable_write, explained
from unbroken.storage.file_lock import FileLock, LockHeld
from unbroken.storage.lock import GRACE_S
from unbroken.storage.moved import Moved, looked_again
from unbroken.text import as_bytes

ATTEMPTS = 4
SUFFIX = ".zip"
EVENTS = ".tfevents."  # TensorBoard's, also where a run's record is older than its curves
TEXTS = (".log", ".txt", ".json", ".jsonl", ".py", ".yaml", ".yml")
ENTRY_BYTES = 400  # most that a file costs besides its bytes and its name: two zip headers and its line in the list
NAME_COPIES = 4  # its name stands in both headers and, perhaps with escapes, in the list
HEAD_BYTES = 4096  # of the list itself


class Need(IntEnum):
    """How much a file is needed, the most needed first; OLDER is dropped before RESULTS before SESSION."""

    NEWEST = 0
    RECORD = 1
    BEST = 2
    CURVE = 3
    SESSION = 4
    RESULT = 5
    OLDER = 6
    ARCHIVE = 7
    UNSOUND = 8
    LINK = 9


MINIMUM = (Need.NEWEST, Need.RECORD, Need.BEST, Need.CURVE)
VERIFIED = (Need.NEWEST, Need.OLDER, Need.BEST)
WORDS = {
    Need.NEWEST: "the newest verified checkpoint",
    Need.RECORD: "records",
    Need.BEST: "best weights",
    Need.CURVE: "scalars and curves",
    Need.SESSION: "logs and files of sessions",
    Need.RESULT: "pictures and results",
    Need.OLDER: "older checkpoints",
    Need.ARCHIVE: "the archive",
    Need.UNSOUND: "files that are damaged, changed while they were read, or of another run",
    Need.LINK: "links",
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """A file of the run, by its path below the run's folder with `/`; `step` orders the checkpoints."""

    name: str
    size_bytes: int
    need: Need
    step: int = 0
    reason: str = ""  # why it is unsound, or a link
    files: tuple[tuple[str, int], ...] = ()  # of a folder of shards, which goes in as a whole: names and sizes


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file that stays behind, and why."""

    item: Item
    reason: str


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """The choice; it `fits` unless even the minimum is larger than what was allowed."""

    taken: tuple[Item, ...]
    left_out: tuple[LeftOut, ...]
    fits: bool

    @property
    def size_bytes(self) -> int:
        """At most so large will the file be."""
        return _parcel_bytes(self.taken)


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A packed run that was written and read back."""

    path: Path
    size_bytes: int
    listed: PackingList
    parcel: Parcel


def pack(
    run: Path, out: Path, *, minimal: bool = False, most_bytes: int | None = None, disk: Disk, clock: Clock
) -> Packed:
    """Write the run into one file and read it back; Refused when nothing can be continued or it does not fit.

    Where a live process replaces a file meanwhile, it is all done again; a file that never stands still stays behind.
    """
    layout, unsound = layout_of(run), dict[str, str]()

    def looked() -> tuple[Mapping[str, ListedFile], Survey, tuple[Item, ...]]:
        folder = layout.checkpoints(run)
        paths = [each for path in checkpoint_files(folder, run) for each in files_in(path)]
        seen = {found.name: found for path in paths if (found := look(run, path))}  # then verified
        facts = survey(run, layout)
        _require_continuable(facts)
        return seen, facts, _items(facts, layout, unsound=unsound)

    for attempt in range(1, ATTEMPTS + 1):
        seen, facts, items = looked_again(run, looked)
        parcel = choose(items, minimal=minimal, most_bytes=most_bytes)
        if not parcel.fits:
            raise _too_large(run, parcel, most_bytes)
        _require_continued(facts, {name for item in parcel.taken for name, _ in _files_in(item)})
        try:
            with _alone(run, out, facts, disk=disk, clock=clock) as path:
                return _write(path, facts, parcel, seen, disk=disk, clock=clock)
        except ChangedMeanwhile as changed:
            if attempt > 1:
                unsound[changed.name] = "it changed each time while it was read"
    raise Refused(run, "its files change faster than they can be read", do="Pack it when the session has ended.")


# -- what there is, and how much it is needed ------------------------------------------------------------------------


def _items(facts: Survey, layout: Layout, *, unsound: Mapping[str, str]) -> tuple[Item, ...]:
    """The files of a run; every checkpoint that may go in is verified first. `unsound` adds files with a reason.

    Raises Moved where one is removed or replaced in this moment.
    """
    run = facts.directory
    candidates = {item.path: _verified(item, layout) for item in facts.candidates}
    items, taken = list[Item](), set[str]()
    files, links = files_of(run, layout)
    for item in _as_wholes(files, [path.relative_to(run).as_posix() for path in candidates], layout):
        if (candidate := candidates.get(run / item.name)) is not None:
            need, reason = _need_of_checkpoint(candidate, facts)
            item = replace(item, step=max(candidate.step, 0), need=need, reason=reason)
        why = unsound.get(item.name) or why_unsafe(item.name)
        if why or item.name.casefold() in taken:
            item = replace(item, need=Need.UNSOUND, reason=why or "another file has this name in other letters")
        taken.add(item.name.casefold())
        items.append(item)
    items += [Item(name=name, size_bytes=0, need=Need.LINK, reason="a link that is not followed") for name in links]
    return tuple(items)


def _as_wholes(files: Sequence[ListedFile], checkpoints: Sequence[str], layout: Layout) -> Iterator[Item]:
    """The files one by one, those of a folder of shards as one."""
    shards: dict[str, list[ListedFile]] = {name: [] for name in checkpoints if name.endswith(SHARDED)}
    for found in files:
        folder = next((name for name in shards if found.name.startswith(f"{name}/")), None)
        if folder is not None:
            shards[folder].append(found)
        else:
            yield Item(name=found.name, size_bytes=found.size_bytes, need=_need_of_name(found.name, layout))
    for name, inside in shards.items():
        each = tuple((found.name, found.size_bytes) for found in inside)
        yield Item(name=name, size_bytes=sum(size for _, size in each), need=Need.RESULT, files=each)


def _verified(item: Candidate, layout: Layout) -> Candidate:
    try:
        return confirm(item, layout)
    except Moved:
        if not item.path.exists():
            raise
        return replace(item, state="damaged", reason="it changed each time while it was read")


def _need_of_checkpoint(candidate: Candidate, facts: Survey) -> tuple[Need, str]:
    if candidate.state == "damaged":
        return Need.UNSOUND, f"damaged: {candidate.reason}"
    if candidate.resumable:
        newest = facts.newest_good
        if not facts.owns(candidate):
            return Need.UNSOUND, "of another run"
        return (Need.NEWEST if newest and newest.path == candidate.path else Need.OLDER), ""
    is_ours = facts.record is None or candidate.run == facts.record.id
    return (Need.BEST if candidate.kind == "weights" and is_ours else Need.RESULT), ""


def _need_of_name(name: str, layout: Layout) -> Need:
    if name.startswith(f"{ARCHIVE_FOLDER}/"):
        return Need.ARCHIVE
    if name.startswith(f"{OWN_FOLDER}/"):
        return Need.RECORD
    folders = tuple(f"{folder}/" for folder in (layout.curves, layout.evaluation_curves) if folder)
    if name == layout.run_scalars or EVENTS in Path(name).name or name.startswith(folders):
        return Need.CURVE
    return Need.SESSION if Path(name).suffix in TEXTS else Need.RESULT


# -- what goes in ----------------------------------------------------------------------------------------------------


def choose(items: Sequence[Item], *, minimal: bool, most_bytes: int | None) -> Parcel:
    """Choose what goes in; golden-simple: by need, and then while it is too large, the least needed first."""
    wanted, left_out = [], []
    for item in sorted(items, key=lambda item: (item.need, -item.step, item.name)):
        if reason := _never(item, minimal=minimal):
            left_out.append(LeftOut(item=item, reason=reason))
        else:
            wanted.append(item)
    while most_bytes is not None and wanted and _parcel_bytes(wanted) > most_bytes and wanted[-1].need not in MINIMUM:
        left_out.append(LeftOut(item=wanted.pop(), reason="for want of room"))
    fits = most_bytes is None or _parcel_bytes(wanted) <= most_bytes
    return Parcel(taken=tuple(wanted), left_out=tuple(left_out), fits=fits)


def _never(item: Item, *, minimal: bool) -> str:
    if item.need in (Need.UNSOUND, Need.LINK):
        return item.reason
    if item.need is Need.ARCHIVE:
        return "the archive stays behind"
    return "not of the minimum" if minimal and item.need not in MINIMUM else ""


def _parcel_bytes(items: Sequence[Item]) -> int:
    """The most bytes that a file with these items can have."""
    files = [each for item in items for each in _files_in(item)]
    return HEAD_BYTES + sum(size + ENTRY_BYTES + NAME_COPIES * len(as_bytes(name)) for name, size in files)


def _files_in(item: Item) -> Sequence[tuple[str, int]]:
    return item.files or ((item.name, item.size_bytes),)


def by_need(items: Sequence[Item]) -> dict[Need, tuple[int, int]]:
    """How many files of each need there are, and their bytes."""
    found: dict[Need, tuple[int, int]] = {}
    for item in sorted(items, key=lambda item: item.need):
        count, size_bytes = found.get(item.need, (0, 0))
        found[item.need] = (count + 1, size_bytes + item.size_bytes)
    return found


# -- the file --------------------------------------------------------------------------------------------------------


@contextmanager
def _alone(run: Path, out: Path, facts: Survey, *, disk: Disk, clock: Clock) -> Iterator[Path]:
    """The file to write, which no other process writes; RunHeld where one does, and goes on doing so."""
    path = _target(run, out, facts)
    with explained(disk, path, "the run could not be packed"):
        durable_folder(disk, path.parent)
        lock = FileLock(path.with_name(path.name + PARTIAL_SUFFIX), clock)
        try:
            lock.acquire(wait_s=GRACE_S)
        except LockHeld:
            raise RunHeld(path, "another process packs a run into this file", do="Choose another name.") from None
    try:
        if path.exists():  # it was waited for
            raise _there_already(path)
        yield path
    finally:
        try:
            if lock.is_ours():  # nothing came of it
                disk.remove(lock.path)
        finally:
            lock.release()


def _write(
    path: Path, facts: Survey, parcel: Parcel, seen: Mapping[str, ListedFile], *, disk: Disk, clock: Clock
) -> Packed:
    newest, record = _newest(facts), facts.record
    said = newest.inside.get("run")
    stamped: Mapping[str, object] = said if isinstance(said, Mapping) else {}
    folder = facts.directory.resolve().name
    head = PackingList(
        format=FORMAT,
        folder=folder if not why_unsafe(folder) else "run",
        run=record.id if record else newest.run,
        recipe=record.recipe if record else str(stamped.get("recipe", "")),
        tag=record.tag if record else str(stamped.get("tag", "")),
        step=newest.step,
        packed=utc_text(clock.now()),
        files=(),
    )
    files = [each for item in parcel.taken for each in _files_in(item)]
    still = {name: seen.get(name) for item in parcel.taken if item.need in VERIFIED for name, _ in _files_in(item)}

    def fill(file: WritableFile) -> None:
        write_packed(file, facts.directory, files, head, still=still)

    with explained(disk, path, f"the run could not be packed into {parcel.size_bytes:,} bytes"):
        durable_write(disk, path, fill)
    try:
        listed = check_packed(path)
        _require_continued(facts, {item.name for item in listed.files})
    except DamagedFile:
        disk.remove(path)
        raise
    return Packed(path=path, size_bytes=path.stat().st_size, listed=listed, parcel=parcel)


def _target(run: Path, out: Path, facts: Survey) -> Path:
    """The file to write: `out`, or in a folder a name that tells run and step; nothing is ever replaced."""
    if out.is_dir():
        stem = f"{run.resolve().name}_step_{_newest(facts).step}"
        names = (f"{stem}{f'_{number}' if number > 1 else ''}{SUFFIX}" for number in range(1, 10_000))
        out = next(out / name for name in names if not (out / name).exists())
    if out.exists():
        raise _there_already(out)
    if out.resolve().is_relative_to(run.resolve()):
        raise UsageError(out, "this lies in the run itself", do="Choose a place outside of it.")
    return out


def _there_already(path: Path) -> UsageError:
    return UsageError(path, "this file is there already", do="Choose another name, or name a folder.")


def _require_continuable(facts: Survey) -> None:
    run = facts.directory
    require_reachable(run, facts.unreachable)
    if facts.restoring is not None or facts.archiving:
        raise Refused(
            run,
            "files are being moved here, and that was cut off: half of two histories lie here",
            do="Run the command again that was cut off (`unbroken restore` or the launch with --fresh), then pack.",
        )
    _newest(facts)


def _newest(facts: Survey) -> Candidate:
    """The checkpoint to continue from; raises what is amiss where there is none."""
    run = facts.directory
    if facts.newest_good is not None:
        return facts.newest_good
    if facts.has_history:
        raise DamagedFile(run, "no checkpoint here is sound", do=f"See `unbroken verify {run}`.")
    raise Refused(run, "nothing was saved here yet: there is nothing to continue from", do="Pack it after a save.")


def _require_continued(facts: Survey, names: Collection[str]) -> None:
    """Raise DamagedFile unless the run goes on from these files as far as from where it lies, as the same run."""
    run, newest = facts.directory, _newest(facts)
    records = (own(run) / name for name in ("run.json", "journal.jsonl", "metrics.jsonl"))
    needed = [*files_in(newest.path), *(path for path in records if path.is_file())]
    missing = [name for path in needed if (name := path.relative_to(run).as_posix()) not in names]
    if missing:
        raise DamagedFile(
            run,
            f"a packed run without {', '.join(missing)} could not be continued at step {newest.step}, and was not kept",
            do="Is it a link, or does another file have this name in other letters? Put the file itself there.",
        )


def _too_large(run: Path, parcel: Parcel, most_bytes: int | None) -> Refused:
    sizes = ", ".join(f"{WORDS[need]} {size:,}" for need, (_, size) in by_need(parcel.taken).items())
    least = "the minimum" if all(item.need in MINIMUM for item in parcel.taken) else "it"
    return Refused(
        run,
        f"{least} does not fit: {sizes} bytes",
        expected=f"at most {most_bytes or 0:,} bytes",
        found=f"{parcel.size_bytes:,} bytes",
        do="Allow more with --max-size. Nothing was written.",
    )
