"""`train` and `why`: the same decision, carried out or only said."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unbroken.cli.curve import as_letters, write_picture
from unbroken.cli.environment import surroundings
from unbroken.cli.recipe_mistakes import config_of_another, recipe_left_out
from unbroken.clock import SystemClock
from unbroken.config import Effect
from unbroken.errors import ConfigError, UsageError
from unbroken.launch import Job, Plan, Refuse, Resume, decide, find_recipe, gather, is_foreign, preflight, wants_shapes
from unbroken.launch.disk import Sizes, planned_disk, planned_disk_lines
from unbroken.launch.explain import describe
from unbroken.launch.forecast import forecast_lines, last_timing
from unbroken.launch.host import process_age_s, require_one_process
from unbroken.launch.recipes import installed
from unbroken.launch.rerun import joined, typed_again
from unbroken.launch.schedule import rates_of
from unbroken.launch.verdicts import as_data


def train_command(recipe: str, arguments: Sequence[str], *, typed: Sequence[str] | None) -> int:
    """Train; the exit code is 0 when done, 75 when stopped and resumable. `typed` is None where the process says it."""
    began_s = SystemClock().monotonic_s() - process_age_s()  # loading Python and torch is part of the session
    typed = typed or typed_again(arguments, otherwise=["unbroken", "train", recipe, *arguments])
    job = job_of(recipe, arguments, typed, front_door=typed[: len(typed) - len(arguments)])
    if job.options.get("restarts"):
        from unbroken.cli.supervising import supervise

        return supervise(recipe, arguments, typed=typed, job=job, began_s=began_s)
    return _train(job, began_s=began_s)


def train_as_told(
    recipe: str,
    arguments: Sequence[str],
    *,
    typed: Sequence[str],
    began_s: float,
    restarted: Mapping[str, Any],
    coming: Any,
) -> int:
    """Train as the child of a process that starts it again after a crash; `began_s` is when that process began.

    The time of a `--session` counts from there; a limit of the host is read anew by each child.
    """
    own_s = SystemClock().monotonic_s() - process_age_s()
    job = job_of(recipe, arguments, typed, front_door=typed[: len(typed) - len(arguments)])
    typed_limit = job.limit is not None and job.limit.source == "--session"
    known = {**job.environment, **({"restarted": dict(restarted)} if restarted else {})}
    return _train(replace(job, environment=known), began_s=began_s if typed_limit else own_s, coming=coming)


def _train(job: Job, *, began_s: float, coming: Any = None) -> int:
    from unbroken.train import Exit, console_for, run_job

    try:
        run_job(job, console_for(sys.stdout), began_s=began_s, coming=coming)
    except Exit as ending:
        return int(ending.code or 0) if isinstance(ending.code, int) else 1
    return 0


@dataclass(frozen=True, kw_only=True)
class HowToSay:
    """What `why` itself is asked; everything else that was typed is the recipe's."""

    as_json: bool = False
    shapes: bool = False  # compare the real tensors, which loads torch
    picture: Path | None = None  # of the learning rate


def why_command(recipe: str, arguments: Sequence[str], *, how: HowToSay | None = None) -> int:
    """Say the plan; the exit code is that of the refusal, if it is one."""
    how, asked = _how_to_say(arguments, how or HowToSay())
    job = job_of(recipe, asked, ["unbroken", "train", recipe, *asked], front_door=["unbroken", "why", recipe])
    facts = gather(job)
    plan = decide(job, facts)
    if how.shapes or wants_shapes(plan):
        from unbroken.train import decide_by_shapes

        plan = decide_by_shapes(job, facts)
    plan = replace(plan, warnings=(*plan.warnings, *preflight(job, plan)))
    if is_foreign(plan):
        from unbroken.train import require_takeover

        plan = replace(plan, notes=(*plan.notes, *require_takeover(job, plan)))
    timing = last_timing(facts, plan)
    disk = planned_disk(job, plan, timing, _sizes_by_shapes(job, plan) if how.shapes else None)
    if how.as_json:
        more = {"run": str(job.directory), "ignored": list(job.ignored), "disk": disk.as_data() if disk else None}
        print(json.dumps({**as_data(plan), **more}, default=str))
    else:
        said = [*describe(job, plan), *forecast_lines(job, plan, timing, SystemClock().now())]
        print("\n".join([*said, *planned_disk_lines(job, plan, disk)]))
        if _moves_the_rate(plan) and (rates := rates_of(job, plan)) is not None and rates.ahead:
            print("\n".join(as_letters(rates)))
    if how.picture is not None:
        _draw(job, plan, how.picture)
    return plan.exit_code if isinstance(plan, Refuse) else 0


def _sizes_by_shapes(job: Job, plan: Plan) -> Sizes | None:
    """What a save takes, by the model that is built for it; not where earlier saves say it better."""
    if isinstance(plan, Resume) or not job.blueprint:
        return None
    from unbroken.train.sizes import sizes_of_blueprint

    return sizes_of_blueprint(job)


def _how_to_say(arguments: Sequence[str], how: HowToSay) -> tuple[HowToSay, list[str]]:
    """Take the options of `why` out of what was typed, wherever they stand."""
    left: list[str] = []
    words = list(arguments)
    while words:
        match words.pop(0):
            case "--json":
                how = replace(how, as_json=True)
            case "--shapes":
                how = replace(how, shapes=True)
            case "--plot":
                if not words:
                    raise UsageError("--plot", "the file is missing", expected="--plot lr.png")
                how = replace(how, picture=Path(words.pop(0)))
            case word:
                left.append(word)
    return how, left


def _moves_the_rate(plan: Plan) -> bool:
    """Whether the rates to come are not those that were planned before."""
    if not isinstance(plan, Resume):
        return False
    return bool(plan.curves) or any(change.effect is Effect.SCHEDULE for change in plan.changes)


def _draw(job: Job, plan: Plan, file: Path) -> None:
    rates = rates_of(job, plan)
    if rates is None or not rates.all:
        raise UsageError("--plot", "there is no learning rate to draw", expected="a plan that trains, by a schedule")
    write_picture(rates, file, title=f"{job.directory}: {plan.name.lower()}")
    print(f"the learning rate is drawn in {file}", file=sys.stderr)


def job_of(recipe: str, arguments: Sequence[str], typed: Sequence[str], *, front_door: Sequence[str]) -> Job:
    """What was typed, as a job; UsageError where it names no recipe."""
    if not recipe:
        raise UsageError(
            "unbroken",
            "what to train is missing",
            expected=f"a recipe ({' or '.join(installed())}, or package.module:name), then its config",
            do="See `unbroken train --help`.",
        )
    require_one_process()
    program = joined(front_door)
    environment = {**surroundings(typed), "program": program}
    if (left_out := recipe_left_out(recipe, arguments, environment)) is not None:
        raise left_out
    try:
        return find_recipe(recipe).read(arguments, environment)
    except ConfigError as error:
        raise config_of_another(recipe, arguments, environment) or error from None
    except SystemExit as ending:  # a recipe's parser has said what is wrong
        if ending.code == UsageError.exit_code:
            print(f"See `{program} --help`.", file=sys.stderr)
        raise
