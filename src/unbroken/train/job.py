"""Carrying a job of a recipe out: launch, build, fit."""

from __future__ import annotations

from unbroken.launch import Finished, Job, load_attribute
from unbroken.train.console import Console
from unbroken.train.fit import fit
from unbroken.train.start import launch


def run_job(job: Job, console: Console) -> None:
    """Train as the job says; raises Exit when it was asked to stop, an UnbrokenError when it cannot be done."""
    run = launch(
        job,
        console=console,
        save_every=job.options.get("save_every"),
        save_every_s=job.options.get("save_every_s"),
        log_every=job.options.get("log_every", 10),
        save_beside=True,
    )
    with run:
        if isinstance(run.plan, Finished):
            return
        build = load_attribute(job.task)
        fit(run, build(job, run.log.say))
