"""Commands that train, or have to do with a training that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unbroken.cli.parser import PASSING, RECIPE, Json, Run

commands = typer.Typer()


@commands.command(context_settings=PASSING, options_metavar="", short_help="Plan, print the plan, carry it out.")
def train(context: typer.Context, recipe: Annotated[str, RECIPE] = "") -> int:
    """Plan, print the plan, carry it out. After any interruption, run the same command again.

    \b
    unbroken train RECIPE CONFIG [options of the recipe]
    unbroken train RECIPE --help                          shows these options
    """
    from unbroken.cli.train import train_command

    return train_command(recipe, context.args, typed=context.obj["typed"])


@commands.command(context_settings=PASSING, short_help="What `train` would do, and why; changes nothing.")
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


@commands.command(context_settings=PASSING, short_help="Read every sample of a config's data sets once.")
def check(context: typer.Context, recipe: Annotated[str, RECIPE] = "", as_json: Json = False) -> int:
    """Read every sample of a config's data sets once, and name those that cannot be read; no run is touched.

    The arguments are those of `train`. The exit code is 12 if a sample cannot be read. `--json` may also stand behind.
    """
    from unbroken.cli.check import check_command

    return check_command(recipe, context.args, as_json=as_json)


@commands.command(
    context_settings=PASSING, short_help="Whether a training, killed and resumed, is the same in every bit."
)
def prove(
    context: typer.Context,
    command: Annotated[
        str, typer.Argument(metavar="RECIPE | -- COMMAND", help="As for `train`, or any program that uses open_run.")
    ] = "",
    steps: Annotated[int, typer.Option(min=2, help="How many steps are trained.")] = 30,
    kills: Annotated[int, typer.Option(min=1, help="How often the training is killed (SIGKILL and SIGTERM).")] = 3,
    workers: Annotated[
        str, typer.Option(metavar="N,N", help="Loader workers to prove it with besides the loop's own; '' for none.")
    ] = "0,2",
    seed: Annotated[int | None, typer.Option(min=0, help="Of the kills (default: another one each time).")] = None,
    patience: Annotated[str, typer.Option(metavar="TIME", help="A session silent for so long is ended.")] = "10m",
    keep: Annotated[bool, typer.Option("--keep", help="Keep the scratch folder, and say where it is.")] = False,
    as_json: Json = False,
) -> int:
    """Train in a scratch folder, in peace and with kills and resumes, and compare every bit; say what differs and why.

    \b
    unbroken prove -- python train.py --lr 0.1            any program whose loop uses open_run
    unbroken prove RECIPE CONFIG [options of the recipe]

    No run of yours is read or written. The exit code is 0 only if every bit is equal, and 15 if one is not.
    These options stand before the recipe or the program.
    """
    from unbroken.cli.prove import Asked, prove_command

    asked = Asked(steps=steps, kills=kills, workers=workers, seed=seed, patience=patience, keep=keep, as_json=as_json)
    return prove_command(command, context.args, asked)


@commands.command(short_help="Follow a run from another terminal.")
def watch(
    run: Run,
    every: Annotated[str, typer.Option(metavar="TIME", help="How often to look: 2s, 500ms, 1m.")] = "2s",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for a run that has not begun.")] = False,
) -> int:
    """Follow a run from another terminal, and end when it ends: progress, losses, rate, time left, saves, evaluations.

    It only reads. Where the output is no terminal, it prints one plain line per change.
    """
    from unbroken.cli.watching import watch_command

    return watch_command(run, every=every, wait=wait)


@commands.command(short_help="Ask a running training to save and stop.")
def stop(
    run: Run,
    wait: Annotated[bool, typer.Option(" /--no-wait", help="Only ask; do not wait until it has stopped.")] = True,
) -> None:
    """Ask the process that trains a run to save and stop, and wait until it has; its exit code is then 75.

    It may run in another terminal, in another container with the same file system, or on another machine.
    """
    from unbroken.cli.stopping import stop_command

    stop_command(run, wait=wait)


@commands.command(short_help="The whole story on made-up data, in one to four minutes on two idle cores.")
def demo(
    story: Annotated[str, typer.Argument(metavar="STORY", help="Which one: aerial or sonar.")] = "aerial",
    dir: Annotated[Path | None, typer.Option(metavar="DIR", help="Where to play (default: demo/STORY).")] = None,
) -> int:
    """The whole story on made-up data: train, be killed, resume, compare with a run that was not."""
    from unbroken.cli.made_up import demo_command

    return demo_command(story, dir or Path("demo") / story)


@commands.command(short_help="Write a small sample data set in the real layout.")
def data(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Which one: aerial or sonar.")],
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An empty or new folder.")],
) -> None:
    """Write a small sample data set in the real layout."""
    from unbroken.cli.made_up import data_command

    data_command(kind, folder)
