"""Commands that keep a run: move it, bring it back, make room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unbroken.cli.parser import Json

commands = typer.Typer()


@commands.command(short_help="Bring a history back that --fresh moved into the archive.")
def restore(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which history; without it, they are listed.")] = "",
    as_json: Json = False,
) -> None:
    """Bring a history back that --fresh moved into the archive; what is there now moves into the archive in its place.

    Without NAME, list what the archive holds. Nothing is deleted, and killed anywhere, the same command goes on.
    """
    from unbroken.cli.restoring import restore_command

    restore_command(run, name, as_json=as_json)


@commands.command(short_help="A run as one file, to take to another machine.")
def pack(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The file to write, or a folder for it.")],
    minimal: Annotated[
        bool, typer.Option("--minimal", help="Only what is needed to go on: newest checkpoint, best weights, records.")
    ] = False,
    max_size: Annotated[
        str, typer.Option(metavar="SIZE", help="Leave out what is least needed until it fits (20GB, 500MB).")
    ] = "",
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
