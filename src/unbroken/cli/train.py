"""`train` and `why`: the same decision, carried out or only said."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from unbroken.cli.environment import surroundings
from unbroken.errors import UsageError
from unbroken.launch import Job, Refuse, decide, find_recipe, gather
from unbroken.launch.recipes import RECIPES
from unbroken.launch.verdicts import as_data
from unbroken.launch.words import describe
from unbroken.values import SystemClock


def train_command(recipe: str, arguments: Sequence[str], *, typed: Sequence[str]) -> int:
    """Train; the exit code is 0 when done, 75 when stopped and resumable."""
    began_s = SystemClock().monotonic_s()  # loading torch is part of the session
    job = _job(recipe, arguments, typed, front_door=typed[: len(typed) - len(arguments)])
    from unbroken.cli.display import console_for
    from unbroken.train import Exit, run_job

    try:
        run_job(job, console_for(sys.stdout), began_s=began_s)
    except Exit as ending:
        return int(ending.code or 0) if isinstance(ending.code, int) else 1
    return 0


def why_command(recipe: str, arguments: Sequence[str], *, as_json: bool = False) -> int:
    """Say the plan; the exit code is that of the refusal, if it is one."""
    as_json = as_json or "--json" in arguments
    asked = [word for word in arguments if word != "--json"]
    job = _job(recipe, asked, ["unbroken", "train", recipe, *asked], front_door=["unbroken", "why", recipe])
    plan = decide(job, gather(job))
    if as_json:
        print(json.dumps({**as_data(plan), "run": str(job.directory), "ignored": list(job.ignored)}, default=str))
    else:
        print("\n".join(describe(job, plan)))
    return plan.exit_code if isinstance(plan, Refuse) else 0


def _job(recipe: str, arguments: Sequence[str], typed: Sequence[str], *, front_door: Sequence[str]) -> Job:
    if not recipe:
        raise UsageError(
            "unbroken",
            "what to train is missing",
            expected=f"a recipe ({' or '.join(installed())}, or package.module:name), then its config",
            do="See `unbroken train --help`.",
        )
    program = shlex.join(front_door)
    try:
        return find_recipe(recipe).read(arguments, {**surroundings(typed), "program": program})
    except SystemExit as ending:  # a recipe's parser has said what is wrong
        if ending.code == UsageError.exit_code:
            print(f"See `{program} --help`.", file=sys.stderr)
        raise


def installed() -> list[str]:
    """The recipes that come with installed packages."""
    return sorted(point.name for point in entry_points(group=RECIPES))
