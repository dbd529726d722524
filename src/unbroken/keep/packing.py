"""Packing a run into one file, and making sure that it is whole; the run itself is only read, and not locked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from unbroken.clock import Clock, utc_text
from unbroken.errors import DamagedFile, Refused, RunHeld, UsageError
from unbroken.ids import why_unsafe
from unbroken.keep.inventory import inventory
from unbroken.keep.packed import (
    FORMAT,
    ChangedMeanwhile,
    Fingerprint,
    PackingList,
    check_packed,
    fingerprints,
    write_packed,
)
from unbroken.keep.parcel import MINIMUM, WORDS, Item, Parcel, by_need, choose
from unbroken.run.layout import Layout, own
from unbroken.run.record import layout_of
from unbroken.run.survey import Survey, require_reachable, survey
from unbroken.storage import PARTIAL_SUFFIX, Disk, WritableFile, durable_folder, durable_write, explained
from unbroken.storage.file_lock import FileLock, Held
from unbroken.storage.lock import GRACE_S
from unbroken.storage.moved import looked_again

ATTEMPTS = 4
SUFFIX = ".zip"


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked for: how much of the run, and how large the file may be."""

    minimal: bool = False
    most_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A packed run that was written and read back."""

    path: Path
    size_bytes: int
    listed: PackingList
    parcel: Parcel


def pack(run: Path, out: Path, wanted: Wanted, *, disk: Disk, clock: Clock) -> Packed:
    """Write the run into one file and read it back; Refused when nothing can be continued or it does not fit.

    Where a live process replaces a file meanwhile, it is all done again; a file that never stands still stays behind.
    """
    layout, unsound = layout_of(run), dict[str, str]()
    for attempt in range(1, ATTEMPTS + 1):
        seen, facts, items = looked_again(run, lambda: _looked(run, layout, unsound))
        parcel = choose(items, minimal=wanted.minimal, most_bytes=wanted.most_bytes)
        if not parcel.fits:
            raise _too_large(run, parcel, wanted)
        _require_continued(facts, {item.name for item in parcel.taken})
        try:
            with _alone(run, out, facts, disk=disk, clock=clock) as path:
                return _write(path, facts, parcel, seen, disk=disk, clock=clock)
        except ChangedMeanwhile as changed:
            if attempt > 1:
                unsound[changed.name] = "it changed each time while it was read"
    raise Refused(run, "its files change faster than they can be read", do="Pack it when the session has ended.")


def _looked(
    run: Path, layout: Layout, unsound: Mapping[str, str]
) -> tuple[Mapping[Path, Fingerprint], Survey, tuple[Item, ...]]:
    seen = fingerprints(layout.checkpoints(run))  # before they are verified
    facts = survey(run, layout)
    _require_continuable(facts)
    return seen, facts, inventory(facts, layout, unsound=unsound)


@contextmanager
def _alone(run: Path, out: Path, facts: Survey, *, disk: Disk, clock: Clock) -> Iterator[Path]:
    """The file to write, which no other process writes; RunHeld where one does, and goes on doing so."""
    path = _target(run, out, facts)
    with explained(disk, path, "the run could not be packed"):
        durable_folder(disk, path.parent)
        lock = FileLock(path.with_name(path.name + PARTIAL_SUFFIX), clock)
        try:
            lock.acquire(wait_s=GRACE_S)
        except Held:
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
    path: Path, facts: Survey, parcel: Parcel, seen: Mapping[Path, Fingerprint], *, disk: Disk, clock: Clock
) -> Packed:
    newest, record = facts.newest_good, facts.record
    assert newest is not None
    said = newest.inside.get("run")
    stamped: Mapping[str, object] = said if isinstance(said, Mapping) else {}
    head = PackingList(
        format=FORMAT,
        folder=facts.directory.resolve().name if not why_unsafe(facts.directory.resolve().name) else "run",
        run=record.id if record else newest.run,
        recipe=record.recipe if record else str(stamped.get("recipe", "")),
        tag=record.tag if record else str(stamped.get("tag", "")),
        step=newest.step,
        packed=utc_text(clock.now()),
        files=(),
    )

    def fill(file: WritableFile) -> None:
        write_packed(file, facts.directory, parcel.taken, head, seen=seen)

    with explained(disk, path, f"the run could not be packed into {parcel.size_bytes:,} bytes"):
        durable_write(disk, path, fill)
    try:
        listed = check_packed(path)
        _require_continued(facts, {item.name for item in listed.files})
    except DamagedFile:
        disk.remove(path)
        raise
    return Packed(path=path, size_bytes=path.stat().st_size, listed=listed, parcel=parcel)


def _require_continuable(facts: Survey) -> None:
    run = facts.directory
    require_reachable(run, facts.unreachable)
    if facts.restoring is not None or facts.archiving:
        raise Refused(
            run,
            "files are being moved here, and that was cut off: half of two histories lie here",
            do="Run the command again that was cut off (`unbroken restore` or the launch with --fresh), then pack.",
        )
    if facts.newest_good is None and facts.has_history:
        raise DamagedFile(run, "no checkpoint here is sound", do=f"See `unbroken verify {run}`.")
    if facts.newest_good is None:
        raise Refused(run, "nothing was saved here yet: there is nothing to continue from", do="Pack it after a save.")


def _require_continued(facts: Survey, names: Collection[str]) -> None:
    """Raise DamagedFile unless the run goes on from these files as far as from where it lies, as the same run."""
    run, newest = facts.directory, facts.newest_good
    assert newest is not None
    records = (own(run) / name for name in ("run.json", "journal.jsonl", "metrics.jsonl"))
    needed = [newest.path, *(path for path in records if path.is_file())]
    missing = [name for path in needed if (name := path.relative_to(run).as_posix()) not in names]
    if missing:
        raise DamagedFile(
            run,
            f"a packed run without {', '.join(missing)} could not be continued at step {newest.step}, and was not kept",
            do="Is it a link, or does another file have this name in other letters? Put the file itself there.",
        )


def _target(run: Path, out: Path, facts: Survey) -> Path:
    """The file to write: `out`, or in a folder a name that tells run and step; nothing is ever replaced."""
    assert facts.newest_good is not None
    if out.is_dir():
        stem = f"{run.resolve().name}_step_{facts.newest_good.step}"
        names = (f"{stem}{f'_{number}' if number > 1 else ''}{SUFFIX}" for number in range(1, 10_000))
        out = next(out / name for name in names if not (out / name).exists())
    if out.exists():
        raise _there_already(out)
    if out.resolve().is_relative_to(run.resolve()):
        raise UsageError(out, "this lies in the run itself", do="Choose a place outside of it.")
    return out


def _there_already(path: Path) -> UsageError:
    return UsageError(path, "this file is there already", do="Choose another name, or name a folder.")


def _too_large(run: Path, parcel: Parcel, wanted: Wanted) -> Refused:
    sizes = ", ".join(f"{WORDS[need]} {size:,}" for need, (_, size) in by_need(parcel.taken).items())
    least = "the minimum" if all(item.need in MINIMUM for item in parcel.taken) else "it"
    return Refused(
        run,
        f"{least} does not fit: {sizes} bytes",
        expected=f"at most {wanted.most_bytes or 0:,} bytes",
        found=f"{parcel.size_bytes:,} bytes",
        do="Allow more with --max-size. Nothing was written.",
    )
