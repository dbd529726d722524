"""How options, commands and counts are spelled: in the words of the front door that the user came through."""

from __future__ import annotations

import re

from unbroken.config import ABSENT, Change
from unbroken.launch.job import Job
from unbroken.run import Candidate


def option(job: Job, name: str, value: str = "") -> str:
    """An option as it is typed at this front door: a flag, or an argument of `open_run` in the user's own script."""
    if job.is_script:
        written = "True" if name == "fresh" else f'"{value}"' if value else "..."
        return f"open_run(..., {name}={f'[{written}]' if name == 'search' else written})"
    return f"--{job.flags.get(name, name)} {value}".rstrip()


def again_with(job: Job, name: str) -> str:
    """The whole command with one more flag; a script has to be edited."""
    return option(job, name) if job.is_script else f"{job.command} {option(job, name)}".strip()


def start_over_words(job: Job) -> str:
    """How to start over, and what becomes of what is here."""
    return f"start over: {again_with(job, 'fresh')}  (what is here moves into archive/, nothing is deleted)"


def fine_tune_words(job: Job, source: Candidate | None = None) -> str:
    """How to begin a new run with the weights of a file."""
    tag, file = f"{job.tag}_finetune", str(source.path) if source else "FILE"
    if job.is_script:
        return f'open_run(..., tag="{tag}", pretrained_model="{file}")'
    return f"{option(job, 'tag', tag)} {option(job, 'pretrained_model', file)}"


def pattern(job: Job) -> str:
    """The names of full checkpoints, as a shell pattern."""
    return job.layout.checkpoint_name.format(step="*", epoch="*")


def suffix(change: Change) -> str:
    """What to add to a tag so that it names this change."""
    words = change.key.rsplit(".", 1)[-1] + "_" + str(change.new)
    return re.sub(r"[\W_]+", "_", words)[:24].strip("_").lower()


def undo(change: Change) -> str:
    """How to take one change back."""
    return f"remove {change.key}" if change.old is ABSENT else f"{change.key}={change.old}"


def count(number: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def is_or_are(number: int) -> str:
    """The verb for a number of things."""
    return "is" if number == 1 else "are"
