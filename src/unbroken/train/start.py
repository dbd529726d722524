"""Starting a session: lock, look, decide, say so."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unbroken.clock import Clock, SystemClock
from unbroken.errors import RunHeld, UnbrokenError
from unbroken.ids import free_name
from unbroken.launch import (
    Facts,
    FineTune,
    Finished,
    Fresh,
    Job,
    Refuse,
    Resume,
    Start,
    decide,
    gather,
    load_attribute,
    wants_shapes,
)
from unbroken.launch.disk import disk_lines, planned_disk, policy, quota_in
from unbroken.launch.execute import beginning_of
from unbroken.launch.explain import describe, refusal
from unbroken.launch.facts import allowed_to_look
from unbroken.launch.forecast import forecast_lines, last_timing
from unbroken.launch.host import host, require_one_process, started_together, told_to_prove
from unbroken.launch.options import require_weights, script_limit, script_seconds
from unbroken.launch.preflight import preflight
from unbroken.launch.program import LoadedProgram
from unbroken.launch.rerun import rerun_of, this_process
from unbroken.launch.spelling import require_tag
from unbroken.launch.trial import on_trial, trial_of
from unbroken.launch.verdicts import Plan
from unbroken.run import SessionFiles
from unbroken.run.folder import unreachable
from unbroken.run.history import SessionProgram, program_changes, programs_of
from unbroken.run.layout import ARCHIVE_FOLDER, ITERATIONS, Layout, own
from unbroken.storage import Disk
from unbroken.storage.lock import Holder, RunLock
from unbroken.train import arguments
from unbroken.train.arguments import SessionOptions
from unbroken.train.cadence import Every
from unbroken.train.data.loader import OnBad
from unbroken.train.data.rng import seed_all
from unbroken.train.device import take_over
from unbroken.train.record.console import Console, PlainConsole, SessionLog, console_for
from unbroken.train.shapes import decide_by_shapes
from unbroken.train.stop import Exit, Interrupted, OnTrial, StopFlag
from unbroken.train.training_run import TrainingRun

SAVE_EVERY_S = 300.0


def open_run(
    root: str | Path,
    *,
    tag: str = "default",
    config: Any = None,
    effects: Mapping[str, str] | None = None,
    seed: int = 0,
    save_every: int | None = None,
    save_every_epochs: int | None = None,
    save_every_s: float | str | None = SAVE_EVERY_S,
    log_every: int = 10,
    session_s: float | str | None = None,
    reserve_s: float | str = 0.0,
    on_bad: OnBad = "stop",
    keep_last: int | None = None,
    backup: str | Path | None = None,
    quota: str | None = None,
    fresh: bool = False,
    ckpt: str | Path | None = None,
    pretrained_model: str | Path | None = None,
    strict: bool = False,
    weights_key: str = "",
    search: Sequence[str | Path] | None = None,
    layout: Layout = ITERATIONS,
    console: Console | None = None,
) -> TrainingRun:
    """Open the run `root/tag` from a script: plan, print the plan, lock, seed the random streams.

    `config` is a dict of plain values, an `argparse.Namespace`, a dataclass or a config of OmegaConf; a change between
    sessions is listed, and refused where `effects` calls the key "shape" or "meaning" (keys without an effect count as
    "data"). `save_every` counts steps, `save_every_s` seconds. A session of `session_s` seconds stops, with everything
    saved, `reserve_s` before its time is up. Text in place of seconds ("12h", "1h30m", "12:00:00") is read as the
    command line reads it.
    With `strict`, a fine-tune from `pretrained_model` takes every tensor of both sides or is refused, and so is a loop
    with anything that changes and is not tracked, after its first step. `weights_key` is the entry of that file with
    the weights ("ema", "a.b"), where it has an unusual one.
    `on_bad="skip"` leaves samples out whose reading fails. `backup` is a folder on another disk that each
    save is copied to, beside the training. `quota` ("20GB") is how much may lie below the current folder: a warning
    says before the first step if that is too little. `search` are folders in which copies of this run may lie. Where
    `session_s`, `quota` or `search` are not given, what the host says counts, as at the command line
    (docs/sessions.md); `session_s=float("inf")` and `search=()` ask it nothing. A refusal ends the process with its
    exit code.
    """
    try:
        require_one_process()
        said, started = host(SystemClock().now()), this_process()
        again, config = rerun_of(started), arguments.as_dict(config)
        require_weights("open_run(weights_key=...)", asked=bool(weights_key), weights=pretrained_model)
        counts = {
            "save_every": save_every,
            "save_every_epochs": save_every_epochs,
            "log_every": log_every,
            "keep_last": keep_last,
        }
        arguments.require_settings(
            root=root,
            config=config,
            effects=effects,
            seed=seed,
            layout=layout,
            on_bad=on_bad,
            search=search,
            counts=counts,
        )
        kept = arguments.recordable(config or {})
        job = Job(
            recipe="open_run",
            tag=require_tag("open_run(tag)", tag),
            directory=Path(root) / tag,
            config=kept,
            effects=arguments.effects_of(effects or {}, kept),
            seed=seed,
            usual=(Path(started.argv[0]).resolve().parent / root / tag,) if started.is_program else (),
            layout=layout,
            keep_last=keep_last,
            backup=Path(backup) if backup else None,
            quota=quota_in(quota, "open_run(quota)") if quota is not None else said.quota,
            start=Start(
                fresh=fresh,
                exact=Path(ckpt) if ckpt else None,
                weights=Path(pretrained_model) if pretrained_model else None,
                strict=strict,
                weights_key=weights_key,
                search=said.search if search is None else tuple(Path(folder) for folder in search),
            ),
            command=again.command,
            limit=script_limit(session_s, reserve_s, said.limit),
            environment={"again": again.words, "started_together": started_together()},
        )
        return launch(
            job,
            console=console or console_for(sys.stdout),
            options=SessionOptions(
                every=Every(steps=save_every, epochs=save_every_epochs),
                save_every_s=None if save_every_s is None else script_seconds("save_every_s", save_every_s),
                log_every=log_every,
                save_beside=True,
                exits=True,
                on_bad=on_bad,
            ),
        )
    except UnbrokenError as error:
        (console or PlainConsole()).say(str(error))
        raise Exit(error.exit_code, str(error)) from error


def launch(
    job: Job,
    *,
    console: Console,
    clock: Clock | None = None,
    disk: Disk | None = None,
    options: SessionOptions | None = None,
) -> TrainingRun:
    """Lock the run, decide, say the plan; raises the refusal if it is one. Changes nothing but the lock."""
    clock, disk, options = clock or SystemClock(), disk or Disk(), options or SessionOptions()
    if (trial := trial_of(told_to_prove())) is not None:
        job, saves = on_trial(job, trial), Every(steps=trial.save_every)
        by = OnTrial(trial=trial, run=job.directory.name)
        options = replace(options, every=saves, save_every_s=None, trial=by)
    warned: tuple[str, ...] | None = None
    with allowed_to_look():
        is_new = not job.directory.exists() or unreachable(job.directory, job.layout)
    if is_new:
        warned = preflight(job, _plan_or_refusal(job, gather(job)))  # a refusal leaves no trace of a run that never was
    lock = RunLock(disk, own(job.directory), clock)
    try:
        previous = lock.acquire(lambda: free_name(clock.now(), _names_taken(job.directory)))
    except RunHeld:
        _plan_or_refusal(job, gather(job))  # names the ways out; a run let go in this moment is still refused
        raise
    files = SessionFiles(
        disk=disk, clock=clock, directory=job.directory, layout=job.layout, session=lock.session, lock=lock
    )
    log, stop = SessionLog(console, clock), StopFlag(patience_s=options.patience_s)
    try:
        stop.install()
        return _planned(job, files, log, previous, options, stop, warned)
    except BaseException as error:
        if isinstance(error, Interrupted):
            log.say(f"{error.reason} before the first step: nothing was changed")
        stop.uninstall()
        lock.withdraw()
        raise


def _planned(
    job: Job,
    files: SessionFiles,
    log: SessionLog,
    previous: Holder | None,
    options: SessionOptions,
    stop: StopFlag,
    warned: tuple[str, ...] | None,
) -> TrainingRun:
    for line in files.lock.said():
        log.say(line)
    facts = gather(job)
    # The lock is ours by now; what counts is who had it before.
    facts = replace(facts, survey=replace(facts.survey, held=False, holder=previous))
    plan = _plan_or_refusal(job, facts)
    plan = replace(plan, warnings=(*plan.warnings, *(preflight(job, plan) if warned is None else warned)))
    files = _named_apart(replace(files, program=_program(job, plan, facts)), plan)
    timing = last_timing(facts, plan)
    for line in (*describe(job, plan), *forecast_lines(job, plan, timing, files.clock.now())):
        log.say(line)
    for line in _program_lines(plan, files.program):
        log.say(line)
    asked = policy(job, options.every.steps, options.every.epochs, options.save_every_s)
    early = isinstance(plan, Resume) and not job.is_script  # of others more is known once their parts are there
    disk = planned_disk(job, plan, timing, asked=asked, here=facts.survey.view) if early else None
    for line in disk_lines(job, disk) if disk is not None else ():
        log.say(line)
    began = beginning_of(job, plan)
    if began.seed != job.seed:
        log.say(f"seed {job.seed} is for a first launch; this run keeps its seed {began.seed}")
    for sentence in take_over(began.conditions):
        log.say(sentence)
    seed_all(began.seed)
    return TrainingRun(job, plan, files, log, seed=began.seed, options=options, timing=timing, stop=stop)


def _program(job: Job, plan: Plan, facts: Facts) -> SessionProgram:
    """The program that this process runs, and those of the history that it goes on with."""
    if job.task and not isinstance(plan, Finished):
        load_attribute(job.task)  # what is loaded for it belongs to the program
    package = job.task.partition(":")[0].partition(".")[0]
    earlier = programs_of(facts.history_of(plan).events) if isinstance(plan, Resume) else {}
    return SessionProgram(look=LoadedProgram(this_process(), package), earlier=earlier)


def _program_lines(plan: Plan, program: SessionProgram) -> Iterator[str]:
    """What is not the same any more since the session that saved the state."""
    if isinstance(plan, Resume) and program.earlier:
        wrote = str(plan.source.inside.get("session"))
        session = wrote if wrote in program.earlier else [*program.earlier][-1]
        if changes := program_changes(program.earlier[session], program.look()):
            yield f"the program changed since session {session}: {', '.join(changes)}"


def _plan_or_refusal(job: Job, facts: Facts) -> Fresh | Resume | FineTune | Finished:
    plan = decide(job, facts)
    if isinstance(plan, Refuse) or wants_shapes(plan):
        plan = decide_by_shapes(job, facts)
    if isinstance(plan, Refuse):
        raise refusal(job, plan)
    return plan


def _named_apart(files: SessionFiles, plan: Plan) -> SessionFiles:
    """The session under a name that no session has in the history that it brings here: both may be of one second."""
    history = plan.records_from if isinstance(plan, Resume) else None
    taken = _names_taken(history) if history is not None else set()
    if files.session not in taken:
        return files
    files.lock.hold_as(free_name(files.clock.now(), taken | _names_taken(files.directory)))
    return replace(files, session=files.lock.session)


def _names_taken(directory: Path) -> set[str]:
    archive = directory / ARCHIVE_FOLDER
    folders = [directory, own(directory) / "configs", *([archive] if archive.is_dir() else [])]
    return {path.stem for folder in folders if folder.is_dir() for path in folder.iterdir()}
