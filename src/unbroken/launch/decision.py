"""Where a launch is decided: the run is locked and looked at, once; `decide` says what becomes of it, and why.

A run that is not there is looked at before its folder is made, so that a refusal leaves no trace of a run that never
was. What was decided on is then compared with what is there under the lock, and only where something changed is it all
looked at again. A run that is there is locked first. From the lock on nobody else changes its folder.

One process does this. What it came to is a `Decision` of plain values: it can be sent to others that train the same run
and have not looked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unbroken.clock import Clock
from unbroken.errors import RunHeld
from unbroken.ids import free_name
from unbroken.launch.decide import Facts, decide, wants_shapes
from unbroken.launch.disk import SavePolicy, disk_lines, planned_disk
from unbroken.launch.execute import beginning_of
from unbroken.launch.explain import explain, refusal
from unbroken.launch.facts import allowed_to_look, gather, is_still_so, preflight
from unbroken.launch.forecast import Kills, forecast_lines, kills_in, last_timing
from unbroken.launch.job import Job
from unbroken.launch.program import changes_of_program, session_program
from unbroken.launch.verdicts import GoingPlan, Plan, Refuse, Resume
from unbroken.run import SessionFiles
from unbroken.run.folder import unreachable
from unbroken.run.layout import ARCHIVE_FOLDER, own
from unbroken.storage import Disk
from unbroken.storage.lock import Holder, RunLock

ByShapes = Callable[[Job, Facts], Plan]  # decides with the tensors of the real model, which takes torch


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What one launch came to.

    `session` is the name under which it trains. The run began under `seed` and `conditions`, which are empty where it
    begins now. `timing` is the pace that the last session recorded, empty where none did; `kills` tells how often the
    run was killed.
    """

    plan: GoingPlan
    session: str
    seed: int
    conditions: Mapping[str, Any]
    timing: Mapping[str, Any]
    kills: Kills


@dataclass(frozen=True, kw_only=True)
class LockedRun:
    """A run that is ours; `previous` held it and died. `looked` is what was found and decided before it was locked."""

    lock: RunLock
    previous: Holder | None
    looked: tuple[Facts, GoingPlan] | None


def lock_run(job: Job, lock: RunLock, *, clock: Clock, by_shapes: ByShapes) -> LockedRun:
    """Lock the run, which makes its folder; raises the refusal where it is held, or new and not to be begun."""
    looked = None
    with allowed_to_look():
        is_new = not job.directory.exists() or bool(unreachable(job.directory, job.layout))
    if is_new:
        facts = gather(job)
        looked = facts, _approved(job, facts, by_shapes)
    try:
        previous = lock.acquire(lambda: free_name(clock.now(), _names_taken(job.directory)))
    except RunHeld:
        _accepted(job, gather(job), by_shapes)  # names the ways out; a run let go in this moment is still refused
        raise
    return LockedRun(lock=lock, previous=previous, looked=looked)


def decide_locked(
    job: Job,
    run: LockedRun,
    *,
    disk: Disk,
    clock: Clock,
    by_shapes: ByShapes,
    saves: SavePolicy,
    say: Callable[[str], None],
) -> tuple[Decision, SessionFiles]:
    """Decide what becomes of a run that is ours, and say it; raises the refusal if it is one. Changes nothing.

    Returns with it what this process writes the run with.
    """
    for line in run.lock.said():
        say(line)
    if run.looked is not None and run.previous is None and is_still_so(job, run.looked[0]):
        facts, plan = run.looked
    else:
        facts = gather(job)
        # The lock is ours by now; what counts is who had it before.
        facts = replace(facts, survey=replace(facts.survey, held=False, holder=run.previous))
        plan = _approved(job, facts, by_shapes)
    files = SessionFiles(
        disk=disk,
        clock=clock,
        directory=job.directory,
        layout=job.layout,
        session=_session_name(job, plan, run.lock, clock),
        lock=run.lock,
        program=session_program(job, plan, facts),
    )
    timing, kills = last_timing(facts, plan), kills_in(facts.history_of(plan).events)
    began = beginning_of(job, plan)
    for line in _lines(job, plan, facts, files, timing, kills, saves):
        say(line)
    if began.seed != job.seed:
        say(f"seed {job.seed} is for a first launch; this run keeps its seed {began.seed}")
    decision = Decision(
        plan=plan,
        session=files.session,
        seed=began.seed,
        conditions=began.conditions,
        timing=timing,
        kills=kills,
    )
    return decision, files


def _lines(
    job: Job,
    plan: GoingPlan,
    facts: Facts,
    files: SessionFiles,
    timing: Mapping[str, Any],
    kills: Kills,
    saves: SavePolicy,
) -> Iterator[str]:
    """What a person reads before the first step."""
    yield from explain(job, plan).lines
    yield from forecast_lines(job, plan, timing, kills, files.clock.now())
    yield from changes_of_program(plan, files.program)
    if isinstance(plan, Resume) and not job.is_script:  # of others more is known once their parts are there
        disk = planned_disk(job, plan, facts, timing, asked=saves)
        yield from disk_lines(job, disk) if disk is not None else ()


def _accepted(job: Job, facts: Facts, by_shapes: ByShapes) -> GoingPlan:
    """The plan; raises the refusal if it is one."""
    plan = decide(job, facts)
    if isinstance(plan, Refuse) or wants_shapes(plan):
        plan = by_shapes(job, facts)
    if isinstance(plan, Refuse):
        raise refusal(job, plan)
    return plan


def _approved(job: Job, facts: Facts, by_shapes: ByShapes) -> GoingPlan:
    """The same, with what the recipe warns of; raises what would end the training before its first step."""
    plan = _accepted(job, facts, by_shapes)
    return replace(plan, warnings=(*plan.warnings, *preflight(job, plan)))


def _session_name(job: Job, plan: GoingPlan, lock: RunLock, clock: Clock) -> str:
    """A name that no session has in the history that the plan brings here: both may have begun in one second."""
    history = plan.records_from if isinstance(plan, Resume) else None
    taken = _names_taken(history) if history is not None else set()
    if lock.session in taken:
        lock.hold_as(free_name(clock.now(), taken | _names_taken(job.directory)))
    return lock.session


def _names_taken(directory: Path) -> set[str]:
    archive = directory / ARCHIVE_FOLDER
    folders = [directory, own(directory) / "configs", *([archive] if archive.is_dir() else [])]
    return {path.stem for folder in folders if folder.is_dir() for path in folder.iterdir()}
