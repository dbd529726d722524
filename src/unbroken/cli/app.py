"""The commands and what every one of them does with an error: say it, end with its exit code."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from unbroken.errors import INTERRUPTED_TWICE, UnbrokenError, UsageError

Json = Annotated[bool, typer.Option("--json", help="Print data instead of text.")]
Names = {"help_option_names": ["-h", "--help"]}
PASSING = {**Names, "allow_extra_args": True, "allow_interspersed_args": False}  # what follows RECIPE is the recipe's
RECIPE = typer.Argument(
    metavar="RECIPE",
    help="An installed recipe, or package.module:name; then its CONFIG and options.",
    show_default=False,
)
EPILOG = """\b
Begin with:  unbroken demo aerial      (everything shown in about two minutes, on a CPU)
Then:        unbroken train RECIPE CONFIG, and after any interruption the same command again.

\b
Exit codes: 0 done, 1 fault of ours, 2 wrong usage or config, 10 refused, 11 held by another process,
12 damaged files, 13 incompatible config, 14 written by a newer version, 75 stopped and resumable,
130 interrupted at once.
"""

app = typer.Typer(
    name="unbroken",
    help="Long trainings out of short, interruptible sessions, as if they had never been interrupted.",
    epilog=EPILOG,
    context_settings=Names,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(arguments: Sequence[str] | None = None, *, typed: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code. `typed` is what to tell the user to type again."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    typed = typed or ["unbroken", *words]
    if not words:
        app(args=["--help"], prog_name="unbroken", standalone_mode=False)
        return UsageError.exit_code
    try:
        result = app(args=words, prog_name="unbroken", standalone_mode=False, obj={"typed": typed})
        return result if isinstance(result, int) else 0
    except UnbrokenError as error:
        _complain(error, as_json="--json" in words)
        return error.exit_code
    except KeyboardInterrupt:
        hint = ": what was saved is whole, run the same command again" if words[0] == "train" else ""
        print(f"interrupted at once{hint}", file=sys.stderr)
        return INTERRUPTED_TWICE
    except SystemExit as ending:
        return int(ending.code) if isinstance(ending.code, int) else 1
    except typer.Abort:
        return 1
    except BrokenPipeError:
        return _reader_gone()
    except Exception as error:  # noqa: BLE001 - the one place that may: everything else is a fault of ours
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):  # a usage error of the parser
            _complain(_usage_error(error), as_json="--json" in words)
            return int(error.exit_code)
        traceback.print_exc()
        print("\nThis is a fault of unbroken or of the training code; no checkpoint was harmed.", file=sys.stderr)
        return 1


def _usage_error(error: Any) -> UsageError:
    """What the parser of commands complains of, in the words of this family, with where to read on."""
    where = getattr(error.ctx, "command_path", "unbroken") if getattr(error, "ctx", None) else "unbroken"
    return UsageError(where, error.format_message(), do=f"See `{where} --help`.")


def _reader_gone() -> int:
    """Whoever read our output has ended (`| head`); Python must not complain of it once more at exit."""
    sys.stdout = Path("/dev/null").open("w") if Path("/dev/null").exists() else sys.stderr  # noqa: SIM115
    print("unbroken: standard output was closed by its reader", file=sys.stderr)
    return 1


def _complain(error: UnbrokenError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(error.as_data(), ensure_ascii=False))
    else:
        print(error, file=sys.stderr)


@app.command(context_settings=PASSING, options_metavar="", short_help="Plan, print the plan, carry it out.")
def train(context: typer.Context, recipe: Annotated[str, RECIPE] = "") -> int:
    """Plan, print the plan, carry it out. After any interruption, run the same command again.

    \b
    unbroken train RECIPE CONFIG [options of the recipe]
    unbroken train RECIPE --help                          shows these options
    """
    from unbroken.cli.train import train_command

    return train_command(recipe, context.args, typed=context.obj["typed"])


@app.command(context_settings=PASSING, short_help="What `train` would do, and why; changes nothing.")
def why(context: typer.Context, recipe: Annotated[str, RECIPE] = "", as_json: Json = False) -> int:
    """Say what `train` with the same arguments would do, and why; changes nothing.

    The exit code is that of the refusal, if it is one.
    """
    from unbroken.cli.train import why_command

    return why_command(recipe, context.args, as_json=as_json)


@app.command("ls", short_help="The runs under a folder, one line each.")
def list_runs(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A folder.")] = Path(), as_json: Json = False
) -> None:
    """The runs under a folder: tag, status, step, best metric, last seen, sessions, size."""
    from unbroken.cli.looking import list_command

    list_command(root, as_json=as_json)


@app.command(short_help="One run: sessions, checkpoints, metrics, origin.")
def show(run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")], as_json: Json = False) -> None:
    """One run: sessions, checkpoints with their state, metrics, where it came from."""
    from unbroken.cli.looking import show_command

    show_command(run, as_json=as_json)


@app.command(short_help="What is in a .pth file of any origin.")
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pth file, ours or not.")],
    as_json: Json = False,
    tensors: Annotated[bool, typer.Option(help="List every tensor.")] = True,
) -> None:
    """What is in a .pth file of any origin; opens it without torch and without executing anything in it."""
    from unbroken.cli.looking import inspect_command

    inspect_command(file, as_json=as_json, tensors=tensors)


@app.command(short_help="Whether checkpoints are whole, byte for byte.")
def verify(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, or folders of runs.")],
    as_json: Json = False,
) -> int:
    """Whether checkpoints, or all checkpoints of runs, are whole; exit code 12 if one is not."""
    from unbroken.cli.looking import verify_command

    return verify_command(paths, as_json=as_json)


@app.command(short_help="The whole story on made-up data, in about two minutes.")
def demo(
    story: Annotated[str, typer.Argument(metavar="STORY", help="Which application.")] = "aerial",
    dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to play (default: demo/STORY).")] = None,
) -> int:
    """The whole story on made-up data: train, be killed, resume, compare with a run that was not."""
    from unbroken.cli.made_up import demo_command

    return demo_command(story, dir or Path("demo") / story)


@app.command(short_help="Write a small sample data set in the real layout.")
def data(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Of which application, for example aerial.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An empty or new folder.")],
) -> None:
    """Write a small sample data set in the real layout."""
    from unbroken.cli.made_up import data_command

    data_command(kind, folder)
