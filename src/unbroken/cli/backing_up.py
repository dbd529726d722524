"""`backup`, and `restore --from`: a run copied with verification, and brought back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from shlex import quote

from unbroken.cli.tables import as_json_text
from unbroken.clock import SystemClock
from unbroken.errors import DamagedFile, UsageError
from unbroken.keep.backup import Backup, back_up, mirror_in
from unbroken.keep.restore import Restored, restore_from
from unbroken.keep.sync import read_list
from unbroken.quantities import counted, size_text, some_of
from unbroken.run.missing import losses_of
from unbroken.storage import Disk
from unbroken.text import shown

MOST_NAMED = 8


def backup_command(run: Path, dest: Path, *, archive: bool, anew: bool, as_json: bool) -> int:
    """Bring a backup up to date and say what was done; the exit code is 12 if something of the run is damaged."""
    done = back_up(run, dest, archive=archive, anew=anew, disk=Disk(), clock=SystemClock())
    if as_json:
        print(as_json_text(_as_data(done)))
    else:
        print("\n".join(_in_words(run, dest, done, anew=anew)))
    return DamagedFile.exit_code if done.unsound else 0


def _in_words(run: Path, dest: Path, done: Backup, *, anew: bool) -> Iterable[str]:
    stands = f"at step {done.step}" if done.step is not None else "without a checkpoint to continue from"
    yield f"{done.mirror}: {stands}"
    changed = _count(done.copied, "nothing to copy", "copied, each read back and compared")
    kept = f"{done.kept} {'read again and as in the run' if anew else 'unchanged'}"
    yield f"  {changed}{f'; {kept}' if done.kept else ''}"
    if done.removed:
        yield f"  removed, as in the run, with newer ones verified here: {_names(done.removed)}"
    if done.moved:
        yield f"  moved to the archive, as in the run: {_names(done.moved)}"
    for aside in done.parted:
        yield f"  the run's own record was cut back since: what was here before is kept in {aside}"
    if done.links:
        yield f"  links are not followed: {_names(done.links)}"
    for name, reason in done.unsound.items():
        had = "; the backup keeps what it has under this name" if (done.mirror / name).exists() else ""
        yield f"  NOT copied: {shown(name)} - {shown(reason)}{had}"
    yield from (f"  missing: {item}" for item in losses_of(done.mirror))
    yield f"to continue from it on another machine: the command of the training with --search {quote(str(dest))}"
    yield f"to bring it back: unbroken restore {quote(str(run))} --from {quote(str(dest))}"


def _as_data(done: Backup) -> dict[str, object]:
    return {
        "backup": str(done.mirror),
        "run": done.run,
        "step": done.step,
        "missing": [item.name for item in losses_of(done.mirror)],
        "copied": [{"file": name, "size_bytes": size} for name, size in done.copied.items()],
        "kept": done.kept,
        "removed": list(done.removed),
        "moved": list(done.moved),
        "parted": list(done.parted),
        "links": list(done.links),
        "unsound": [{"file": name, "reason": reason} for name, reason in done.unsound.items()],
    }


def bring_back_command(run: Path, name: str, dest: Path, *, as_json: bool) -> int:
    """Bring a run back from a backup, and say where it stands and how it goes on."""
    if name:
        raise UsageError(
            "--from",
            "it brings back the whole run, and NAME one history of its archive",
            do=f"First `unbroken restore {run} --from {dest}`, then `unbroken restore {run} {name}`.",
        )
    done = restore_from(run, mirror_in(run, dest), disk=Disk(), clock=SystemClock())
    if as_json:
        print(as_json_text(_brought_as_data(done)))
    else:
        print("\n".join(_brought_in_words(done)))
    return DamagedFile.exit_code if done.unsound else 0


def _brought_in_words(done: Restored) -> Iterable[str]:
    what = _count(done.brought, "nothing was missing or damaged", "brought back, each compared with the backup")
    yield f"{done.run}: {what if done.whole or not done.brought else f'what was missing is there again: {what}'}"
    if not done.whole and done.brought:
        yield f"  {_names(tuple(done.brought))}"
    if done.aside:
        yield f"  damaged or older files moved to {_names(done.aside)}"
    for note in done.notes:
        yield f"  {note}"
    for name, reason in done.unsound.items():
        yield f"  NOT brought back: {shown(name)} - in the backup it is {shown(reason)}"
    yield from (f"  missing: {item}" for item in done.facts.losses)
    newest = done.facts.newest_good
    if newest is not None:
        yield f"  it goes on after step {newest.step} ({newest.name}, {newest.reason})"
    if command := _command(done):
        listed = read_list(done.source)
        here = listed is not None and listed.source == str(done.run.resolve())
        yield f"{'to continue' if here else 'it was trained with'}: {shown(command)}"


def _brought_as_data(done: Restored) -> dict[str, object]:
    newest = done.facts.newest_good
    return {
        "run": str(done.run),
        "from": str(done.source),
        "whole": done.whole,
        "step": newest.step if newest is not None else None,
        "brought": [{"file": name, "size_bytes": size} for name, size in done.brought.items()],
        "aside": list(done.aside),
        "notes": list(done.notes),
        "missing": [item.name for item in done.facts.losses],
        "unsound": [{"file": name, "reason": reason} for name, reason in done.unsound.items()],
        "command": _command(done),
    }


def _command(done: Restored) -> str:
    return next((str(event["command"]) for event in reversed(done.facts.events) if event.get("command")), "")


def _count(files: Mapping[str, int], none: str, done: str) -> str:
    if not files:
        return none
    return f"{counted(len(files), 'file')}, {size_text(sum(files.values()))}, {done}"


def _names(names: tuple[str, ...]) -> str:
    return some_of(list(map(shown, names)), MOST_NAMED)
