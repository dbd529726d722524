"""Bringing a copy of a run into its folder: its journal first, the checkpoint last.

The folder it comes from may be read-only. A kill in between leaves a folder that claims a history and has nothing to
resume from, so that the next launch looks elsewhere again or refuses, and never begins from nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from unbroken.errors import DamagedFile
from unbroken.ids import is_name, place
from unbroken.journal import read_events
from unbroken.keep.sync import copy_file
from unbroken.launch.job import Job
from unbroken.launch.verdicts import Resume
from unbroken.logbook import memory
from unbroken.run import Candidate, Layout, look_at
from unbroken.run.bounds import is_inside
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, manifests, own
from unbroken.storage import Disk, durable_folder, is_ordinary

TEXTS = {".log", ".txt", ".json", ".jsonl", ".py", ".yaml", ".yml", ".csv"}  # what a person reads of a session


def bring_here(disk: Disk, job: Job, plan: Resume) -> Resume:
    """Copy what the plan says; the plan with its source where it lies now."""
    if plan.records_from is not None:
        _bring_records(disk, job, plan.records_from)
        _bring_readable(disk, job, plan.records_from)
    checkpoints = job.layout.checkpoints(job.directory)
    for path in plan.weights_along:
        copy_file(disk, path, place(checkpoints, path.name))
    target = checkpoints / name_on_arrival(job.layout, plan.source)
    copy_file(disk, plan.source.path, target)
    arrived = look_at(target, manifests(job.directory))
    if arrived.state != "good":
        raise DamagedFile(
            target,
            "the copy is not what was read",
            found=arrived.reason,
            do=f"{plan.source.path} is untouched: run the same command again.",
        )
    return replace(plan, source=arrived)


def name_on_arrival(layout: Layout, source: Candidate) -> str:
    """The name that the run itself gives to such a file, whatever it was called on its way."""
    if source.kind != "checkpoint":
        return source.name
    epoch = source.epoch or 0
    own_names = {layout.checkpoint(step=source.step, epoch=epoch, milestone=True), layout.rolling_name}
    if source.name in own_names:
        return source.name
    # Where names count epochs, only the rolling name is right in the middle of one as at its end.
    return layout.checkpoint(step=source.step, epoch=epoch, milestone=not layout.rolling_name)


def shown(run: Path, layout: Layout) -> Iterator[Path]:
    """What a run shows of its history: scalars, curves, and of each session log, scalars and config; no pictures."""
    if layout.run_scalars:
        yield run / layout.run_scalars
    for folder in sorted({layout.curves, layout.evaluation_curves} - {""}):
        yield from sorted((run / folder).glob("*"))
    if layout.evaluation_curves:  # beside the curves lie the results, by epoch
        yield from _texts_below((run / layout.evaluation_curves).parent)
    events = read_events(own(run) / "journal.jsonl")
    for session in dict.fromkeys(event["session"] for event in events if _is_session(event.get("session"))):
        if layout.session_folder:
            yield from _texts_below(layout.session(run, session))
        else:
            yield layout.log(run, session)


def _is_session(recorded: object) -> bool:
    """Whether a session of this name may have written a folder or a log: it may be a stranger who says so."""
    return is_name(recorded) and recorded not in (OWN_FOLDER, ARCHIVE_FOLDER)


def _texts_below(folder: Path) -> Iterator[Path]:
    yield from (path for path in sorted(folder.rglob("*")) if path.suffix in TEXTS)


def _bring_readable(disk: Disk, job: Job, origin: Path) -> None:
    for name in ("configs", "manifests"):
        for path in sorted((own(origin) / name).glob("*.json")):
            _bring(disk, job, origin, path)
    for path in shown(origin, job.layout):
        _bring(disk, job, origin, path)


def _bring_records(disk: Disk, job: Job, origin: Path) -> None:
    """The journal comes first: it is what says that there is a history."""
    for name in ("journal.jsonl", "run.json", "metrics.jsonl", memory.FILE):
        _bring(disk, job, origin, own(origin) / name)


def _bring(disk: Disk, job: Job, origin: Path, path: Path) -> None:
    """Copy a file of a run, unless it lies behind a link out of that; what has its name here stays as it is."""
    target = job.directory / path.relative_to(origin)
    if is_ordinary(path) and not os.path.lexists(target) and is_inside(path.parent, origin):
        durable_folder(disk, target.parent)
        copy_file(disk, path, target)
