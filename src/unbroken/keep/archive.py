"""Histories in a run's archive: how one moves into it, and how one is brought back.

To bring one back, what is here moves into the archive first, then the old one takes its place. A mark says before the
first move what is under way and how far it is. Killed anywhere, the same command goes on, and until then nothing else
is launched in this folder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from unbroken.clock import Clock
from unbroken.errors import DamagedFile, UsageError
from unbroken.ids import free_name, is_name
from unbroken.journal import Journal
from unbroken.run import Survey, layout_of, layout_seen
from unbroken.run.folder import require_inside
from unbroken.run.layout import ARCHIVE_FOLDER, own
from unbroken.run.record import PATIENCE_S, PINS, RESTORING, Restoring, read_restoring
from unbroken.run.survey import survey
from unbroken.storage import Disk, durable_folder, explained, point_to, write_json
from unbroken.storage.file_lock import turn_at
from unbroken.storage.lock import LOCK_FILES, RunLock

STAYS = (*LOCK_FILES, RESTORING)  # of the folder itself, whatever history is in it


@dataclass(frozen=True, kw_only=True)
class Archived:
    """A history in a run's archive, with what it could be continued from."""

    name: str
    facts: Survey

    @property
    def step(self) -> int | None:
        """The furthest step that can be continued from; None if there is none."""
        good = self.facts.newest_good
        return good.step if good is not None else None


def archived(run: Path) -> tuple[Archived, ...]:
    """The histories in a run's archive, the newest first; single files that were set aside are none."""
    folder = run / ARCHIVE_FOLDER
    names = sorted((path.name for path in folder.iterdir()), reverse=True) if folder.is_dir() else []
    histories = (folder / name for name in names if (own(folder / name) / "journal.jsonl").is_file())
    return tuple(Archived(name=path.name, facts=survey(path, layout_seen(path)[0])) for path in histories)


def move_history_aside(disk: Disk, directory: Path, target: Path) -> None:
    """Move everything but the archive itself: checkpoints first, then records, the journal last."""
    journal = own(directory) / "journal.jsonl"
    durable_folder(disk, target / own(directory).name)
    kept = {ARCHIVE_FOLDER, own(directory).name}
    move_all(disk, [path for path in sorted(directory.iterdir()) if path.name not in kept], target)
    records = [path for path in sorted(own(directory).iterdir()) if path.name not in STAYS and path != journal]
    move_all(disk, records, target / own(directory).name)
    move_all(disk, [journal] if journal.exists() else [], target / own(directory).name)


def move_all(disk: Disk, paths: Sequence[Path], target: Path) -> None:
    """Move files and folders into a folder, durably."""
    for path in paths:
        if path.is_symlink() and not path.readlink().is_absolute() and path.readlink().parent != Path():
            point_to(disk, target / path.name, os.path.relpath(path.resolve(), target.resolve()))  # it leads far away
            disk.remove(path)
        else:
            disk.move(path, target / path.name)
    for folder in {target, *(path.parent for path in paths)}:
        disk.sync_folder(folder)


def restore(run: Path, name: str, *, disk: Disk, clock: Clock) -> str | None:
    """Make the archived history `name` the run's present one; the archive name of what was here, if anything was.

    Raises UsageError if there is no such history, RunHeld while somebody works on the run.
    """
    require_inside(run, layout_of(run))
    if _begun(run) is None:
        _require_archived(run, name)  # a name that was mistyped leaves no trace
    lock = RunLock(disk, own(run), clock)
    with explained(disk, run, "the history could not be brought back"):
        durable_folder(disk, own(run))
        lock.acquire("restore")
        try:
            # Looked at only now: before, another one may have been at work here.
            facts = survey(run, layout_of(run), is_copy=True)
            _require_archived(run, name)
            with turn_at(own(run) / PINS, clock, wait_s=PATIENCE_S):  # pins go with the history they were set in
                return _restore(run, name, facts, disk=disk, clock=clock)
        except (UsageError, DamagedFile):
            lock.withdraw()
            raise
        finally:
            lock.release()


def _restore(run: Path, name: str, facts: Survey, *, disk: Disk, clock: Clock) -> str | None:
    state = _begun(run)
    if state is None:
        taken = {path.name for path in (run / ARCHIVE_FOLDER).iterdir()}
        has_something = bool(facts.events or facts.candidates)
        state = Restoring(name=name, aside=free_name(clock.now(), taken) if has_something else "", moved_aside=False)
        write_json(disk, own(run) / RESTORING, state.as_plain())
    if not state.moved_aside:
        if state.aside:
            move_history_aside(disk, run, run / ARCHIVE_FOLDER / state.aside)
        state = Restoring(name=state.name, aside=state.aside, moved_aside=True)
        write_json(disk, own(run) / RESTORING, state.as_plain())
    source = run / ARCHIVE_FOLDER / state.name
    if source.is_dir():
        _move_back(disk, run, source)
    journal = Journal(disk, own(run) / "journal.jsonl", clock=clock, session=state.aside or "restore")
    journal.write("restored", file=state.name, aside=state.aside)
    journal.close()
    disk.remove(own(run) / RESTORING)
    disk.sync_folder(own(run))
    return state.aside or None


def _move_back(disk: Disk, run: Path, source: Path) -> None:
    """Checkpoints and readable files first, then the records, the journal last."""
    move_all(disk, [path for path in sorted(source.iterdir()) if path.name != own(source).name], run)
    journal = own(source) / "journal.jsonl"
    if own(source).is_dir():
        move_all(disk, [path for path in sorted(own(source).iterdir()) if path != journal], own(run))
        move_all(disk, [journal] if journal.exists() else [], own(run))
        disk.remove_folder(own(source))
    disk.remove_folder(source)


def _begun(run: Path) -> Restoring | None:
    """The restore that was cut off here, where it is known which one."""
    begun = read_restoring(run)
    return begun if begun is not None and begun.name else None


def _require_archived(run: Path, name: str) -> None:
    begun = _begun(run)
    if begun is not None:
        if not (is_name(begun.name) and (is_name(begun.aside) or begun.aside == "")):
            raise DamagedFile(
                own(run) / RESTORING,
                f"it names a history {str(begun.name)[:80]!r} and a place {str(begun.aside)[:80]!r} for what is here",
                expected="names in archive/",
                do="This was not written by unbroken. Remove it, then run the same command again.",
            )
        if name != begun.name:
            do = f"Finish that first: unbroken restore {run} {begun.name}"
            raise UsageError(run, f"bringing {begun.name} back was cut off", do=do)
        return
    known = [item.name for item in archived(run)]
    if name not in known:
        raise UsageError(
            run / ARCHIVE_FOLDER / name,
            "there is no such history in the archive",
            expected=" or ".join(known) or "a run that was started over with --fresh",
            do=f"See `unbroken restore {run}`.",
        )
