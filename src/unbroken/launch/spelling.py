"""How options, commands and counts are spelled: in the words of the front door that the user came through."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from unbroken.config import ABSENT, Change
from unbroken.launch.job import Job
from unbroken.quantities import counted
from unbroken.run import Candidate

MOST_UNDONE = 3  # changes that a sentence names


def option(job: Job, name: str, value: str = "") -> str:
    """An option as it is typed at this front door: a flag, or an argument of `open_run` in the user's own script."""
    if job.is_script:
        written = "True" if name == "fresh" else f'"{value}"' if value else "..."
        return f"open_run(..., {name}={f'[{written}]' if name == 'search' else written})"
    return f"--{job.flags.get(name, name)} {value}".rstrip()


def continue_there(job: Job, run: Path) -> str:
    """How to go on with a run that lies in another folder: in its place, or with a copy of it here."""
    copied = f"with a copy of it here: {option(job, 'search', str(run))}"
    if job.is_script:
        return f'to go on with it: open_run("{run.parent}", ...), or {copied}'
    if "directory" not in job.flags:
        return f"to go on {copied}"
    return f"to go on with it: {option(job, 'directory', str(run))}, or {copied}"


def again_with(job: Job, name: str) -> str:
    """The whole command with one more flag; a script has to be edited."""
    return option(job, name) if job.is_script else f"{job.command} {option(job, name)}".strip()


def start_over_words(job: Job) -> str:
    """How to start over, and what becomes of what is here."""
    return f"start over: {again_with(job, 'fresh')}  (what is here moves into archive/, nothing is deleted)"


def fine_tune_words(job: Job, source: Candidate | None = None, *, tag: str = "") -> str:
    """How to begin a new run with the weights of a file."""
    tag, file = tag or f"{job.tag}_finetune", str(source.path) if source else "FILE"
    if job.is_script:
        return f'open_run(..., tag="{tag}", pretrained_model="{file}")'
    return f"{option(job, 'tag', tag)} {option(job, 'pretrained_model', file)}"


def from_nothing_words(job: Job, tag: str) -> str:
    """How to train from nothing under another tag, also where the config names a file to go on from."""
    fresh = f" {option(job, 'fresh')}" if job.start.origin is not None else ""
    return f"{option(job, 'tag', tag)}{fresh}"


def pattern(job: Job) -> str:
    """The names of full checkpoints, as a shell pattern."""
    return job.layout.checkpoint_name.format(step="*", epoch="*")


def undo(job: Job, changes: Sequence[Change]) -> str:
    """How to take changes back: in the config, or on the command line."""
    shown = changes[:MOST_UNDONE]
    words = [f"remove {item.key}" if item.old is ABSENT else f"{item.key}={item.old}" for item in shown]
    in_config = ", ".join(words) + (" ..." if len(changes) > len(shown) else "")
    if not job.override or any(item.old is ABSENT for item in changes):
        return in_config
    flag, _, pair = job.override.partition(" ")
    pairs = [pair.format(key=item.key, value=shlex.quote(str(item.old))) for item in changes]
    return f"{in_config} in the config, or: {flag} {' '.join(pairs)}"


def length(job: Job) -> str:
    """How long a training was asked for, in its own measure."""
    if job.epochs is not None:
        return counted(job.epochs, "epoch")
    return counted(job.total_steps or 0, "step")
