"""What a disk forecast is made from: sizes of earlier saves, what the folder of the run holds, and the room left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from unbroken.checkpoint.manifest import Manifest, read_manifest
from unbroken.config import Effect, changes
from unbroken.launch.disk import DiskForecast, Room, SavePolicy, Sizes, Stored, forecast_disk, policy_of
from unbroken.launch.facts import MOST_SIBLINGS
from unbroken.launch.job import Job, Quota
from unbroken.launch.position import total_now
from unbroken.launch.verdicts import FineTune, Fresh, Plan, Resume
from unbroken.logbook.words import clean
from unbroken.quantities import asked, size_bytes, size_text
from unbroken.run import layout_seen, read_record
from unbroken.run.folder import entries, walk
from unbroken.run.layout import ARCHIVE_FOLDER, Layout, manifests
from unbroken.run.predictions import LAST_EVALUATIONS, evaluations_in
from unbroken.run.summary import config_of
from unbroken.storage import is_ordinary

GROWING = (".jsonl", ".log", ".txt", "scalars.json")  # records: a little with every step
GARBLED = (ValueError, TypeError, LookupError, ArithmeticError, RecursionError)  # of records that were edited
MANIFEST_BYTES = 500  # beside each save


def planned_disk(
    job: Job, plan: Plan, timing: Mapping[str, Any], known: Sizes | None = None, *, asked: SavePolicy | None = None
) -> DiskForecast | None:
    """The forecast of a launch; None where nothing is trained, or where nobody knows how much a save takes."""
    try:
        return _planned(job, plan, timing, known, asked or policy_of(job))
    except (OSError, *GARBLED):  # what cannot be looked at is not forecast
        return None


def quota_in(text: str, source: str) -> Quota:
    """A quota of the current folder, as it was typed; UsageError for what is no size."""
    return Quota(size_bytes=asked(source, size_bytes, text), folder=Path.cwd(), source=source)


def _planned(
    job: Job, plan: Plan, timing: Mapping[str, Any], known: Sizes | None, asked: SavePolicy
) -> DiskForecast | None:
    if not isinstance(plan, Fresh | FineTune | Resume):
        return None
    done, total = 0, job.total_steps
    if isinstance(plan, Resume):
        done = plan.source.step
        total = total_now(job, plan.source) if total is not None else _recorded_total(timing, done)
        run = plan.copy_from or job.directory
        sizes = known or sizes_in(run, layout_seen(run)[0])
        stored = stored_in(job.directory, job.layout)
    else:
        sizes, stored = known or _sizes_beside(job), Stored()
    if sizes is None:
        return None
    steps, seconds = timing.get("steps"), timing.get("seconds")
    step_s = float(seconds) / int(steps) if steps and seconds else None
    room = room_for(job.directory, job.quota)
    return forecast_disk(asked, sizes, stored, room, done=done, total=total, step_s=step_s)


def sizes_in(run: Path, layout: Layout, *, anew: bool = False) -> Sizes | None:
    """How much the newest save of a run takes, its best weights, and its records by step; None without a save.

    With `anew` for a run that has none of them yet.
    """
    here = list(_saved(run, layout))
    checkpoints = [item for item in here if item.kind == "checkpoint"]
    if not checkpoints:
        return None
    newest = max(checkpoints, key=lambda item: item.step)
    pictures = _pictures(run, layout)
    average = sum(pictures) / len(pictures) if pictures else 0.0
    best = max((item for item in here if item.kind == "weights"), key=lambda item: item.step, default=None)
    return Sizes(
        save=newest.size_bytes + MANIFEST_BYTES,
        best=best.size_bytes + MANIFEST_BYTES if best is not None else 0,
        per_step=_records_bytes(run) / newest.step if newest.step else 0.0,
        pictures_per_step=sum(pictures) / newest.step if newest.step else 0.0,
        pictures_most=round(average * max(LAST_EVALUATIONS + 1 - (0 if anew else len(pictures)), 0)),
    )


def stored_in(run: Path, layout: Layout) -> Stored:
    """Which saves lie in a run's folder."""
    here = list(_saved(run, layout))
    named = [item for item in here if item.kind == "checkpoint" and item.file != layout.rolling_name]
    return Stored(
        named=len(named),
        rolling=any(item.file == layout.rolling_name for item in here),
        best=any(item.kind == "weights" for item in here),
    )


def room_for(directory: Path, quota: Quota | None) -> Room:
    """The room beside a run: what the file system has free, or less, if a quota leaves less."""
    folder = next((path for path in (directory, *directory.absolute().parents) if path.is_dir()), Path())
    room = Room(left=shutil.disk_usage(folder).free)
    if quota is None:
        return room
    counted = quota.folder if quota.folder.resolve() in directory.resolve().parents else directory.absolute().parent
    left = max(quota.size_bytes - _bytes_below(counted), 0)
    source = f"left of {size_text(quota.size_bytes)} ({quota.source})"
    return Room(left=left, source=source) if left < room.left else room


def _sizes_beside(job: Job) -> Sizes | None:
    """Those of a run beside this one whose model has the same shape; None where there is none."""
    for entry in list(entries(str(job.directory.absolute().parent)))[:MOST_SIBLINGS]:
        run = Path(entry.path)
        record = read_record(run)
        if record is None or record.recipe != job.recipe or job.is_script:
            continue
        config = config_of(run)
        if not config or any(change.effect is Effect.SHAPE for change in changes(config, job.config, job.effects)):
            continue
        if (found := sizes_in(run, layout_seen(run)[0], anew=True)) is not None:
            return replace(found, source=f"as of {clean(run.name)}")
    return None


def _saved(run: Path, layout: Layout) -> Iterator[Manifest]:
    folder, files = manifests(run), layout.checkpoints(run)
    for entry in entries(str(folder)):
        manifest = read_manifest(folder, entry.name.removesuffix(".json"))
        if manifest is not None and is_ordinary(files / manifest.file):
            yield manifest


def _records_bytes(run: Path) -> int:
    found = 0
    for folder, name, facts in walk(str(run), ()):
        first, *_ = parts = folder.split("/")
        grows = "eval" in parts or name.endswith(GROWING) or "tfevents" in name
        found += facts.st_size if grows and first != ARCHIVE_FOLDER else 0
    return found


def _pictures(run: Path, layout: Layout) -> list[int]:
    """The bytes of each evaluation's pictures."""
    return [_bytes_below(place) for place in evaluations_in(run / layout.predictions).values()]


def _bytes_below(folder: Path) -> int:
    found = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                found += (Path(place) / name).lstat().st_size
    return found


def _recorded_total(timing: Mapping[str, Any], done: int) -> int | None:
    """How long the last session knew a script's training to be."""
    total = timing.get("total")
    return total if isinstance(total, int) and total > done else None
