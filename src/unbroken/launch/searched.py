"""What a search for copies did not bring: folders with nothing of the run, and zips of it that nobody unpacked."""

from __future__ import annotations

import shlex
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath

from unbroken.checkpoint.archive import BROKEN_ZIP
from unbroken.errors import UnbrokenError
from unbroken.keep.packed import read_list
from unbroken.launch.job import Job
from unbroken.launch.spelling import option
from unbroken.run import Survey
from unbroken.run.layout import OWN_FOLDER
from unbroken.storage import open_ordinary, parsed_json

MOST_ZIPS = 20
MOST_RECORD_BYTES = 1 << 20
RECORD = f"{OWN_FOLDER}/run.json"


def without_copies(job: Job, found: Sequence[Survey]) -> tuple[Path, ...]:
    """The search roots below which nothing of this run was found."""
    places = [item.directory.resolve() for item in found]
    there = [root for root in job.start.search if root.is_dir()]
    return tuple(root for root in there if not any(place.is_relative_to(root.resolve()) for place in places))


def zips(job: Job) -> Iterator[str]:
    """The zips of this run below the search roots, packed or ordinary ones, each with how to get it out."""
    for root in job.start.search:
        for path in islice(sorted(root.rglob("*.zip")), MOST_ZIPS) if root.is_dir() else ():
            try:
                found = read_list(path)
            except UnbrokenError:
                if what := _ordinary(path, job):
                    out = f"python -m zipfile -e {shlex.quote(str(path))} DIR, then {option(job, 'search', 'DIR')}"
                    yield f"{path} is an ordinary zip {what}, and folders alone are searched: {out}"
                continue
            if (found.recipe, found.tag) == (job.recipe, job.tag):
                yield f"{path} holds this run at step {found.step}, packed: unbroken unpack {path} {job.directory}"


def _ordinary(path: Path, job: Job) -> str:
    """What an ordinary zip holds of this run, as the end of a sentence; "" where that is nothing, or not readable."""
    try:
        with open_ordinary(path) as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            records = [info for info in infos if f"/{info.filename}".endswith(f"/{RECORD}")]
            told = [_told(archive, info) for info in records[:MOST_ZIPS] if info.file_size <= MOST_RECORD_BYTES]
    except (*BROKEN_ZIP, OSError, zlib.error):
        return ""
    if (job.recipe, job.tag) in told:
        return "of this run"
    names = [PurePosixPath(info.filename).name for info in infos]
    saved = [name for name in names if job.layout.part_of(name)[0] in ("checkpoint", "rolling")]
    return f"with checkpoints in it ({saved[-1]})" if saved and not records else ""


def _told(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> tuple[object, object]:
    """The recipe and the tag in a run's record."""
    try:
        record = parsed_json(archive.read(info))
    except ValueError:
        return None, None
    return (record.get("recipe"), record.get("tag")) if isinstance(record, dict) else (None, None)
