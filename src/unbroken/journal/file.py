"""Append-only files of JSON lines that survive a kill in the middle of a line: written, and read from both ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unbroken.errors import Refused
from unbroken.jsonlines import json_line, lines_of, parsed_line, records_backwards
from unbroken.storage import Disk, NotOrdinary, explained, open_ordinary
from unbroken.storage.patient import PatientFile


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
        with self._lock:
            self._file.add(json_line(record))
            try:
                with explained(self._disk, self.path, "the record could not be continued"):
                    self._write(durable=durable)
            except Refused:
                if not self.patient:
                    raise

    def require_written(self) -> None:
        """Write what waits, if anything does; Refused when the disk is full."""
        if self.trouble:
            self.sync()

    def sync(self) -> None:
        """Wait until all lines are on the medium; Refused when the disk is full."""
        with self._lock, explained(self._disk, self.path, "the record could not be continued"):
            self._write(durable=True)

    def close(self) -> None:
        """Wait until all lines are on the medium, then close."""
        try:
            self.sync()
        finally:
            self._file.close()

    def _write(self, *, durable: bool) -> None:
        try:
            if durable:
                self._file.sync()
            else:
                self._file.write()
        except OSError as error:
            self.trouble = error.strerror or str(error)
            raise
        self.trouble = ""


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
