"""What `unbroken prove` tells the sessions that it starts: where they train, how far, and how they are killed.

A trial is the same launch in a place of its own: nothing of the user's runs is read or written.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from unbroken.errors import UsageError
from unbroken.fields import BadField, typed
from unbroken.jsonlines import parsed_json
from unbroken.launch.host import PROVE
from unbroken.launch.job import Job
from unbroken.text import as_bytes

KEPT = 2  # checkpoints: a proof of a large model must fit on the disk


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One session of a proof.

    It trains below `place`, saves every `save_every` steps and stops after step `until`. Once `after` steps of the run
    in the folder `run` are done it gets a `signal`, `share` of a step's time later ("": it is left in peace).
    `workers` stand in for those of the loop (None: as the loop says).
    """

    place: str
    until: int
    save_every: int
    workers: int | None = None
    run: str = ""
    after: int = 0
    signal: Literal["", "SIGKILL", "SIGTERM"] = ""
    share: float = 0.0

    def as_text(self) -> str:
        """As it stands in the environment of a session."""
        return json.dumps(asdict(self))


def trial_of(text: str) -> Trial | None:
    """The trial that an environment tells of; None if it tells of none."""
    if not text:
        return None
    try:
        return typed(Trial, parsed_json(as_bytes(text)))
    except (ValueError, BadField) as error:
        raise UsageError(PROVE, f"only `unbroken prove` sets this ({error})", do=f"Unset {PROVE}.") from error


def folder_on_trial(directory: Path) -> str:
    """The folder of a run on trial: its own name, and a mark of where the script would have it."""
    return f"{directory.name}-{zlib.crc32(os.fsencode(directory.absolute())):08x}"


def on_trial(job: Job, trial: Trial) -> Job:
    """The same job in the trial's place: begun there, never copied to another disk, without a limit of time."""
    return replace(
        job,
        directory=Path(trial.place) / folder_on_trial(job.directory),
        usual=(),
        limit=None,
        quota=None,
        backup=None,
        keep_last=job.keep_last or KEPT,
        start=replace(job.start, fresh=False, exact=None, search=()),
        environment=replace(job.environment, on_trial=True),
    )


def environment_of(trial: Trial, inherited: Mapping[str, str], *, hash_seed: str = "") -> dict[str, str]:
    """The environment of a session: as the user's, without what a host or the user says to trainings in earnest."""
    ours = {name: value for name, value in inherited.items() if not name.startswith("UNBROKEN_")}
    fixed = {"PYTHONHASHSEED": hash_seed} if hash_seed else {}
    return {**ours, **fixed, "PYTHONUNBUFFERED": "1", PROVE: trial.as_text()}
