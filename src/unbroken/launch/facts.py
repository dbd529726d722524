"""Gathering the facts for a launch: the run's folder, the files the job names, copies of the run elsewhere."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from unbroken.errors import UsageError
from unbroken.launch.job import Job
from unbroken.launch.plan import Facts
from unbroken.run import Candidate, Survey, look_at, read_record, survey
from unbroken.run.layout import manifests, own

SEARCH_DEPTH = 6
MOST_FOLDERS = 20_000
MOST_SIBLINGS = 200


def gather(job: Job) -> Facts:
    """Look at everything the decision needs; changes nothing."""
    here = survey(job.directory, job.layout)
    wants_copy = here.newest_good is None and job.start.exact is None and not job.start.fresh
    return Facts(
        survey=here,
        exact=_named(job.start.exact, job),
        origin=_named(job.start.origin, job) if here.newest_good is None else None,
        weights=_named(job.start.weights, job) if here.newest_good is None else None,
        elsewhere=tuple(_copies(job)) if wants_copy else (),
        near=tuple(_near_misses(job)) if not here.has_history else (),
    )


def _named(path: Path | None, job: Job) -> Candidate | None:
    if path is None:
        return None
    if not path.is_file():
        raise UsageError(path, "there is no such file", found=_neighbours(path), do="Check the path.")
    folder = path.resolve().parent
    run = folder if job.layout.checkpoint_folder == "" else folder.parent
    return look_at(path, manifests(run))


def _neighbours(path: Path) -> str:
    """What exists near a path that does not."""
    folder = path.parent
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    names = sorted(item.name for item in folder.iterdir())
    likely = [name for name in names if name.endswith(".pth")] or names
    listed = ", ".join(likely[:8]) + (" ..." if len(likely) > 8 else "")
    return f"in {folder}: {listed or 'nothing'}"


def _copies(job: Job) -> Iterator[Survey]:
    """Folders below the search roots that hold this run (same recipe, same tag)."""
    for root in job.start.search:
        if not root.is_dir():
            continue
        for folder in _run_folders(root):
            record = read_record(folder)
            same = record is not None and (record.recipe, record.tag) == (job.recipe, job.tag)
            if same and folder.resolve() != job.directory.resolve():
                yield survey(folder, job.layout)


def _run_folders(root: Path) -> Iterator[Path]:
    for seen, (folder, names, _) in enumerate(os.walk(root)):
        depth = len(Path(folder).relative_to(root).parts)
        if "unbroken" in names and (own(Path(folder)) / "run.json").is_file():
            yield Path(folder)
            names[:] = []
        elif depth >= SEARCH_DEPTH or seen > MOST_FOLDERS:
            names[:] = []
        names.sort()


def _near_misses(job: Job) -> Iterator[str]:
    """Runs beside this one that have the same config: perhaps the tag was mistyped."""
    parent = job.directory.parent
    if not parent.is_dir():
        return
    for folder in sorted(parent.iterdir())[:MOST_SIBLINGS]:
        record = read_record(folder) if folder != job.directory else None
        if record is None or record.recipe != job.recipe:
            continue
        if _last_config(folder) == job.config:
            newest = survey(folder, job.layout).newest_good
            where = f"at step {newest.step}" if newest else "without a checkpoint"
            yield f"tag `{record.tag}` has this config {where}: {folder}"


def _last_config(run: Path) -> object:
    files = sorted((own(run) / "configs").glob("*.json"))
    try:
        return json.loads(files[-1].read_text("utf-8")) if files else None
    except (OSError, ValueError):
        return None
