"""Commands that only look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unbroken.cli.parser import Json

commands = typer.Typer()


@commands.command("ls", short_help="The runs under a folder, one line each.")
def list_runs(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A folder.")] = Path(),
    as_json: Json = False,
    tree: Annotated[bool, typer.Option("--tree", help="Show which run began with the weights of which.")] = False,
) -> None:
    """The runs under a folder: tag, status, step, best metric, last seen, sessions, size."""
    from unbroken.cli.looking import list_command

    list_command(root, as_json=as_json, tree=tree)


@commands.command(short_help="One run: sessions, checkpoints, metrics, origin.")
def show(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")], as_json: Json = False) -> None:
    """One run: sessions, checkpoints with their state, metrics, where it came from."""
    from unbroken.cli.looking import show_command

    show_command(run, as_json=as_json)


@commands.command(short_help="What is in a .pth file of any origin.")
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth file, ours or not.")],
    as_json: Json = False,
    tensors: Annotated[bool, typer.Option(help="List every tensor.")] = True,
) -> None:
    """What is in a .pth file of any origin; opens it without torch and without executing anything in it."""
    from unbroken.cli.looking import inspect_command

    inspect_command(file, as_json=as_json, tensors=tensors)


@commands.command(short_help="Whether checkpoints are whole, byte for byte.")
def verify(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, or folders of runs.")],
    as_json: Json = False,
) -> int:
    """Whether checkpoints, or all checkpoints of runs, are whole; exit code 12 if one is not."""
    from unbroken.cli.looking import verify_command

    return verify_command(paths, as_json=as_json)


@commands.command("audit", short_help="Whether each step was done once and each sample used once per epoch.")
def audit_run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    verify_files: Annotated[
        bool, typer.Option("--verify", help="Also read every byte of every checkpoint and compare its digest.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Prove from the records alone that each step was done once and each sample used once per epoch, over all sessions.

    Exit code 12 if something is wrong: each finding names its file, line, step and sample. Changes nothing.
    """
    from unbroken.cli.auditing import audit_command

    return audit_command(run, verify=verify_files, as_json=as_json)
