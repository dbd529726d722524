"""`backup`: a run copied to another disk, each file read back."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path
from shlex import quote

from unbroken.cli.args import CommandParser, add_json
from unbroken.cli.runs import add_run
from unbroken.cli.tables import as_json_text
from unbroken.clock import SystemClock
from unbroken.errors import DamagedFile
from unbroken.keep.backup import Backup, back_up
from unbroken.quantities import counted, size_text, some_of
from unbroken.run import RunView
from unbroken.run.survey import losses_of
from unbroken.storage import Disk
from unbroken.text import shown

MOST_NAMED = 8


def backup_options(parser: CommandParser) -> None:
    """A run, and where its backup lies."""
    add_run(parser)
    parser.add_argument("dest", type=Path, metavar="DEST", help="a folder that holds backups; best on another disk")
    parser.add_argument(
        "--verify", action="store_true", help="also read again what is in the backup already, and mend it"
    )
    parser.add_argument("--without-archive", action="store_true", help="leave the run's archive (old histories) out")
    add_json(parser)
    parser.add_examples("unbroken backup RUN /mnt/backups", "unbroken restore RUN --from /mnt/backups")


def backup_command(options: argparse.Namespace) -> int:
    """Copy a run to DEST/<name of its folder>, each file read back; again, only what has changed is copied.

    The copy is a run like any other: it can be listed, verified, and continued with --search DEST. A run that is being
    trained may be backed up. Killed anywhere, the same command goes on. Exit code 12 if something of the run is
    damaged: that is said and not copied.
    """
    run, dest, anew = options.run, options.dest, options.verify
    done = back_up(run, dest, archive=not options.without_archive, anew=anew, disk=Disk(), clock=SystemClock())
    if options.as_json:
        print(as_json_text(_as_data(done)))
    else:
        print("\n".join(_in_words(run, dest, done, anew=anew)))
    return DamagedFile.exit_code if done.unsound else 0


def _in_words(run: Path, dest: Path, done: Backup, *, anew: bool) -> Iterable[str]:
    stands = f"at step {done.step}" if done.step is not None else "without a checkpoint to continue from"
    yield f"{done.mirror}: {stands}"
    changed = count(done.copied, "nothing to copy", "copied, each read back and compared")
    kept = f"{done.kept} {'read again and as in the run' if anew else 'unchanged'}"
    yield f"  {changed}{f'; {kept}' if done.kept else ''}"
    if done.removed:
        yield f"  removed, as in the run, with newer ones verified here: {names_in_short(done.removed)}"
    if done.moved:
        yield f"  moved to the archive, as in the run: {names_in_short(done.moved)}"
    for aside in done.parted:
        yield f"  the run's own record was cut back since: what was here before is kept in {aside}"
    if done.links:
        yield f"  links are not followed: {names_in_short(done.links)}"
    for name, reason in done.unsound.items():
        had = "; the backup keeps what it has under this name" if (done.mirror / name).exists() else ""
        yield f"  NOT copied: {shown(name)} - {shown(reason)}{had}"
    yield from (f"  missing: {item}" for item in losses_of(RunView(done.mirror)))
    yield f"to continue from it on another machine: the command of the training with --search {quote(str(dest))}"
    yield f"to bring it back: unbroken restore {quote(str(run))} --from {quote(str(dest))}"


def _as_data(done: Backup) -> dict[str, object]:
    return {
        "backup": str(done.mirror),
        "run": done.run,
        "step": done.step,
        "missing": [item.name for item in losses_of(RunView(done.mirror))],
        "copied": [{"file": name, "size_bytes": size} for name, size in done.copied.items()],
        "kept": done.kept,
        "removed": list(done.removed),
        "moved": list(done.moved),
        "parted": list(done.parted),
        "links": list(done.links),
        "unsound": [{"file": name, "reason": reason} for name, reason in done.unsound.items()],
    }


def count(files: Mapping[str, int], none: str, done: str) -> str:
    """How many files of which size, and what was done with them; `none` where there are none."""
    if not files:
        return none
    return f"{counted(len(files), 'file')}, {size_text(sum(files.values()))}, {done}"


def names_in_short(names: tuple[str, ...]) -> str:
    """The first few names, and how many more there are."""
    return some_of(list(map(shown, names)), MOST_NAMED)
