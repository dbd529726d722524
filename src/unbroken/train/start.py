"""Starting a session: what a script says becomes a job, which is decided on (`launch/decision.py`) and opened.

The job of an application says which task is built and trained in it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from unbroken.checkpoint.kept import keeping_what_is_verified
from unbroken.clock import START, Clock, SystemClock
from unbroken.errors import ProcessLost, UnbrokenError
from unbroken.journal import read_events
from unbroken.launch import Accidents, Environment, Finished, Job, LaunchOptions, Start, load_attribute
from unbroken.launch.decision import Decision, decide_locked, lock_run
from unbroken.launch.disk import policy
from unbroken.launch.host import host, on_trial, started_together, told_to_prove, trial_of
from unbroken.launch.job import AUTO
from unbroken.launch.options import require_weights
from unbroken.launch.rerun import aftermath, going_on, rerun_of, this_process
from unbroken.launch.spelling import require_tag
from unbroken.run.layout import ITERATIONS, Layout, own
from unbroken.storage import Disk
from unbroken.storage.lock import RunLock
from unbroken.train import arguments
from unbroken.train.arguments import SessionOptions
from unbroken.train.cadence import Every
from unbroken.train.data.rng import seed_all
from unbroken.train.device import take_over
from unbroken.train.distributed.following import Silent, exit_code_of, files_of_a_follower
from unbroken.train.distributed.world import World, this_world
from unbroken.train.finite import GoBack
from unbroken.train.fit import fit
from unbroken.train.loop.training_run import TrainingRun
from unbroken.train.memory import free_bytes
from unbroken.train.record.console import Console, PlainConsole, SessionLog, console_for
from unbroken.train.shapes import decide_by_shapes
from unbroken.train.stop import Exit, Interrupted, OnTrial, StopFlag
from unbroken.train.task import Coming

SAVE_EVERY_S = 300.0
KEPT_SHARE = 3  # of the free memory, so much may hold a checkpoint until the model that takes it is built


def open_run(
    root: str | Path,
    *,
    tag: str = "default",
    config: Any = None,
    effects: Mapping[str, str] | None = None,
    seed: int = 0,
    save_every: int | Literal["auto"] | None = None,
    save_every_epochs: int | None = None,
    save_every_s: float | str | None = SAVE_EVERY_S,
    log_every: int = 10,
    session_s: float | str | None = None,
    reserve_s: float | str = 0.0,
    on_bad: Literal["stop", "skip"] = "stop",
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
    """Open the run `root/tag` from a script: decide, print the plan, take the lock, seed the random generators.

    Nothing but the lock is written before the loop begins. Where `session_s`, `quota` or `search` are not given, what
    the host says counts, as at the command line (docs/sessions.md).

    Args:
        root: Folder below which the runs lie; each `tag` has a folder of its own there.
        tag: Name of the experiment, and of its folder.
        config: What makes this experiment what it is: a dict of plain values, an `argparse.Namespace`, a dataclass or a
            config of OmegaConf. It is recorded, and a change between sessions is listed; None: nothing.
        effects: What changing a key of `config` does, by dotted key: "shape" and "meaning" refuse a resume, "data",
            "schedule" and "free" are said. A key without an effect counts as "data"; None: all do.
        seed: What all randomness begins from, a whole number from 0 on; a run keeps the one it began with.
        save_every: Save every so many steps; "auto": by time, as often as loses the least, by what a save costs here
            and how often the run is killed; None: not for that reason.
        save_every_epochs: Save at the end of every so many epochs; None: not for that reason.
        save_every_s: Save when so many seconds have passed since the last one, or text ("10m"); None: not for that
            reason.
        log_every: Steps from one line of the log to the next.
        session_s: Seconds after which this session is over, or text ("12h", "1h30m", "12:00:00"): it stops in time with
            everything saved, exit code 75. None: as the host says; `float("inf")`: never.
        reserve_s: Be done so many seconds before the session's end.
        on_bad: A sample that cannot be read ends the training ("stop") or is left out, said and counted ("skip").
        keep_last: How many checkpoints stay, never fewer than two verified ones; None keeps all.
        backup: A folder on another disk to which each save is copied, beside the training; None: none.
        quota: How much may lie below the current folder ("20GB"): a warning says before the first step that it will
            not do. None: as the host says.
        fresh: Begin anew; what the run has so far moves into its `archive/`.
        ckpt: Resume from exactly this file, whatever else is there; None: from the furthest that is whole.
        pretrained_model: Begin a new run with the weights of this file (fine-tuning); of no effect once it has a
            save. None: from nothing.
        strict: Refuse to fine-tune where one tensor of either side would be left over, and refuse, after the first
            steps, a loop in which something changes that is not tracked.
        weights_key: The entry of `pretrained_model` that holds the weights ("ema", "a.b"), where it has an unusual one.
        search: Folders in which copies of this run may lie; None: as the host says, (): none.
        layout: How the run's files are called: `ITERATIONS` or `EPOCHS`.
        console: Where lines are shown; None: a bar at a terminal, plain lines elsewhere.
    Returns:
        The run, to be used in a `with` block: its end saves what is not saved and lets go of the lock.
    Raises:
        Exit: The launch was refused, or an argument is wrong: the reason was printed, and `code` is the exit code.
    Example:
        import torch
        from unbroken.train import open_run

        data = torch.utils.data.TensorDataset(torch.rand(64, 3), torch.rand(64, 1))
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with open_run("output", tag="small", config={"lr": 0.1}) as run:
            run.track(model=model, optimizer=optimizer)
            for x, y in run.batches(data, batch_size=16, epochs=2):
                loss = torch.nn.functional.mse_loss(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log(loss=loss)
    """
    leads = True
    try:
        leads = this_world().leads
        started = this_process()
        again, config = rerun_of(started), arguments.as_dict(config)
        require_weights("open_run(weights_key=...)", asked=bool(weights_key), weights=pretrained_model)
        arguments.require_settings(
            root=root,
            config=config,
            effects=effects,
            seed=seed,
            layout=layout,
            on_bad=on_bad,
            search=search,
            counts={
                "save_every": None if save_every == AUTO else save_every,
                "save_every_epochs": save_every_epochs,
                "log_every": log_every,
                "keep_last": keep_last,
            },
        )
        # What was given, in the values that a recipe makes of a command line: from here on both are launched alike.
        said = arguments.host_of(
            host(SystemClock().now()), session_s=session_s, reserve_s=reserve_s, quota=quota, search=search
        )
        start = Start(
            fresh=fresh,
            exact=Path(ckpt) if ckpt else None,
            weights=Path(pretrained_model) if pretrained_model else None,
            strict=strict,
            weights_key=weights_key,
            search=said.search,
        )
        options = LaunchOptions(
            save_every=None if save_every == AUTO else save_every,
            save_every_epochs=save_every_epochs,
            save_every_s=AUTO if save_every == AUTO else arguments.save_interval(save_every_s),
            log_every=log_every,
            accidents=Accidents(on_bad=on_bad),
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
            quota=said.quota,
            limit=said.limit,
            start=start,
            options=options,
            command=again.command,
            environment=Environment(
                again=again.words, started_together=started_together(), processes=this_world().size, host=said
            ),
        )
        return launch(job, console=console or console_for(sys.stdout), options=SessionOptions.of(options, exits=True))
    except UnbrokenError as error:
        if leads:  # the others hear how it ended, not why
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
    """Lock the run of a job, decide and say the plan; the lock is all that is changed.

    Of several processes rank 0 does, and the others go by what it tells them.

    Args:
        job: Who, where, with which settings, how far.
        console: Where lines are shown.
        clock: What tells the time; None: that of this machine.
        disk: What changes the disk; None: the real one.
        options: How the session goes about it (saves, log); None: by time, every 10 steps a line.
    Returns:
        The run, to be used in a `with` block.
    Raises:
        RunHeld: Another live process works on the run.
    """
    START.look()
    clock, options, world = clock or SystemClock(), options or SessionOptions(), this_world()
    if (trial := trial_of(told_to_prove())) is not None:
        job = on_trial(job, trial)
        by = OnTrial(trial=trial, run=job.directory.name)  # in the trial's place it has another name
        options = replace(options, every=Every(steps=trial.save_every), save_every_s=None, trial=by)
    log, stop = SessionLog(console if world.leads else Silent(), clock), StopFlag(patience_s=options.patience_s)
    stop.answers = world.leads
    try:
        stop.install()  # before the others are waited for, which may take long
        if world.leads:
            free = free_bytes()
            with keeping_what_is_verified(None if free is None else free // KEPT_SHARE):  # and loaded from memory
                return _lead(job, log, clock, disk or Disk(), options, stop, world)
        return _follow(job, log, clock, options, stop, world)
    except BaseException as error:
        if isinstance(error, Interrupted):
            log.say(f"{error.reason} before the first step: nothing was changed")
            world.leave_word(error)
            world.close()
        stop.uninstall()
        raise


def _follow(
    job: Job, log: SessionLog, clock: Clock, options: SessionOptions, stop: StopFlag, world: World
) -> TrainingRun:
    """The same session as rank 0 begins, in a process that writes and says nothing."""
    decision: Decision | int = world.hear()
    if isinstance(decision, int):
        raise Exit(decision, "as rank 0 ended")
    take_over(decision.conditions)
    seed_all(decision.seed)
    files = files_of_a_follower(decision.session, job.directory, job.layout, clock)
    return TrainingRun(replace(job, backup=None), decision, files, log, options=options, stop=stop, world=world)


def _lead(
    job: Job, log: SessionLog, clock: Clock, disk: Disk, options: SessionOptions, stop: StopFlag, world: World
) -> TrainingRun:
    """Lock the run, decide, say the plan; the others are told what it came to, or with which code all end."""
    lock = RunLock(disk, own(job.directory), clock)
    try:
        locked = lock_run(job, lock, clock=clock, by_shapes=decide_by_shapes)
        saves = policy(job, options.every.steps, options.every.epochs, options.save_every_s)
        decision, files = decide_locked(
            job, locked, disk=disk, clock=clock, by_shapes=decide_by_shapes, saves=saves, say=log.say
        )
        for sentence in take_over(decision.conditions):
            log.say(sentence)
        seed_all(decision.seed)
        run = TrainingRun(job, decision, files, log, options=options, stop=stop, world=world)
        world.tell(decision)
        START.enter("build")
        return run
    except BaseException as error:
        lock.withdraw()
        if not isinstance(error, Interrupted | ProcessLost):  # else it waits for nobody
            with suppress(ProcessLost):
                world.tell(exit_code_of(error))
        raise


def run_job(job: Job, console: Console, *, began_s: float | None = None, coming: Coming | None = None) -> None:
    """Train as a job says: launch it, build its task, `fit`; after a rollback, launch it again as after a kill.

    Args:
        job: Whose `task` is the address of the builder.
        console: Where lines are shown.
        began_s: When the session began, on the monotonic clock in seconds; None: now.
        coming: Told what comes next, see `fit`; None: nobody is.
    Raises:
        Exit: The run was asked to stop; everything is saved.
    """
    began_s = SystemClock().monotonic_s() if began_s is None else began_s
    while (again := _session(job, console, began_s, coming)) is not None:
        job = again


def _session(job: Job, console: Console, began_s: float, coming: Coming | None) -> Job | None:
    """One session; returns the job of the next one if the run goes back."""
    asked = job.options
    run = launch(job, console=console, options=SessionOptions.of(asked, began_s=began_s))
    if restarted := job.environment.restarted:
        run.session_log.say(f"started again: {restarted.why}")
    try:
        with run:
            if not isinstance(run.plan, Finished):
                build = load_attribute(job.task)
                fit(run, build(run.job, run.session_log.say), accidents=asked.accidents, coming=coming)
            return None
    except GoBack:
        left = aftermath(read_events(own(run.directory) / "journal.jsonl"))
        return replace(job, start=going_on(job.start, left), environment=replace(job.environment, restarted=None))
