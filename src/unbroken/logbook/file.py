"""Bringing `experiments_log.txt` up to date: which file, what is said of which run, and a safe way of writing.

What a run's row said is remembered in the run's own folder (`logged.jsonl`), so that the next update knows which words
are ours. The file's bytes are compared once more just before the new ones take their place: an edit is not lost.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unbroken.clock import Clock
from unbroken.errors import Refused, UsageError
from unbroken.logbook.book import FILE_NAME, Book, Change, Entry
from unbroken.logbook.memory import remember
from unbroken.storage import Disk, WritableFile, durable_write, explained, is_ordinary, read_whole
from unbroken.storage.file_lock import turn_at
from unbroken.text import ESCAPED, NOT_TEXT, encoding_of

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
    changes: tuple[tuple[Path, Change], ...]
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
        _require_writable(path)
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


def _require_writable(path: Path) -> None:
    """A file marked read-only is left alone, although its folder would let it be replaced."""
    if path.exists() and not stat.S_IMODE(path.stat().st_mode) & 0o222:
        raise Refused(path, "the file is marked as read-only", do="Make it writable, or move it away.")
