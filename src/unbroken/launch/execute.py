"""Carrying a plan out: the only place where a launch changes a run's folder.

The order matters when a kill falls between two lines: the record and the journal say what is about to happen before
files move, checkpoints move before the records about them, and nothing is deleted. A copy of a run comes in with its
journal first and the checkpoint last: a kill in between leaves a folder that claims a history and has nothing to resume
from, so that the next launch looks elsewhere again or refuses, and never begins from nothing. The folder it comes from
may be read-only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from unbroken.checkpoint.removal import remove_all
from unbroken.checkpoint.sharded import head_of, is_sharded, size_of
from unbroken.clock import Clock, utc_text
from unbroken.errors import DamagedFile
from unbroken.ids import is_name, new_id, place
from unbroken.journal import Journal, read_events
from unbroken.keep.archive import move_all, move_history_aside
from unbroken.keep.sync import copy_checkpoint, copy_file
from unbroken.launch.explain import explain
from unbroken.launch.job import Job, Limit
from unbroken.launch.rerun import again_in_words
from unbroken.launch.verdicts import FineTune, Finished, Fresh, Resume
from unbroken.logbook.file import FILE as LOGGED
from unbroken.run import Candidate, Layout, OpenRun, RunRecord, SessionFiles, look_at, read_record
from unbroken.run.folder import cut_off_saves, is_inside
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, SUFFIXES, manifests, own
from unbroken.run.record import PATIENCE_S, PINS, write_record
from unbroken.storage import PARTIAL_SUFFIX, Disk, durable_folder, explained, is_ordinary
from unbroken.storage.digest import sha256_of
from unbroken.storage.file_lock import turn_at

TEXTS = {".log", ".txt", ".json", ".jsonl", ".py", ".yaml", ".yml", ".csv"}  # what a person reads of a session


def execute(
    job: Job, plan: Fresh | Resume | FineTune, files: SessionFiles, *, conditions: Mapping[str, Any]
) -> tuple[OpenRun, Fresh | Resume | FineTune]:
    """Make the run's folder what the plan says, and open it; the lock is already held.

    Returns the open run, and the plan with its source where it lies now (a copy from elsewhere has moved in).
    """
    disk, directory = files.disk, files.directory
    with explained(disk, directory, "the run's folder could not be prepared"):
        begins = not isinstance(plan, Resume) or read_record(directory) is None
        parent = parent_of(job, plan) if begins else None  # before anything moves: the file may lie in this folder
        if _makes_room(plan, directory):
            _archive(files, starts_over=not isinstance(plan, Resume))
        folders = (directory, own(directory) / "configs", manifests(directory), files.layout.checkpoints(directory))
        for folder in folders:
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
        plan=explain(job, plan).for_journal(),
        command=job.command or f"({again_in_words(job.environment, '')})",
        total=job.total_steps,
        best=plan.source.inside.get("best") if isinstance(plan, Resume) else None,
        until=_until(job.limit, run.files.clock),
        environment=job.environment.as_plain(),
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
        return plan.copy_from is not None and (
            has_records or any(any(directory.glob(f"**/*{end}")) for end in SUFFIXES)
        )
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
        copy_checkpoint(run.files.disk, plan.source.path, target / plan.source.name)
        run.journal.write("kept a copy", file=plan.source.name, to=str(target.relative_to(run.directory)))
    for path, reason in aside:
        if path.parent == folder and path.exists():
            durable_folder(run.files.disk, target)
            move_all(run.files.disk, [path], target)
            run.journal.write("set aside", file=path.name, reason=reason, to=str(target.relative_to(run.directory)))
    for path in [*cut_off_saves(folder), *sorted(own(run.directory).rglob(f"*{PARTIAL_SUFFIX}"))]:
        if (manifests(run.directory) / f"{path.name}.json").exists():  # it was whole: a head that is lost may be found
            to = str(target.relative_to(run.directory))
            durable_folder(run.files.disk, target)
            move_all(run.files.disk, [path], target)
            run.journal.write("set aside", file=path.name, reason="its head is missing", to=to)
            continue
        remove_all(run.files.disk, path)
        run.journal.write("removed", file=path.name, reason="a save that was cut off")
    run.store.finish_removals()


def bring_here(disk: Disk, job: Job, plan: Resume) -> Resume:
    """Copy what the plan says; the plan with its source where it lies now."""
    if (origin := plan.records_from) is not None:
        # The journal comes first: it is what says that there is a history.
        records = [own(origin) / name for name in ("journal.jsonl", "run.json", "metrics.jsonl", LOGGED)]
        lists = [path for name in ("configs", "manifests") for path in sorted((own(origin) / name).glob("*.json"))]
        for path in (*records, *lists, *shown(origin, job.layout)):
            _bring(disk, job, origin, path)
    checkpoints = job.layout.checkpoints(job.directory)
    for path in plan.weights_along:
        copy_file(disk, path, place(checkpoints, path.name))
    target = checkpoints / name_on_arrival(job.layout, plan.source)
    copy_checkpoint(disk, plan.source.path, target)
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
    sharded = is_sharded(source.path)
    own_name = layout.checkpoint(step=source.step, epoch=epoch, milestone=True, sharded=sharded)
    if source.name == own_name or layout.part_of(source.name)[0] == "rolling":
        return source.name
    # Where names count epochs, only the rolling name is right in the middle of one as at its end.
    return layout.checkpoint(step=source.step, epoch=epoch, milestone=not layout.rolling_name, sharded=sharded)


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


def _bring(disk: Disk, job: Job, origin: Path, path: Path) -> None:
    """Copy a file of a run, unless it lies behind a link out of that; what has its name here stays as it is."""
    target = job.directory / path.relative_to(origin)
    if is_ordinary(path) and not os.path.lexists(target) and is_inside(path.parent, origin):
        durable_folder(disk, target.parent)
        copy_file(disk, path, target)


def parent_of(job: Job, plan: Fresh | Resume | FineTune) -> dict[str, Any] | None:
    """The file a run begins from, with the digest of its bytes; reads the whole file. None where there is none."""
    if isinstance(plan, Fresh):
        return None
    source, inside = plan.source, plan.source.inside.get("run")
    try:
        digest, size_bytes = sha256_of(head_of(source.path)), size_of(source.path)
    except OSError as error:
        raise DamagedFile(source.path, f"the file cannot be read ({error.strerror or error})") from error
    return {
        "file": str(_as_typed(job, plan, source)),
        "sha256": digest,
        "size_bytes": size_bytes,
        "written_by": source.format_name,
        "step": source.recorded_step,
        "run": source.run,
        "tag": str(inside.get("tag") or "") if isinstance(inside, dict) else "",
    }


def _as_typed(job: Job, plan: Resume | FineTune, source: Candidate) -> Path:
    """The path in the user's spelling: a survey spells those in the run's own folder its own way."""
    start = job.start
    if isinstance(plan, FineTune):
        return start.weights or source.path
    named = (path for path in (start.exact, start.origin) if path is not None)
    return next((path for path in named if path.exists() and path.samefile(source.path)), source.path)


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """The seed and the conditions of a run's first launch; no conditions when that is this one."""

    seed: int
    conditions: Mapping[str, Any]


def beginning_of(job: Job, plan: Fresh | Resume | FineTune | Finished) -> Beginning:
    """From the checkpoint that is continued, else from the run's record, else from this launch."""
    if isinstance(plan, Resume | Finished):
        run, conditions = plan.source.inside.get("run"), plan.source.inside.get("conditions")
        if isinstance(run, Mapping) and isinstance(run.get("seed"), int):
            return Beginning(seed=run["seed"], conditions=conditions if isinstance(conditions, Mapping) else {})
    starts_over = isinstance(plan, Fresh | FineTune) and plan.archive
    record = None if starts_over else read_record(job.directory)
    if record is not None:
        return Beginning(seed=record.seed, conditions=record.conditions)
    return Beginning(seed=job.seed, conditions={})
