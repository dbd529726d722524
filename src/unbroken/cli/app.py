"""The commands, and what they take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from unbroken.errors import UsageError

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
         or  unbroken demo sonar       (the same with boxes in point clouds, in about four)
Then:        unbroken train RECIPE CONFIG, and after any interruption the same command again.

\b
Exit codes: 0 done, 1 fault of ours, 2 wrong usage or config, 10 refused, 11 held by another process,
12 damaged files or failing saves, 13 incompatible config, 14 written by a newer version, 75 stopped and resumable,
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


def run(words: Sequence[str], *, typed: Sequence[str]) -> int:
    """Run one command; what the parser complains of becomes an error of the one family."""
    try:
        result = app(args=list(words), prog_name="unbroken", standalone_mode=False, obj={"typed": typed})
        return result if isinstance(result, int) else 0
    except typer.Abort:
        return 1
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):
            raise _usage_error(error) from error
        raise


def _usage_error(error: Any) -> UsageError:
    """What the parser of commands complains of, in the words of this family, with where to read on."""
    where = getattr(error.ctx, "command_path", "unbroken") if getattr(error, "ctx", None) else "unbroken"
    return UsageError(where, error.format_message(), do=f"See `{where} --help`.")


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
def why(
    context: typer.Context,
    recipe: Annotated[str, RECIPE] = "",
    as_json: Json = False,
    shapes: Annotated[
        bool, typer.Option("--shapes", help="Compare the tensors of the file with the real model (loads torch).")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the learning rate, done and to come, as a PNG.")
    ] = None,
) -> int:
    """Say what `train` with the same arguments would do, and why; changes nothing.

    The exit code is that of the refusal, if it is one. These options may also stand behind the recipe's own.
    """
    from unbroken.cli.train import HowToSay, why_command

    return why_command(recipe, context.args, how=HowToSay(as_json=as_json, shapes=shapes, picture=plot))


@app.command("ls", short_help="The runs under a folder, one line each.")
def list_runs(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A folder.")] = Path(),
    as_json: Json = False,
    tree: Annotated[bool, typer.Option("--tree", help="Show which run began with the weights of which.")] = False,
) -> None:
    """The runs under a folder: tag, status, step, best metric, last seen, sessions, size."""
    from unbroken.cli.looking import list_command

    list_command(root, as_json=as_json, tree=tree)


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


@app.command("audit", short_help="Whether each step was done once and each sample used once per epoch.")
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


@app.command(short_help="Follow a run from another terminal.")
def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    every: Annotated[str, typer.Option(metavar="TIME", help="How often to look: 2s, 500ms, 1m.")] = "2s",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a run that has not begun.")] = False,
) -> int:
    """Follow a run from another terminal, and end when it ends: progress, losses, rate, time left, saves, evaluations.

    It only reads. Where the output is no terminal, it prints one plain line per change.
    """
    from unbroken.cli.watching import watch_command

    return watch_command(run, every=every, wait=wait)


@app.command(short_help="Ask a running training to save and stop.")
def stop(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    wait: Annotated[bool, typer.Option(" /--no-wait", help="Only ask; do not wait until it has stopped.")] = True,
) -> None:
    """Ask the process that trains a run to save and stop, and wait until it has; its exit code is then 75.

    It may run in another terminal, in another container with the same file system, or on another machine.
    """
    from unbroken.cli.stopping import stop_command

    stop_command(run, wait=wait)


@app.command(short_help="Bring a history back that --fresh moved into the archive.")
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


@app.command(short_help="A run as one file, to take to another machine.")
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


@app.command(short_help="The run in such a file as a folder again.")
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


@app.command(short_help="The whole story on made-up data, in two to four minutes.")
def demo(
    story: Annotated[str, typer.Argument(metavar="STORY", help="Which one: aerial or sonar.")] = "aerial",
    dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to play (default: demo/STORY).")] = None,
) -> int:
    """The whole story on made-up data: train, be killed, resume, compare with a run that was not."""
    from unbroken.cli.made_up import demo_command

    return demo_command(story, dir or Path("demo") / story)


@app.command(short_help="Write a small sample data set in the real layout.")
def data(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Which one: aerial or sonar.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An empty or new folder.")],
) -> None:
    """Write a small sample data set in the real layout."""
    from unbroken.cli.made_up import data_command

    data_command(kind, folder)
