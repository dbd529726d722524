"""What a search for copies did not bring: folders with nothing of the run, and archives of it that nobody unpacked."""

from __future__ import annotations

import lzma
import os
import shlex
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from unbroken.checkpoint.archive import BROKEN_ZIP
from unbroken.errors import UnbrokenError
from unbroken.jsonlines import parsed_json
from unbroken.keep.packed import read_list
from unbroken.launch.job import Job
from unbroken.launch.spelling import option
from unbroken.run import Survey
from unbroken.run.layout import OWN_FOLDER
from unbroken.storage import open_ordinary

MOST_ARCHIVES = 20
MOST_ENTRIES = 10_000  # of a tar, which has no list of them
MOST_UNPACKED_BYTES = 64 << 20  # of a compressed tar: all before an entry has to be unpacked to reach it
MOST_RECORD_BYTES = 1 << 20
RECORD = f"{OWN_FOLDER}/run.json"
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz")
BROKEN = (*BROKEN_ZIP, tarfile.TarError, lzma.LZMAError, OSError, zlib.error)


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
    try:
        with open_ordinary(path) as file:
            inside = _in_zip(file) if kind == "zip" else _in_tar(file)
    except BROKEN:
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
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        packed = archive.fileobj is not file
        for entry in islice(archive, MOST_ENTRIES):
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
