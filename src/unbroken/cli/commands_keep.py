"""Commands that keep a run: move it, bring it back, make room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unbroken.cli.named_runs import run_named
from unbroken.cli.parser import A_RUN, RUNS, Json, Run

commands = typer.Typer()


@commands.command("log", short_help="Bring experiments_log.txt up to date for the runs under a folder.")
def log_runs(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A folder.")] = Path(),
    language: Annotated[
        str, typer.Option("--lang", metavar="zh|en", help="The language of the file (default: the file's own).")
    ] = "",
    as_json: Json = False,
) -> None:
    """Bring ROOT/experiments_log.txt up to date: date, tag, what differs from the baseline, result; a row for each run.

    Every session does this for its own run. Whatever a person wrote into the file stays, in rows and between them.
    """
    from unbroken.cli.logbook import log_command

    log_command(root, language=language, as_json=as_json)


@commands.command(short_help="A copy of a run on another disk, verified and kept up to date.")
def backup(
    run: Run,
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="A folder that holds backups; best on another disk.")],
    verify_all: Annotated[
        bool, typer.Option("--verify", help="Also read again what is in the backup already, and mend it.")
    ] = False,
    without_archive: Annotated[
        bool, typer.Option("--without-archive", help="Leave the run's archive (old histories) out.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Copy a run to DEST/<name of its folder>, each file read back; again, only what has changed is copied.

    The copy is a run like any other: it can be listed, verified, and continued with --search DEST. A run that is being
    trained may be backed up. Killed anywhere, the same command goes on. Exit code 12 if something of the run is
    damaged: that is said and not copied.
    """
    from unbroken.cli.backing_up import backup_command

    return backup_command(run, dest, archive=not without_archive, anew=verify_all, as_json=as_json)


@commands.command(short_help="A history from the archive, or a run from its backup, brought back.")
def restore(
    run: Annotated[Path, typer.Argument(metavar="RUN", help=A_RUN)],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which history; without it, they are listed.")] = "",
    source: Annotated[
        Path | None, typer.Option("--from", metavar="DEST", help="Bring the run back from a backup instead.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Bring a history back that --fresh moved into the archive; what is there now moves into the archive in its place.

    Without NAME, list what the archive holds. Nothing is deleted, and killed anywhere, the same command goes on.

    With --from, bring a run back from its backup: whole where RUN is new or empty, and else only what is missing or
    damaged in it.
    """
    if source is not None:
        from unbroken.cli.backing_up import bring_back_command

        return bring_back_command(run, name, source, as_json=as_json)
    from unbroken.cli.restoring import restore_command

    restore_command(run_named(run), name, as_json=as_json)
    return 0


@commands.command(short_help="A run as one file, to take to another machine.")
def pack(
    run: Run,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, or a folder for it.")],
    minimal: Annotated[
        bool, typer.Option("--minimal", help="Only what is needed to go on: newest checkpoint, best weights, records.")
    ] = False,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Leave out what is least needed until it fits (20GB, 500MB).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a run into one file (a zip) and read it back; checkpoints are verified before they go in.

    The archive stays behind. For want of room, older checkpoints do first, then pictures and results, then logs. A run
    that is being trained may be packed: it is only read.
    """
    from unbroken.cli.packing import pack_command

    pack_command(run, out, minimal=minimal, max_size=max_size, as_json=as_json)


@commands.command(short_help="The run in such a file as a folder again.")
def unpack(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `unbroken pack` wrote.")],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="A new folder (default: the run's name).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the run in a file a folder again; every byte is compared, and nothing that is there is overwritten.

    Killed anywhere, the same command goes on, and nothing half is taken for a run.
    """
    from unbroken.cli.packing import unpack_command

    unpack_command(file, folder, as_json=as_json)


@commands.command(short_help="Make room: remove checkpoints that nothing needs, and say why each goes or stays.")
def prune(
    runs: Annotated[list[Path], RUNS],
    keep_last: Annotated[int, typer.Option(metavar="N", help="Keep the last so many checkpoints.")] = 2,
    keep_every: Annotated[
        int | None, typer.Option(metavar="K", help="Also keep each K-th step, or epoch where names count epochs.")
    ] = None,
    keep_best: Annotated[
        bool, typer.Option("--keep-best/--no-keep-best", help="Keep the checkpoint whose evaluation is the best.")
    ] = True,
    damaged: Annotated[bool, typer.Option("--damaged", help="Let damaged checkpoints go too.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say of each file why it stays or goes; changes nothing.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go; changes nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it to several runs, which are else only looked at.")] = False,
    as_json: Json = False,
) -> None:
    """Remove checkpoints that nothing needs. What stays is verified first, and two verified states always stay.

    Best weights, pinned files (`unbroken pin`) and files that the training would not write under their names stay. One
    run is pruned at once; several are only looked at without --yes. A run that is being trained is left alone.
    """
    from unbroken.cli.pruning import Asked, policy_of, prune_command

    policy = policy_of(keep_last=keep_last, keep_every=keep_every, keep_best=keep_best, damaged=damaged)
    prune_command(runs, Asked(policy=policy, explain=explain, dry_run=dry_run, yes=yes, as_json=as_json))


@commands.command(short_help="Keep a checkpoint whatever the policy says.")
def pin(
    run: Run,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FILE|STEP]...", help="Files, or steps (epochs, where names have them)."),
    ] = None,
    note: Annotated[str, typer.Option(metavar="TEXT", help="Why it is kept.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Let the policy decide about them again.")] = False,
    as_json: Json = False,
) -> None:
    """Keep checkpoints whatever the policy says: `prune` and a training that runs leave them alone from then on.

    Without FILE, list what is pinned.
    """
    from unbroken.cli.pinning import pin_command

    pin_command(run, files or [], note=note, remove=remove, as_json=as_json)
