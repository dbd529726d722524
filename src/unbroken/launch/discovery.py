"""Looking for a run elsewhere: copies below the search roots, runs of its name within reach, files that are named.

Copies are known by what stands inside the files, whatever mounts and files are called.

A *recorded* copy is a folder with `unbroken/run.json`. Where that was lost on the way, or only files were attached,
the checkpoints themselves say of which run they are, also when their end is missing. Nothing is written or locked.

So that a launch from another folder is no silent beginning, runs of this recipe and tag are looked for in the folders
in which the same command keeps its runs when it is typed elsewhere (beside the config, above the current folder), and
in a bounded number of folders around the run and around the current folder. Of these nothing is verified.
"""

from __future__ import annotations

import lzma
import os
import shlex
import zipfile
import zlib
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from unbroken.checkpoint.containers import BROKEN_ZIP
from unbroken.checkpoint.removal import GOING_SUFFIX
from unbroken.checkpoint.sharded import SUFFIX as SHARDED
from unbroken.checkpoint.sharded import is_sharded
from unbroken.checkpoint.stamp import read_stamp
from unbroken.errors import UnbrokenError, UsageError
from unbroken.jsonlines import parsed_json
from unbroken.launch.choice import run_of
from unbroken.launch.job import Job
from unbroken.launch.spelling import option
from unbroken.run import Candidate, RunView, Survey
from unbroken.run.candidates import furthest_first, glance_at, verified_down_to_first_good
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, SUFFIXES, manifests, own
from unbroken.run.record import layout_in
from unbroken.run.survey import survey, survey_of
from unbroken.storage import PARTIAL_SUFFIX, is_ordinary, open_ordinary, require_local

SEARCH_DEPTH = 10  # /kaggle/input/notebooks/<user>/<name>/<program>/output/<group>/<config>/<tag>/ckpt is 9 deep
MOST_FOLDERS = 20_000
CHECKPOINT_MARKS = (".pth", ".pt", ".ckpt", SHARDED)  # in a name, not only at its end: `iter_8000.pth (1)`
Stamps = Mapping[Path, Mapping[str, Any]]
MOST_ARCHIVES = 20
MOST_IN_TAR = 10_000  # of a tar, which has no list of them
MOST_UNPACKED_BYTES = 64 << 20  # of a compressed tar: all before an entry has to be unpacked to reach it
MOST_RECORD_BYTES = 1 << 20
RECORD = f"{OWN_FOLDER}/run.json"
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz")
BROKEN = (*BROKEN_ZIP, lzma.LZMAError, OSError, zlib.error)
LEVELS_ABOVE = 3
MOST_AROUND, DEPTH, MOST_ENTRIES = 300, 4, 500  # together some 20 ms
NO_RUNS_IN = {ARCHIVE_FOLDER, OWN_FOLDER, "node_modules", "site-packages", "__pycache__"}
NEAR_LEVELS, MOUNT_POINT = 3, Path("/mnt")
MOST_NEAR, NEAR_DEPTH, MOST_NEAR_FOLDERS = 8, 5, 500


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
        view = RunView(folder, job.layout, is_copy=True)
        record = view.record
        if folder.resolve() == besides:
            names[:] = []  # neither the run itself nor what it has in its archive
        elif record is not None:
            if (record.recipe, record.tag) == (job.recipe, job.tag):
                yield survey_of(view)
            names[:] = []
        else:
            stamps = _of_this_name(job, folder, [*files, *names])
            yield from _unrecorded(job, folder, stamps)
            # What is archived beside a run's checkpoints is history that was ended; a mount may be called so too.
            is_run = bool(stamps) or (job.layout.checkpoint_folder or OWN_FOLDER) in names
            pruned = {OWN_FOLDER, *([ARCHIVE_FOLDER] if is_run else [])}
            deep = len(folder.relative_to(root).parts) >= SEARCH_DEPTH or count > MOST_FOLDERS
            # Below a partial name `unpack` may be at work; a folder of shards is one checkpoint, and not looked into.
            is_whole = [name for name in names if not name.endswith((PARTIAL_SUFFIX, SHARDED))]
            names[:] = [] if deep else sorted(set(is_whole) - pruned)


