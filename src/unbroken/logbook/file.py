"""Bringing `experiments_log.txt` up to date: which file, what is said of which run, and a safe way of writing.

What a run's row said is remembered in the run's own folder (`logged.jsonl`), so that the next update knows which words
are ours. The file's bytes are compared once more just before the new ones take their place: an edit is not lost.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbroken.clock import Clock
from unbroken.errors import Refused, UnbrokenError, UsageError
from unbroken.journal.file import LineFile, read_lines
from unbroken.logbook.table import CONFIG, DATE, FILE_NAME, RESULT, TAG, Book, Entry, RowChange
from unbroken.run import RunView
from unbroken.run.folder import entries as entries_in
from unbroken.run.folder import is_inside
from unbroken.run.layout import ARCHIVE_FOLDER, own
from unbroken.storage import Disk, WritableFile, durable_write, explained, is_ordinary, read_whole
from unbroken.storage.file_lock import turn_at
from unbroken.text import ESCAPED, NOT_TEXT, encoding_of

FILE = "logged.jsonl"
KEPT = 16  # texts of a column: files of several folders may show the run, each as of another day
MOST_BOOK_BYTES = 64 << 20
TRIES = 20  # a file that somebody saves again and again
UPWARDS = 4  # folders above a run that are looked through for a file, where it is not below the current one

Entries = Callable[[str], Sequence[tuple[Path, Entry]]]  # language -> what is to be said of which run


class _EditedMeanwhile(OSError):
    """Somebody saved the file since it was read."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of the file: a change for each run, and how many rows are of no run that was looked at."""

    file: Path
    changes: tuple[tuple[Path, RowChange], ...]
    others: int
    language: str
    text: str


def book_for(directory: Path, here: Path) -> Path:
    """The file that a run is noted in: the nearest one above it up to the current folder, or a new one there.

    For a run that does not lie below the current folder, the file is beside it, or not far above.
    """
    run, here = directory.resolve(), here.resolve()
    below = here in run.parents
    above = run.parents[: run.parents.index(here) + 1] if below else run.parents[:UPWARDS]
    there = (folder / FILE_NAME for folder in above)
    return next((path for path in there if is_ordinary(path)), (here if below else run.parent) / FILE_NAME)


def write_book(
    disk: Disk, clock: Clock, path: Path, entries: Entries, *, language: str, usual: str, wait_s: float
) -> Written:
    """Bring a file up to date; `language` is asked for ("" for the file's own), `usual` that of a new file."""
    path = path.resolve()  # a link stays one
    with explained(disk, path, "the record of experiments could not be written"), turn_at(path, clock, wait_s=wait_s):
        for _ in range(TRIES):
            try:
                return _written(disk, path, entries, language=language, usual=usual)
            except _EditedMeanwhile:
                continue
    raise Refused(path, "somebody saves this file again and again", do="Close it elsewhere, then run it again.")


def _written(disk: Disk, path: Path, entries: Entries, *, language: str, usual: str) -> Written:
    before = _bytes_of(path)
    text, mark, encoding = decoded(path, before or b"")
    book = Book(text)
    spoken = language or book.language or usual
    if language:
        book.speak(language)
    asked = entries(spoken)
    changes = book.update([entry for _, entry in asked], spoken) if asked or before else []
    noted = tuple((directory, change) for (directory, _), change in zip(asked, changes))
    after = mark + book.text.encode(encoding, ESCAPED)
    if after != (before or b""):
        # A file marked read-only is left alone, although its folder would let it be replaced.
        if path.exists() and not stat.S_IMODE(path.stat().st_mode) & 0o222:
            raise Refused(path, "the file is marked as read-only", do="Make it writable, or move it away.")
        for directory, change in noted:
            remember(disk, directory, path, change)
        durable_write(disk, path, lambda file: _put(disk, file, path, before, after))
    others = len(book.rows) - len(noted)
    return Written(file=path, changes=noted, others=others, language=spoken, text=book.text)


def _put(disk: Disk, file: WritableFile, path: Path, before: bytes | None, after: bytes) -> None:
    file.write(after)
    disk.sync(file)  # now, so that nothing slow comes between this look and the new name
    if _bytes_of(path) != before:
        raise _EditedMeanwhile


def decoded(path: Path, data: bytes) -> tuple[str, bytes, str]:
    """The text of the file, the mark it begins with and its encoding; UsageError where that cannot be told."""
    mark, encoding = encoding_of(data)
    try:
        return data[len(mark) :].decode(encoding), mark, encoding
    except UnicodeDecodeError as error:
        raise UsageError(
            path,
            "this text is in an encoding that the file does not name",
            expected=NOT_TEXT,
            found=f"byte 0x{data[len(mark) + error.start]:02x} at {len(mark) + error.start}",
            do="It stays as it is. Save it as UTF-8 in your editor; from GBK also: iconv -f gbk -t utf-8.",
        ) from None


def _bytes_of(path: Path) -> bytes | None:
    try:
        return read_whole(path, most_bytes=MOST_BOOK_BYTES)
    except FileNotFoundError:
        return None


# -- what a run's row has said, kept in the run's own folder (append-only) ---------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Under which label the run stands in the file, where it lay then, and what was written into its cells."""

    label: str = ""
    place: str = ""  # of the run, seen from the file's folder
    written: Mapping[str, Sequence[str]] = field(default_factory=dict)


def memory_of(directory: Path, book: Path) -> Memory:
    """What is remembered of a run's row; nothing where the run is a copy of one that is still there."""
    known = remembered(directory)
    if not known.place or known.place == place_of(directory, book):
        return known
    original, here = RunView(book.resolve().parent / known.place).stated, RunView(directory).stated
    is_copy = bool(original and here) and original.get("id") == here.get("id")
    return Memory() if is_copy else known


def results_before(directory: Path) -> tuple[str, ...]:
    """What the rows of histories said last that a fresh start moved into the archive."""
    folders = (Path(entry.path) for entry in entries_in(str(directory / ARCHIVE_FOLDER)))
    return tuple(text for folder in folders for text in remembered(folder).written.get(RESULT, ())[-1:])


def remember(disk: Disk, directory: Path, book: Path, change: RowChange) -> None:
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
    with suppress(OSError):
        for line in read_lines(own(directory) / FILE):
            known = Memory(label=_text(line.get("label")), place=_text(line.get("place")))
            for name in (DATE, TAG, CONFIG, RESULT):
                if text := _text(line.get(name)):
                    written[name] = [*(other for other in written.get(name, []) if other != text), text][-KEPT:]
    return Memory(label=known.label, place=known.place, written=written)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
