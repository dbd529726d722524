"""Carrying a job of a recipe out: launch, build, fit."""

from __future__ import annotations

from dataclasses import replace

from unbroken.clock import SystemClock
from unbroken.journal import read_events
from unbroken.launch import Finished, Job, load_attribute
from unbroken.launch.rerun import aftermath, going_on
from unbroken.run.layout import own
from unbroken.train.accidents import Accidents
from unbroken.train.cadence import Every
from unbroken.train.console import Console
from unbroken.train.finite import GoBack
from unbroken.train.fit import Coming, fit
from unbroken.train.options import SessionOptions
from unbroken.train.start import launch


def run_job(job: Job, console: Console, *, began_s: float | None = None, coming: Coming | None = None) -> None:
    """Train as the job says; raises Exit when it was asked to stop, an UnbrokenError when it cannot be done.

    The session began at `began_s` on the monotonic clock, or now. `coming` is told what comes next, see `fit`. A run
    that goes back to its last checkpoint is launched again here, by the same way as after a kill.
    """
    began_s = SystemClock().monotonic_s() if began_s is None else began_s
    while (again := _session(job, console, began_s, coming)) is not None:
        job = again


def _session(job: Job, console: Console, began_s: float, coming: Coming | None) -> Job | None:
    """One session; returns the job of the next one if the run goes back."""
    asked = job.options
    options = SessionOptions(
        every=Every(steps=asked.get("save_every"), epochs=asked.get("save_every_epochs")),
        save_every_s=asked.get("save_every_s"),
        log_every=asked.get("log_every", 10),
        save_beside=True,
        on_bad=asked.get("on_bad", "stop"),
        began_s=began_s,
    )
    accidents = Accidents(on_oom=asked.get("on_oom", "halve"), on_nan=asked.get("on_nan", "stop"))
    run = launch(job, console=console, options=options)
    if restarted := job.environment.get("restarted"):
        run.session_log.say(f"started again: {restarted['why']}")
    try:
        with run:
            if not isinstance(run.plan, Finished):
                build = load_attribute(job.task)
                fit(run, build(run.job, run.session_log.say), accidents=accidents, coming=coming)
            return None
    except GoBack:
        left = aftermath(read_events(own(run.directory) / "journal.jsonl"))
        once = {name: fact for name, fact in job.environment.items() if name != "restarted"}
        return replace(job, start=going_on(job.start, left), environment=once)