def _of_this_name(job: Job, folder: Path, files: Sequence[str]) -> Stamps:
    """The files in a folder that say they are of this recipe and tag; of a file and a link to it, the file."""
    unfinished = (PARTIAL_SUFFIX, GOING_SUFFIX)
    marked = [name for name in files if any(mark in name.lower() for mark in CHECKPOINT_MARKS)]
    paths = [folder / name for name in sorted(marked) if not name.endswith(unfinished)]
    found: dict[Path, tuple[Path, Mapping[str, Any]]] = {}
    for path in sorted(
        (path for path in paths if path.is_file() or is_sharded(path)), key=lambda path: (path.is_symlink(), path)
    ):
        stamp = read_stamp(path) if path.resolve() not in found else {}
        run = stamp.get("run")
        if isinstance(run, Mapping) and run.get("id") and (run.get("recipe"), run.get("tag")) == (job.recipe, job.tag):
            found[path.resolve()] = (path, stamp)
    return dict(found.values())


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
        layout = layout_in(directory, records.record)[0]
        verified = verified_down_to_first_good(in_order, layout, belongs=lambda _: True)
        yield replace(records, candidates=tuple(verified))


def _seen(path: Path, stamp: Mapping[str, Any], directory: Path) -> Candidate:
    """A file as it looks; one whose end is missing still says which run it is of, and how far it was."""
    item = glance_at(path, manifests(directory))
    if item.state != "damaged":
        return item
    step = stamp.get("step")
    kind = "weights" if stamp.get("kind") == "weights" else "checkpoint"
    return replace(item, run=str(stamp["run"]["id"]), kind=kind, step=step if isinstance(step, int) else item.step)


def without_copies(job: Job, found: Sequence[Survey]) -> tuple[Path, ...]:
    """The search roots below which nothing of this run was found."""
    places = [item.directory.resolve() for item in found]
    there = [root for root in job.start.search if root.is_dir() and not is_shut(root)]
    return tuple(root for root in there if not any(place.is_relative_to(root.resolve()) for place in places))


def is_shut(root: Path) -> bool:
    """Whether a folder is there, and not for us to read."""
    return root.is_dir() and not os.access(root, os.R_OK | os.X_OK)


def archives(job: Job) -> Iterator[str]:
    """The zips and tars of this run below the search roots, packed or ordinary ones, each with how to get it out."""
    from unbroken.keep.packed import read_list

    for root in job.start.search:
        paths = (path for path in root.rglob("*") if path.name.lower().endswith((".zip", *TARS)))
        for path in islice(sorted(paths), MOST_ARCHIVES) if root.is_dir() else ():
            kind = "zip" if path.name.lower().endswith(".zip") else "tar"
            try:
                found = read_list(path) if kind == "zip" else None
            except UnbrokenError:
                found = None
            if found is None:
                if what := _ordinary(path, kind, job):
                    out = f"python -m {kind}file -e {shlex.quote(str(path))} DIR, then {option(job, 'search', 'DIR')}"
                    yield f"{path} is an ordinary {kind} {what}, and folders alone are searched: {out}"
            elif (found.recipe, found.tag) == (job.recipe, job.tag):
                yield f"{path} holds this run at step {found.step}, packed: unbroken unpack {path} {job.directory}"


@dataclass(frozen=True, kw_only=True)
class _Inside:
    """The names in an archive, and the records of runs among them."""

    names: list[str]
    records: list[bytes]


def _ordinary(path: Path, kind: str, job: Job) -> str:
    """What an ordinary archive holds of this run, as the end of a sentence; "" where that is nothing, or unreadable."""
    import tarfile

    try:
        with open_ordinary(path) as file:
            inside = _in_zip(file) if kind == "zip" else _in_tar(file)
    except (*BROKEN, tarfile.TarError):
        return ""
    if (job.recipe, job.tag) in map(_told, inside.records):
        return "of this run"
    names = [PurePosixPath(name).name for name in inside.names]
    saved = [name for name in names if job.layout.part_of(name)[0] in ("checkpoint", "rolling")]
    return f"with checkpoints in it ({saved[-1]})" if saved and not inside.records else ""


def _in_zip(file: BinaryIO) -> _Inside:
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        records = [info for info in infos if _is_record(info.filename, info.file_size)]
        read = [archive.read(info) for info in records[:MOST_ARCHIVES]]
    return _Inside(names=[info.filename for info in infos], records=read)


def _in_tar(file: BinaryIO) -> _Inside:
    """Nothing is taken out; of a compressed one only the beginning is read."""
    names, records = list[str](), list[bytes]()
    import tarfile

    with tarfile.open(fileobj=file, mode="r:*") as archive:
        packed = archive.fileobj is not file
        for entry in islice(archive, MOST_IN_TAR):
            names.append(entry.name)
            if entry.isreg() and _is_record(entry.name, entry.size) and len(records) < MOST_ARCHIVES:
                content = archive.extractfile(entry)
                records += [content.read()] if content is not None else []
            if packed and archive.offset > MOST_UNPACKED_BYTES:
                break
    return _Inside(names=names, records=records)


