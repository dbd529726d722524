"""Append-only files of JSON lines that survive a kill in the middle of a line, and the journal, which is one of them.

Half of a line is what a kill leaves: it is *torn*, and counts for nothing, but it is no damage either. Any other line
of a journal that is no event is *damaged*: it counts for nothing as well, and is said with its number.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbroken.clock import Clock, utc_text
from unbroken.fields import BadField
from unbroken.journal.events import Event, as_event
from unbroken.jsonlines import finite, json_line, lines_of, parsed_json, parsed_line, records_backwards
from unbroken.storage import Disk, NotOrdinary, explained, open_ordinary, refusal
from unbroken.storage.durable import PatientFile

CANNOT_CONTINUE = "the record could not be continued"


class LineFile:
    """An open file of JSON lines; a patient one keeps what the disk refuses, and writes it later, in order."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk, self.path = disk, path
        self.patient = False
        self.trouble = ""  # what the operating system said, while lines wait in memory
        self._lock = threading.Lock()  # a save beside the training records itself from its own thread
        with explained(disk, path, "the record cannot be opened"):
            torn, new = _ends_torn(path), not path.exists()
            self._file = PatientFile(disk, disk.open_append(path), torn=torn)
            if new:  # a synced file whose name is lost is lost
                disk.sync_folder(path.parent)

    @property
    def waiting(self) -> int:
        """How many lines are not written yet."""
        return self._file.waiting

    def append(self, record: dict[str, Any], *, durable: bool) -> None:
        """Add one line; Refused when the disk is full, unless this file is patient."""
        self.append_line(json_line(record), durable=durable)

    def append_line(self, line: bytes, *, durable: bool) -> None:
        """The same, of a line that is made already."""
        with self._lock:
            try:
                self._file.put(line)
                if durable:
                    self._file.sync()
                self.trouble = ""
            except OSError as error:
                self.trouble = error.strerror or str(error)
                if not self.patient:
                    raise refusal(self._disk, self.path, CANNOT_CONTINUE, error) from error

    def require_written(self) -> None:
        """Write what waits, if anything does; Refused when the disk is full."""
        if self.trouble:
            self.sync()

    def sync(self) -> None:
        """Wait until all lines are on the medium; Refused when the disk is full."""
        with self._lock, explained(self._disk, self.path, CANNOT_CONTINUE):
            try:
                self._file.sync()
            except OSError as error:
                self.trouble = error.strerror or str(error)
                raise
            self.trouble = ""

    def close(self) -> None:
        """Wait until all lines are on the medium, then close."""
        try:
            self.sync()
        finally:
            self._file.close()


def _ends_torn(path: Path) -> bool:
    try:
        with open_ordinary(path) as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # missing, or what nothing can be appended to: that is said when it is opened for it
        return False


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line, oldest first; a torn or unreadable line is left out, and a missing file has none."""
    try:
        yield from (record for _, record in numbered_lines(path) if record is not None)
    except (FileNotFoundError, NotOrdinary):
        return


def numbered_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Every whole line and its number, None for what is no record; a last line without its end does not count."""
    with open_ordinary(path) as file:
        for number, line in enumerate(lines_of(file), start=1):
            if line.endswith(b"\n"):
                yield number, parsed_line(line)


def read_lines_backwards(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line, newest first, reading only as much of the end as is asked for; a missing file has none."""
    try:
        file = open_ordinary(path)
    except (FileNotFoundError, NotOrdinary):
        return
    with file:
        yield from records_backwards(file)


# -- the journal -----------------------------------------------------------------------------------------------------


class Journal:
    """The open journal of one session."""

    def __init__(self, disk: Disk, path: Path, *, clock: Clock, session: str) -> None:
        self._clock, self._session = clock, session
        self._lines = LineFile(disk, path)

    def write(self, event: str, **facts: Any) -> None:
        """Record one event by its name, durably; the class of that name says what its facts may be."""
        moment = utc_text(self._clock.now(), timespec="milliseconds")
        record = {"time": moment, "session": self._session, "event": event, **facts}
        self._lines.append(finite(record), durable=True)

    @property
    def lines(self) -> LineFile:
        """The file behind it."""
        return self._lines

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


@dataclass(frozen=True, kw_only=True)
class DamagedLine:
    """A line of a journal that is no event: where, of which event as far as it says so, and what is wrong."""

    line: int
    event: str
    words: str


@dataclass(frozen=True, kw_only=True)
class JournalContents:
    """What a journal holds: the events, oldest first, and the lines that count for nothing.

    Half of a line is what a kill leaves: it is *torn*, no event, and no damage either.
    """

    events: tuple[Event, ...] = ()
    damaged: tuple[DamagedLine, ...] = ()
    torn: tuple[int, ...] = ()  # line numbers; the last line without its end is not one of them


def read_journal(path: Path) -> JournalContents:
    """All of a journal; nothing where there is none."""
    events, damaged, torn = list[Event](), list[DamagedLine](), list[int]()
    try:
        file = open_ordinary(path)
    except (FileNotFoundError, NotOrdinary):
        return JournalContents()
    with file:
        for place, line in enumerate(lines_of(file), start=1):
            record = parsed_line(line)
            if record is None:
                if words := _damage(line):
                    damaged.append(DamagedLine(line=place, event="", words=words))
                elif line.endswith(b"\n"):
                    torn.append(place)
            else:
                try:
                    events.append(Event.of(record))
                except BadField as error:
                    name = str(record.get("event", ""))[:40]
                    damaged.append(DamagedLine(line=place, event=name, words=str(error)))
    return JournalContents(events=tuple(events), damaged=tuple(damaged), torn=tuple(torn))


def read_events(path: Path) -> tuple[Event, ...]:
    """The events of a run, oldest first; none when there is no journal."""
    return read_journal(path).events


def read_events_backwards(path: Path) -> Iterator[Event]:
    """The same, newest first, reading only as much of the end as is asked for."""
    return (event for record in read_lines_backwards(path) if (event := as_event(record)) is not None)


def _damage(line: bytes) -> str:
    """What is wrong with a line that is no record; "" for half of one, and for an empty one."""
    if not line.endswith(b"\n") or not line.strip():
        return ""
    try:
        parsed_json(line)
    except ValueError as error:
        is_half = line.startswith(b"{") and isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
        twice = str(error) if "twice" in str(error) else ""
        return "" if is_half else twice or "this is no record"
    return "expected an object"
