"""`train`: plan, print the plan, carry it out."""

from __future__ import annotations

import argparse

from unbroken.cli.args import CommandParser
from unbroken.cli.job import job_of, train_job
from unbroken.clock import START, SystemClock
from unbroken.launch.host import process_age_s, processes_said
from unbroken.launch.rerun import typed_again

RECIPE = "an installed recipe, or package.module:name; then its CONFIG and options"


def train_options(parser: CommandParser) -> None:
    """A recipe; all else is the recipe's."""
    parser.add_argument("recipe", nargs="?", metavar="RECIPE", help=RECIPE)
    parser.add_examples(
        "unbroken train RECIPE CONFIG                   begins the run, or resumes it",
        "unbroken train RECIPE CONFIG --session 12h     stops in time, with everything saved",
        "unbroken train RECIPE --help                   the options of the recipe",
    )


def train_command(options: argparse.Namespace) -> int:
    """Plan, print the plan, carry it out. After any interruption, run the same command again.

    The exit code is 0 when done, 75 when stopped and resumable.
    """
    began_s = SystemClock().monotonic_s() - process_age_s()  # loading Python and torch is part of the session
    START.begin("imports", began_s)
    recipe, *arguments = options.words or [""]
    typed = options.typed or typed_again(arguments, otherwise=["unbroken", "train", recipe, *arguments])
    job = job_of(recipe, arguments, typed, front_door=typed[: len(typed) - len(arguments)])
    if job.options.processes.count > 1 and processes_said().size == 1:
        from unbroken.cli.processes import train_together

        return train_together(recipe, arguments, typed=typed, job=job)
    if job.options.accidents.restarts:
        from unbroken.cli.supervise import supervise

        return supervise(recipe, arguments, typed=typed, job=job, began_s=began_s)
    return train_job(job, began_s=began_s)