def _is_record(name: str, size_bytes: int) -> bool:
    return f"/{name}".endswith(f"/{RECORD}") and size_bytes <= MOST_RECORD_BYTES


def _told(record: bytes) -> tuple[object, object]:
    """The recipe and the tag in a run's record."""
    try:
        found = parsed_json(record)
    except ValueError:
        return None, None
    return (found.get("recipe"), found.get("tag")) if isinstance(found, dict) else (None, None)


def usual_places(job: Job) -> Iterator[Path]:
    """The folder of this very run for the same command, typed in another folder."""
    yield from job.usual
    yield from _above(job.directory)


def _above(directory: Path) -> Iterator[Path]:
    if not directory.is_absolute():
        yield from (above / directory for above in islice(Path.cwd().parents, LEVELS_ABOVE))


def same_run_elsewhere(directory: Path) -> Path | None:
    """A run that the same words would lead to from another folder; None where there is none within reach."""
    if directory.is_absolute():
        return None
    likely = (*_above(directory), *runs_around(directory))
    there = (folder for folder in likely if folder.parts[-len(directory.parts) :] == directory.parts)
    here = directory.resolve()
    return next((each for each in there if each.resolve() != here and _is_run(each)), None)


def runs_around(directory: Path) -> Iterator[Path]:
    """Folders of runs around this one and around the current folder, the nearest first."""
    here = Path.cwd()
    starts = [directory.absolute().parent.parent, here, here.parent]
    waiting = deque((folder, 0) for folder in dict.fromkeys(starts) if folder != folder.parent)
    seen: set[str] = set()
    while waiting and len(seen) < MOST_AROUND:
        folder, depth = waiting.popleft()
        if str(folder) in seen:
            continue
        seen.add(str(folder))
        if _is_run(folder):
            yield folder
        elif depth < DEPTH:
            waiting.extend((path, depth + 1) for path in _folders_in(folder))


def _is_run(folder: Path) -> bool:
    try:
        return (own(folder) / "run.json").is_file()
    except OSError:  # somebody else's folder, or one that is just going
        return False


def _folders_in(folder: Path) -> list[Path]:
    """The folders in a folder that may hold runs: no links, and none of another disk."""
    try:
        with os.scandir(folder) as entries:
            disk = folder.stat().st_dev
            return sorted(
                Path(entry.path)
                for entry in islice(entries, MOST_ENTRIES)
                if entry.is_dir(follow_symlinks=False)
                and not entry.name.startswith(".")
                and entry.name not in NO_RUNS_IN
                and entry.stat(follow_symlinks=False).st_dev == disk
            )
    except OSError:
        return []


def require_file(path: Path) -> None:
    """Raise UsageError where this is no checkpoint, file or folder, with the checkpoints near it."""
    if is_ordinary(path) or is_sharded(path):
        return
    from unbroken.checkpoint.folders import require_no_folder_of_others

    require_local(path)
    require_no_folder_of_others(path)
    what = "this is a folder, not a file" if path.is_dir() else "there is no such file"
    what = f"this is a link to {path.readlink()}, which is not there" if path.is_symlink() else what
    found = _neighbours(path)
    do = "Check the path." if found.startswith("in ") else "Check the path, and that the data set or disk is attached."
    raise UsageError(path, what, found=found, do=do)


def _neighbours(path: Path) -> str:
    """What exists near a path that does not: checkpoints below the nearest folder that does, else its content.

    Where a mount point is all that exists of the path, or more of it is missing, what lies there is not near.
    """
    folders = path.absolute().parents
    near = next(folder for folder in folders if folder.is_dir())
    if near not in folders[:NEAR_LEVELS] or (near != folders[0] and len(near.parts) <= len(MOUNT_POINT.parts)):
        return f"nothing of that path but {near}"
    found = list(islice(_checkpoints_below(near), MOST_NEAR + 1))
    names = found or sorted(item.name for item in near.iterdir())
    listed = ", ".join(names[:MOST_NEAR]) + (" and more" if len(names) > MOST_NEAR else "")
    return f"in {near}: {listed or 'nothing'}"


def _checkpoints_below(folder: Path) -> Iterator[str]:
    for count, (place, folders, files) in enumerate(os.walk(folder)):
        here = Path(place).relative_to(folder)
        yield from (str(here / name) for name in sorted([*files, *folders]) if name.endswith(SUFFIXES))
        entered = sorted(name for name in folders if not name.endswith(SHARDED))
        folders[:] = entered if len(here.parts) < NEAR_DEPTH and count < MOST_NEAR_FOLDERS else []
