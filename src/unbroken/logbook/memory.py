"""What a run's row in `experiments_log.txt` has said, kept in the run's own folder (`logged.jsonl`, append-only)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbroken.errors import UnbrokenError
from unbroken.journal.file import LineFile, read_lines
from unbroken.logbook.book import CONFIG, DATE, RESULT, TAG, Change
from unbroken.run.folder import entries, is_inside, json_of
from unbroken.run.layout import ARCHIVE_FOLDER, own
from unbroken.storage import Disk, is_ordinary

FILE = "logged.jsonl"
KEPT = 16  # texts of a column: files of several folders may show the run, each as of another day


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Under which label the run stands in the file, where it lay then, and what was written into its cells."""

    label: str = ""
    place: str = ""  # of the run, seen from the file's folder
    written: Mapping[str, Sequence[str]] = field(default_factory=dict)


def memory_of(directory: Path, book: Path) -> Memory:
    """What is remembered of a run's row; nothing where the run is a copy of one that is still there."""
    known = remembered(directory)
    return Memory() if _is_copy(directory, book, known) else known


def results_before(directory: Path) -> tuple[str, ...]:
    """What the rows of histories said last that a fresh start moved into the archive."""
    folders = (Path(entry.path) for entry in entries(str(directory / ARCHIVE_FOLDER)))
    return tuple(text for folder in folders for text in remembered(folder).written.get(RESULT, ())[-1:])


def remember(disk: Disk, directory: Path, book: Path, change: Change) -> None:
    """Keep what the row says now; a folder that is not ours, or cannot be written, is left as it is."""
    if not (is_ordinary(own(directory) / "run.json") and is_inside(own(directory), directory)):
        return
    known, place = memory_of(directory, book), place_of(directory, book)
    new = {name: text for name, text in change.cells.items() if text and text not in known.written.get(name, ())[-1:]}
    if not new and (known.label, known.place) == (change.label, place):
        return
    with suppress(OSError, UnbrokenError):
        lines = LineFile(disk, own(directory) / FILE)
        try:
            lines.append({"label": change.label, "place": place, **new}, durable=True)
        finally:
            lines.close()


def place_of(directory: Path, book: Path) -> str:
    """Where a run lies, seen from the folder of the file: a project that moves as a whole keeps its places."""
    try:
        return Path(os.path.relpath(directory.resolve(), book.resolve().parent)).as_posix()
    except ValueError:  # another drive
        return directory.resolve().as_posix()


def remembered(directory: Path) -> Memory:
    """What a folder remembers, whosever it was when that was written."""
    known, written = Memory(), dict[str, list[str]]()
    for line in _lines(own(directory) / FILE):
        known = Memory(label=_text(line.get("label")), place=_text(line.get("place")))
        for name in (DATE, TAG, CONFIG, RESULT):
            if text := _text(line.get(name)):
                written[name] = [*(other for other in written.get(name, []) if other != text), text][-KEPT:]
    return Memory(label=known.label, place=known.place, written=written)


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with suppress(OSError):
        yield from read_lines(path)


def _is_copy(directory: Path, book: Path, known: Memory) -> bool:
    if not known.place or known.place == place_of(directory, book):
        return False
    original = json_of(own(book.resolve().parent / known.place) / "run.json")
    here = json_of(own(directory) / "run.json")
    return isinstance(original, Mapping) and isinstance(here, Mapping) and original.get("id") == here.get("id")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
