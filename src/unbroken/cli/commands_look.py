"""Commands that only look."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unbroken.cli.parser import PASSING, PATHS, Json, Run

commands = typer.Typer()


@commands.command(
    "ls", context_settings=PASSING, add_help_option=False, short_help="The runs under a folder, one line each."
)
def list_runs(context: typer.Context) -> int:
    """The runs under a folder: tag, status, step, best metric, last seen, sessions, size; filtered and sorted."""
    from unbroken.cli.ledger import list_command

    return list_command(context.args)


@commands.command(short_help="One run: sessions, checkpoints, metrics, origin.")
def show(run: Run, as_json: Json = False) -> None:
    """One run: sessions, checkpoints with their state, metrics, where it came from."""
    from unbroken.cli.looking import show_command

    show_command(run, as_json=as_json)


@commands.command(short_help="What is in a checkpoint of any origin.")
def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="A .pth, .pt, .ckpt, .bin, .safetensors or index.json, or a folder of another program."
        ),
    ],
    as_json: Json = False,
    tensors: Annotated[bool, typer.Option(help="List every tensor.")] = True,
) -> None:
    """What is in a checkpoint of any origin; opens it without torch and without executing anything in it.

    Files of MMEngine, OpenPCDet, Lightning, timm, ultralytics, DeepSpeed and others, and folders of Hugging Face,
    Accelerate, DeepSpeed and torch's distributed checkpoints are known by name, with why training goes on from them
    here or not, and what can be done with them.
    """
    from unbroken.cli.inspect import inspect_command

    inspect_command(file, as_json=as_json, tensors=tensors)


@commands.command(short_help="Whether checkpoints are whole, byte for byte.")
def verify(
    paths: Annotated[list[Path], PATHS],
    as_json: Json = False,
) -> int:
    """Whether checkpoints, or all checkpoints in folders, are whole; exit code 12 if one is not.

    Of a folder every .pth, .pt, .ckpt, .bin and .safetensors is judged, and what cannot be judged is named.

    Of a run, what its records know of and its folder has not is listed as missing. Its newest state and its best
    weights are needed for it to be whole; older states that were removed by hand are not.
    """
    from unbroken.cli.verify import verify_command

    return verify_command(paths, as_json=as_json)


@commands.command("audit", short_help="Whether each step was done once and each sample used once per epoch.")
def audit_run(
    run: Run,
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


@commands.command("compare", short_help="Runs side by side: results, and only the settings that differ.")
def compare_runs(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", help="Runs' folders, or tags of runs below the current folder.")
    ],
    metric: Annotated[
        str, typer.Option("--metric", metavar="NAME", help="The metric that decides (else the runs' own).")
    ] = "",
    as_json: Json = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of text.")] = False,
    page: Annotated[
        Path | None,
        typer.Option("--html", metavar="OUT", help="Write a page with curves; one file that needs no network."),
    ] = None,
    language: Annotated[
        str, typer.Option("--lang", metavar="zh|en", help="The language (the page: by default that of the system).")
    ] = "",
) -> None:
    """Runs side by side: metrics at the best and at the last step, time, samples, sessions, settings that differ.

    Exit code 2 for fewer than two runs. --html replaces nothing but an earlier page of its own.
    """
    from unbroken.cli.comparing import compare_command

    compare_command(runs, metric=metric, as_json=as_json, as_markdown=as_markdown, page=page, language=language)
