"""Carrying a plan out: the only place where a launch changes a run's folder.

The order matters when a kill falls between two lines: the record and the journal say what is about to happen before
files move, checkpoints move before the records about them, and nothing is deleted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from unbroken.clock import Clock, utc_text
from unbroken.ids import new_id
from unbroken.journal import Journal
from unbroken.keep.sync import copy_file
from unbroken.launch.beginning import beginning_of
from unbroken.launch.bringing import bring_here
from unbroken.launch.job import Job, Limit
from unbroken.launch.parent import parent_of
from unbroken.launch.rerun import again_in_words
from unbroken.launch.verdicts import FineTune, Fresh, Resume, as_event
from unbroken.run import OpenRun, RunRecord, SessionFiles, read_record
from unbroken.run.layout import ARCHIVE_FOLDER, manifests, own
from unbroken.run.pins import PATIENCE_S, PINS
from unbroken.run.record import write_record
from unbroken.run.survey import RESTORING
from unbroken.storage import PARTIAL_SUFFIX, Disk, durable_folder, explained, point_to
from unbroken.storage.lock import LOCK_FILES
from unbroken.storage.turn import turn_at

HELD = (*LOCK_FILES, RESTORING)


def execute(
    job: Job, plan: Fresh | Resume | FineTune, files: SessionFiles, *, conditions: Mapping[str, Any]
) -> tuple[OpenRun, Fresh | Resume | FineTune]:
    """Make the run's folder what the plan says, and open it; the lock is already held.

    Returns the open run, and the plan with its source where it lies now (a copy from elsewhere has moved in).
    """
    with explained(files.disk, files.directory, "the run's folder could not be prepared"):
        return _execute(job, plan, files, conditions)


def _execute(
    job: Job, plan: Fresh | Resume | FineTune, files: SessionFiles, conditions: Mapping[str, Any]
) -> tuple[OpenRun, Fresh | Resume | FineTune]:
    disk, directory = files.disk, files.directory
    begins = not isinstance(plan, Resume) or read_record(directory) is None
    parent = parent_of(job, plan) if begins else None  # before anything moves: the file may lie in this folder
    if _makes_room(plan, directory):
        _archive(files, starts_over=not isinstance(plan, Resume))
    for folder in (directory, own(directory) / "configs", manifests(directory), files.layout.checkpoints(directory)):
        durable_folder(disk, folder)
    if isinstance(plan, Resume) and plan.copy_from is not None:
        plan = bring_here(disk, job, plan)
    run = OpenRun(files, _record(disk, job, plan, files, conditions, parent), keep_last=job.keep_last)
    try:
        _announce(run, job, plan)
    except BaseException:
        run.close()
        raise
    return run, plan


def _announce(run: OpenRun, job: Job, plan: Fresh | Resume | FineTune) -> None:
    """Say in the journal what this session does, then move away what it will not use."""
    run.journal.write(
        "session",
        plan=as_event(plan),
        command=job.command or f"({again_in_words(job.environment, '')})",
        total=job.total_steps,
        best=plan.source.inside.get("best") if isinstance(plan, Resume) else None,
        until=_until(job.limit, run.files.clock),
        environment=dict(job.environment),
        program=run.files.program.recorded(run.program),
    )
    run.write_config(job.config)
    _set_aside(run, plan)


def _until(limit: Limit | None, clock: Clock) -> str | None:
    """When this session has to be over, for who watches it; it began a moment ago."""
    if limit is None:
        return None
    return utc_text(clock.now() + timedelta(seconds=limit.left_s - limit.reserve_s))


def _record(
    disk: Disk,
    job: Job,
    plan: Fresh | Resume | FineTune,
    files: SessionFiles,
    conditions: Mapping[str, Any],
    parent: Mapping[str, Any] | None,
) -> RunRecord:
    """The run's record; written now if this is the run's first launch here, or its first from another parent."""
    known = read_record(files.directory)
    if known is not None:
        if isinstance(plan, Resume) or known.parent == parent:
            return known
        known = replace(known, parent=parent)  # nothing was saved yet: what was begun with before is gone
        write_record(disk, files.directory, known)
        return known
    continues = isinstance(plan, Resume) and plan.source.run
    began = beginning_of(job, plan)
    record = RunRecord(
        id=plan.source.run if continues and isinstance(plan, Resume) else new_id(),
        recipe=job.recipe,
        tag=job.tag,
        created=utc_text(files.clock.now()),
        seed=began.seed,
        conditions=dict(began.conditions or conditions),
        parent=parent,
        layout=job.layout.as_plain(),
    )
    write_record(disk, files.directory, record)
    return record


def _makes_room(plan: Fresh | Resume | FineTune, directory: Path) -> bool:
    """Whether everything here moves into the archive: on request, or because a copy of the run comes in."""
    if isinstance(plan, Resume):
        has_records = (own(directory) / "journal.jsonl").exists() or (own(directory) / "run.json").exists()
        return plan.copy_from is not None and (has_records or any(directory.glob("**/*.pth")))
    return plan.archive


def _archive(files: SessionFiles, *, starts_over: bool) -> None:
    """Move everything of the old history into `archive/<session>/`: checkpoints first, then records, the journal last.

    The journal says before the first move that the run starts over, so that the launch after a kill in between knows
    what the files that are left mean.
    """
    disk, directory = files.disk, files.directory
    target = directory / ARCHIVE_FOLDER / files.session
    journal = own(directory) / "journal.jsonl"
    if starts_over:
        said = Journal(disk, journal, clock=files.clock, session=files.session)
        said.write("archiving", to=target.relative_to(directory).as_posix())
        said.close()
    else:  # a copy that was cut off while it came in: whole files may be history, half of one is none
        for path in sorted(directory.rglob(f"*{PARTIAL_SUFFIX}")):
            if ARCHIVE_FOLDER not in path.relative_to(directory).parts:
                disk.remove(path)
    with turn_at(own(directory) / PINS, files.clock, wait_s=PATIENCE_S):  # pins go with the history they were set in
        move_history_aside(disk, directory, target)


def move_history_aside(disk: Disk, directory: Path, target: Path) -> None:
    """Move everything but the archive itself: checkpoints first, then records, the journal last."""
    journal = own(directory) / "journal.jsonl"
    durable_folder(disk, target / own(directory).name)
    kept = {ARCHIVE_FOLDER, own(directory).name}
    move_all(disk, [path for path in sorted(directory.iterdir()) if path.name not in kept], target)
    records = [path for path in sorted(own(directory).iterdir()) if path.name not in HELD and path != journal]
    move_all(disk, records, target / own(directory).name)
    move_all(disk, [journal] if journal.exists() else [], target / own(directory).name)


def move_all(disk: Disk, paths: Sequence[Path], target: Path) -> None:
    """Move files and folders into a folder, durably."""
    for path in paths:
        if path.is_symlink() and not path.readlink().is_absolute() and path.readlink().parent != Path():
            point_to(disk, target / path.name, os.path.relpath(path.resolve(), target.resolve()))  # it leads far away
            disk.remove(path)
        else:
            disk.move(path, target / path.name)
    for folder in {target, *(path.parent for path in paths)}:
        disk.sync_folder(folder)


def _set_aside(run: OpenRun, plan: Fresh | Resume | FineTune) -> None:
    """Move what this session will not use out of the way of the names it will write."""
    aside = [
        (item.path, f"damaged: {item.reason}" if item.damaged else item.reason)
        for item in plan.rejected
        if item.set_aside
    ]
    if isinstance(plan, Resume):
        aside += [(path, "superseded") for path in plan.superseded]
    folder = run.files.layout.checkpoints(run.directory)
    target = run.directory / ARCHIVE_FOLDER / run.files.session
    if isinstance(plan, Resume) and plan.keep_copy:
        durable_folder(run.files.disk, target)
        copy_file(run.files.disk, plan.source.path, target / plan.source.name)
        run.journal.write("kept a copy", file=plan.source.name, to=str(target.relative_to(run.directory)))
    for path, reason in aside:
        if path.parent == folder and path.exists():
            durable_folder(run.files.disk, target)
            move_all(run.files.disk, [path], target)
            run.journal.write("set aside", file=path.name, reason=reason, to=str(target.relative_to(run.directory)))
    partials = [*folder.glob(f"*.pth{PARTIAL_SUFFIX}"), *own(run.directory).rglob(f"*{PARTIAL_SUFFIX}")]
    for path in sorted(partials):
        run.files.disk.remove(path)
        run.journal.write("removed", file=path.name, reason="a save that was cut off")
    run.store.finish_removals()
