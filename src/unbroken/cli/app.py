"""The commands and what every one of them does with an error: say it, end with its exit code."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from unbroken.errors import INTERRUPTED_TWICE, UnbrokenError

Json = Annotated[bool, typer.Option("--json", help="Print data instead of text.")]
PASSING = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": ["-h"]}

app = typer.Typer(
    name="unbroken",
    help="Long trainings out of short, interruptible sessions, as if they had never been interrupted.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: Sequence[str] | None = None, *, typed: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code. `typed` is what to tell the user to type again."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    typed = typed or ["unbroken", *words]
    try:
        result = app(args=words, standalone_mode=False, obj={"typed": typed})
        return result if isinstance(result, int) else 0
    except UnbrokenError as error:
        _complain(error, as_json="--json" in words)
        return error.exit_code
    except KeyboardInterrupt:
        print("interrupted twice: ended at once; the last checkpoint is whole", file=sys.stderr)
        return INTERRUPTED_TWICE
    except SystemExit as ending:
        return int(ending.code) if isinstance(ending.code, int) else 1
    except typer.Abort:
        return 1
    except Exception as error:  # noqa: BLE001 - the one place that may: everything else is a fault of ours
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # a usage error of the parser
            print(f"unbroken: {error.format_message()}", file=sys.stderr)
            return int(error.exit_code)
        traceback.print_exc()
        print("\nThis is a fault of unbroken or of the training code; no checkpoint was harmed.", file=sys.stderr)
        return 1


def _complain(error: UnbrokenError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(error.as_data(), ensure_ascii=False))
    else:
        print(error, file=sys.stderr)


@app.command(context_settings=PASSING)
def train(context: typer.Context, recipe: str) -> int:
    """Plan, print the plan, carry it out. RECIPE is mapsage, or package.module:name; then CONFIG and its options."""
    from unbroken.cli.train import train_command

    return train_command(recipe, context.args, typed=context.obj["typed"])


@app.command(context_settings=PASSING)
def why(context: typer.Context, recipe: str) -> int:
    """Say what `train` with the same arguments would do, and why; changes nothing. Add --json for data."""
    from unbroken.cli.train import why_command

    return why_command(recipe, context.args, typed=context.obj["typed"])


@app.command("ls")
def list_runs(root: Annotated[Path, typer.Argument(help="A folder.")] = Path(), as_json: Json = False) -> None:
    """The runs under a folder: tag, status, step, best metric, last seen, sessions, size."""
    from unbroken.cli.looking import list_command

    list_command(root, as_json=as_json)


@app.command()
def show(run: Path, as_json: Json = False) -> None:
    """One run: sessions, checkpoints with their state, metrics, where it came from."""
    from unbroken.cli.looking import show_command

    show_command(run, as_json=as_json)


@app.command()
def inspect(
    file: Path,
    as_json: Json = False,
    tensors: Annotated[bool, typer.Option(help="List every tensor.")] = True,
) -> None:
    """What is in a .pth file of any origin; opens it without torch and without executing anything in it."""
    from unbroken.cli.looking import inspect_command

    inspect_command(file, as_json=as_json, tensors=tensors)


@app.command()
def verify(paths: list[Path], as_json: Json = False) -> int:
    """Whether checkpoints, or all checkpoints of runs, are whole; exit code 12 if one is not."""
    from unbroken.cli.looking import verify_command

    return verify_command(paths, as_json=as_json)


@app.command()
def demo(
    story: Annotated[str, typer.Argument()] = "aerial",
    dir: Annotated[Path | None, typer.Option(help="Where to play.")] = None,
) -> int:
    """The whole story on made-up data: train, be killed, resume, compare with a run that was not."""
    from unbroken.cli.made_up import demo_command

    return demo_command(story, dir or Path("demo") / story)


@app.command()
def data(kind: str, folder: Path) -> None:
    """Write a small sample data set in the real layout (KIND: aerial)."""
    from unbroken.cli.made_up import data_command

    data_command(kind, folder)
