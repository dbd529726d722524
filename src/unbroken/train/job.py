"""Carrying a job of a recipe out: launch, build, fit."""

from __future__ import annotations

from unbroken.launch import Finished, Job, load_attribute
from unbroken.train.cadence import Every
from unbroken.train.console import Console
from unbroken.train.fit import fit
from unbroken.train.options import SessionOptions
from unbroken.train.start import launch


def run_job(job: Job, console: Console, *, began_s: float | None = None) -> None:
    """Train as the job says; raises Exit when it was asked to stop, an UnbrokenError when it cannot be done.

    The session began at `began_s` on the monotonic clock, or now.
    """
    asked = job.options
    options = SessionOptions(
        every=Every(steps=asked.get("save_every"), epochs=asked.get("save_every_epochs")),
        save_every_s=asked.get("save_every_s"),
        log_every=asked.get("log_every", 10),
        save_beside=True,
        on_bad=asked.get("on_bad", "stop"),
        session_s=asked.get("session_s"),
        reserve_s=asked.get("reserve_s", 0.0),
        began_s=began_s,
    )
    run = launch(job, console=console, options=options)
    with run:
        if isinstance(run.plan, Finished):
            return
        build = load_attribute(job.task)
        fit(run, build(job, run.log.say))
