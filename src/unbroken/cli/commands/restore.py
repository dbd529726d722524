"""`restore`: a history out of a run's archive, or a run out of its backup, brought back."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from unbroken.cli.args import CommandParser, add_json
from unbroken.cli.commands.backup import count, names_in_short
from unbroken.cli.runs import A_RUN, run_named
from unbroken.cli.tables import as_json_text, columns
from unbroken.clock import SystemClock
from unbroken.errors import DamagedFile, UsageError
from unbroken.journal.events import SessionBegan
from unbroken.keep.archive import Archived, archived, restore
from unbroken.keep.destination import mirror_in
from unbroken.keep.restore import Restored, restore_from
from unbroken.keep.sync import read_list
from unbroken.storage import Disk
from unbroken.text import shown


def restore_options(parser: CommandParser) -> None:
    """A run, and the history that is wanted, or a backup."""
    parser.add_argument("run", metavar="RUN", help=A_RUN)
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="which history; without it, they are listed"
    )
    parser.add_argument(
        "--from", type=Path, dest="source", metavar="DEST", help="bring the run back from a backup instead"
    )
    add_json(parser)
    parser.add_examples("unbroken restore RUN NAME", "unbroken restore RUN --from /mnt/backups")


def restore_command(options: argparse.Namespace) -> int:
    """Bring a history back that --fresh moved into the archive; what is there now moves into the archive in its place.

    Without NAME, list what the archive holds. Nothing is deleted, and killed anywhere, the same command goes on.

    With --from, bring a run back from its backup: whole where RUN is new or empty, and else only what is missing or
    damaged in it.
    """
    if options.source is not None:
        return _bring_back(Path(options.run), options.name, options.source, as_json=options.as_json)
    run, name = run_named(options.run), options.name
    if not run.is_dir():
        raise UsageError(run, "there is no such folder", expected="the folder of a run", do="See `unbroken ls ROOT`.")
    if not name:
        _list(run, as_json=options.as_json)
        return 0
    aside = restore(run, name, disk=Disk(), clock=SystemClock())
    if options.as_json:
        print(as_json_text({"run": str(run), "restored": name, "moved_aside": aside}))
        return 0
    print(f"{name} is the history of {run} again")
    if aside is not None:
        print(f"what was there is in the archive: unbroken restore {run} {aside}")
    return 0


def _list(run: Path, *, as_json: bool) -> None:
    found = archived(run)
    if as_json:
        print(as_json_text([{"name": item.name, "step": item.step, "sessions": _sessions(item)} for item in found]))
    elif not found:
        print(f"the archive of {run} holds no history; --fresh puts one there")
    else:
        rows = [(item.name, str(item.step or "none"), str(_sessions(item))) for item in found]
        print(columns([("history", "furthest step", "sessions"), *rows]))
        print(f"to bring one back: unbroken restore {run} {found[0].name}")


def _sessions(item: Archived) -> int:
    """How many sessions worked on it; the one that moved it away did not."""
    return sum(isinstance(event, SessionBegan) for event in item.facts.events)


def _bring_back(run: Path, name: str, dest: Path, *, as_json: bool) -> int:
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
    what = count(done.brought, "nothing was missing or damaged", "brought back, each compared with the backup")
    yield f"{done.run}: {what if done.whole or not done.brought else f'what was missing is there again: {what}'}"
    if not done.whole and done.brought:
        yield f"  {names_in_short(tuple(done.brought))}"
    if done.aside:
        yield f"  damaged or older files moved to {names_in_short(done.aside)}"
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
