"""What was typed behind `train`, `why` or `check`, as a job: the recipe's reading, and what this host says besides."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unbroken.clock import START, SystemClock
from unbroken.config import SUFFIXES
from unbroken.errors import ConfigError, UnbrokenError, UsageError
from unbroken.ids import host_name
from unbroken.launch.host import cache, host, processes_said, started_together
from unbroken.launch.job import Environment, Job, find_recipe, installed
from unbroken.launch.rerun import joined, this_process, under_launcher


def job_of(recipe: str, arguments: Sequence[str], typed: Sequence[str], *, front_door: Sequence[str]) -> Job:
    """What was typed, as a job; UsageError where it names no recipe."""
    if not recipe:
        raise UsageError(
            "unbroken",
            "what to train is missing",
            expected=f"a recipe ({' or '.join(installed())}, or package.module:name), then its config",
            do="See `unbroken train --help`.",
        )
    START.enter("config")
    program = joined(front_door)
    environment = surroundings(typed, program=program)
    if (left_out := _recipe_left_out(recipe, arguments, environment)) is not None:
        raise left_out
    try:
        return find_recipe(recipe).read(arguments, environment)
    except ConfigError as error:
        raise _config_of_another(recipe, arguments, environment) or error from None
    except SystemExit as ending:  # a recipe's parser has said what is wrong
        if ending.code == UsageError.exit_code:
            print(f"See `{program} --help`.", file=sys.stderr)
        raise


def train_job(job: Job, *, began_s: float | None, coming: Any = None) -> int:
    """Train; 0 when done, 75 when stopped and resumable. `coming` is told what comes next."""
    START.enter("imports")
    from unbroken.train import Exit, console_for, run_job

    try:
        run_job(job, console_for(sys.stdout), began_s=began_s, coming=coming)
    except Exit as ending:
        return int(ending.code or 0) if isinstance(ending.code, int) else 1
    return 0


def surroundings(typed: Sequence[str], *, program: str) -> Environment:
    """The command that goes on with the run, what the host says, and facts for the journal."""
    now = SystemClock().now()
    command = joined(continuing(typed))
    return Environment(
        command=command,
        again=under_launcher(this_process(), command),
        typed=joined(typed),
        program=program,
        started_together=started_together(),
        processes=processes_said().size,
        host=host(now),
        today=now.strftime("%Y%m%d"),
        machine=host_name(),
        user_folder=str(Path.cwd()),
        python=sys.version.split()[0],
        cache=cache(),
    )


def continuing(typed: Sequence[str]) -> list[str]:
    """The command that goes on with what this one did: starting over, or from an old file, is meant once."""
    kept: list[str] = []
    words = list(typed)
    while words:
        word = words.pop(0)
        takes_file = word in ("--ckpt", "--resume") and words[:1] != [] and words[0].endswith((".pth", ".dcp"))
        if takes_file:
            words.pop(0)
        elif word != "--fresh" and not word.startswith(("--ckpt=", "--resume=")):
            kept.append(word)
    return kept


def _recipe_left_out(word: str, arguments: Sequence[str], environment: Environment) -> UsageError | None:
    """Where a config, or what begins like an option, stands in the place of a recipe: which command was meant."""
    if Path(word).suffix not in SUFFIXES:
        return None
    behind = next((each for each in arguments if each in installed()), "")
    others = [each for each in arguments if each != behind]
    recipes = [behind] if behind else _that_read(word, environment)
    command = environment.program.rpartition(" ")[0]
    said = [f"{command} {joined([recipe, word, *others])}" for recipe in recipes or ["RECIPE"]]
    return UsageError(
        word,
        "this is a config, and the recipe that reads it stands before it",
        expected=" or ".join(installed()),
        do=f"Type: {' or: '.join(said)}",
    )


def _config_of_another(recipe: str, arguments: Sequence[str], environment: Environment) -> UsageError | None:
    """Where the config is one of another recipe: of which."""
    config = next((word for word in arguments if Path(word).suffix in SUFFIXES and Path(word).is_file()), "")
    others = _that_read(config, environment, besides=recipe) if config else []
    if not others or recipe not in installed():
        return None
    command = environment.program.rpartition(" ")[0]
    return UsageError(
        config,
        f"this is no config of {recipe}, but one of {' or '.join(others)}",
        do=f"Type: {command} {joined([others[0], config])}" if command.startswith("unbroken") else "",
    )


def _that_read(config: str, environment: Environment, *, besides: str = "") -> list[str]:
    """The recipes to which this is a sound config; only looks."""
    found = []
    for name in installed():
        try:
            if name != besides:
                find_recipe(name).read([config], environment)
                found.append(name)
        except (UnbrokenError, SystemExit, OSError):
            continue
    return found
