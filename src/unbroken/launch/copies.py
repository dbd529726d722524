"""Looking for copies of a run in other folders: by what stands inside the files, whatever mounts and files are called.

A *recorded* copy is a folder with `unbroken/run.json`. Where that was lost on the way, or only files were attached,
the checkpoints themselves say of which run they are, also when their end is missing. Nothing is written or locked.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unbroken.checkpoint.remains import read_stamp
from unbroken.checkpoint.removal import GOING_SUFFIX
from unbroken.launch.elsewhere import run_of
from unbroken.launch.job import Job
from unbroken.run import Candidate, Survey, read_record
from unbroken.run.candidates import furthest_first, glance_at
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, manifests, own
from unbroken.run.survey import survey, verified_down_to_first_good
from unbroken.storage import PARTIAL_SUFFIX

SEARCH_DEPTH = 10  # /kaggle/input/notebooks/<user>/<name>/<program>/output/<group>/<config>/<tag>/ckpt is 9 deep
MOST_FOLDERS = 20_000
CHECKPOINT_MARKS = (".pth", ".pt", ".ckpt")  # in a name, not only at its end: `iter_8000.pth (1)`
Stamps = Mapping[Path, Mapping[str, Any]]


def copies(job: Job, here: Survey) -> Iterator[Survey]:
    """What holds this run below the search roots: same recipe and tag, and once there is a history, the same run."""
    wanted = here.record.id if here.has_history and here.record is not None else ""
    seen: set[tuple[Path, str]] = set()
    for root in job.start.search:
        for found in _below(root, job) if root.is_dir() else ():
            run = run_of(found)
            if (found.directory.resolve(), run) not in seen and wanted in ("", run):
                seen.add((found.directory.resolve(), run))
                yield found


def _below(root: Path, job: Job) -> Iterator[Survey]:
    besides = job.directory.resolve()
    for count, (place, names, files) in enumerate(os.walk(root)):
        folder = Path(place)
        record = read_record(folder)
        if folder.resolve() == besides:
            names[:] = []  # neither the run itself nor what it has in its archive
        elif record is not None:
            if (record.recipe, record.tag) == (job.recipe, job.tag):
                yield survey(folder, job.layout, is_copy=True)
            names[:] = []
        else:
            stamps = _of_this_name(job, folder, files)
            yield from _unrecorded(job, folder, stamps)
            # What is archived beside a run's checkpoints is history that was ended; a mount may be called so too.
            is_run = bool(stamps) or (job.layout.checkpoint_folder or OWN_FOLDER) in names
            pruned = {OWN_FOLDER, *([ARCHIVE_FOLDER] if is_run else [])}
            deep = len(folder.relative_to(root).parts) >= SEARCH_DEPTH or count > MOST_FOLDERS
            is_whole = [name for name in names if not name.endswith(PARTIAL_SUFFIX)]  # `unpack` may be at work
            names[:] = [] if deep else sorted(set(is_whole) - pruned)


def _of_this_name(job: Job, folder: Path, files: Sequence[str]) -> Stamps:
    """The files in a folder that say they are of this recipe and tag; of a file and a link to it, the file."""
    paths = [folder / name for name in sorted(files) if _may_be_checkpoint(name)]
    found: dict[Path, tuple[Path, Mapping[str, Any]]] = {}
    for path in sorted((path for path in paths if path.is_file()), key=lambda path: (path.is_symlink(), path)):
        stamp = read_stamp(path) if path.resolve() not in found else {}
        run = stamp.get("run")
        if isinstance(run, Mapping) and run.get("id") and (run.get("recipe"), run.get("tag")) == (job.recipe, job.tag):
            found[path.resolve()] = (path, stamp)
    return dict(found.values())


def _may_be_checkpoint(name: str) -> bool:
    return any(mark in name.lower() for mark in CHECKPOINT_MARKS) and not name.endswith((PARTIAL_SUFFIX, GOING_SUFFIX))


def _unrecorded(job: Job, folder: Path, stamps: Stamps) -> Iterator[Survey]:
    """A survey for each run of which there are files; whose records there are is only sure when it is one run."""
    runs = sorted({str(stamp["run"]["id"]) for stamp in stamps.values()})
    directory = folder.parent if folder.name == job.layout.checkpoint_folder else folder
    if len(runs) == 1 and own(directory).is_dir():
        records = survey(directory, job.layout, is_copy=True)  # its candidates have the manifests' names only
    else:
        records = Survey(directory=directory, exists=True)
    for run in runs:
        items = [_seen(path, stamp, directory) for path, stamp in stamps.items() if stamp["run"]["id"] == run]
        in_order = sorted(items, key=furthest_first)
        verified = verified_down_to_first_good(in_order, manifests(directory), belongs=lambda _: True)
        yield replace(records, candidates=tuple(verified))


def _seen(path: Path, stamp: Mapping[str, Any], directory: Path) -> Candidate:
    """A file as it looks; one whose end is missing still says which run it is of, and how far it was."""
    item = glance_at(path, manifests(directory))
    if item.state != "damaged":
        return item
    step = stamp.get("step")
    kind = "weights" if stamp.get("kind") == "weights" else "checkpoint"
    return replace(item, run=str(stamp["run"]["id"]), kind=kind, step=step if isinstance(step, int) else item.step)
