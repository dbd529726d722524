"""Append-only files of JSON lines that survive a kill in the middle of a line."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from unbroken.errors import Refused
from unbroken.storage import Disk, NotOrdinary, each_once, explained, json_line, open_ordinary, require_shallow
from unbroken.storage.ordinary import DEEPEST
from unbroken.storage.patient import PatientFile

BLOCK_BYTES = 1 << 16
LONGEST_LINE_BYTES = 16 << 20  # a hundred times what a launch with every detail takes
BOM = b"\xef\xbb\xbf"  # an editor may have put it before the first line
# `json.loads` takes twice as long to find out how a line is encoded.
DECODE = json.JSONDecoder(object_pairs_hook=each_once).raw_decode


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


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line, oldest first; a torn or unreadable line is left out."""
    try:
        with open_ordinary(path) as file:
            yield from (record for line in lines_of(file) if (record := parse(line)) is not None)
    except (FileNotFoundError, NotOrdinary):
        return


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file up to the first one that is longer than any record."""
    while line := file.readline(LONGEST_LINE_BYTES + 1):
        if len(line) > LONGEST_LINE_BYTES:
            return
        yield line


def read_lines_backwards(path: Path) -> Iterator[dict[str, Any]]:
    """Every whole line, newest first, reading only as much of the end as is asked for."""
    try:
        file = open_ordinary(path)
    except (FileNotFoundError, NotOrdinary):
        return
    with file:
        position, tail = _end_of_last_line(file), b""
        while position > 0:
            size = min(BLOCK_BYTES, position)
            position -= size
            file.seek(position)
            tail, *rest = (file.read(size) + tail).split(b"\n")
            if len(tail) > LONGEST_LINE_BYTES:
                return
            yield from (record for line in reversed(rest) if (record := parse(line + b"\n")) is not None)
        if (record := parse(tail + b"\n")) is not None:
            yield record


def finite(value: Any) -> Any:
    """The same data with NaN and infinity, which JSON has not, as text that `float()` reads back."""
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def _end_of_last_line(file: BinaryIO) -> int:
    """Where the last whole line ends: what comes after it was cut off."""
    position = file.seek(0, os.SEEK_END)
    first = max(position - LONGEST_LINE_BYTES, 0)
    while position > first:
        size = min(BLOCK_BYTES, position)
        position -= size
        file.seek(position)
        if (found := file.read(size).rfind(b"\n")) >= 0:
            return position + found + 1
    return 0


def parse(line: bytes) -> dict[str, Any] | None:
    """One line as a record; None for what is none, and for one that was cut off."""
    if not line.endswith(b"\n"):
        return None
    try:
        text = line.removeprefix(BOM).decode("utf-8", "surrogatepass").strip(" \t\r\n")
        record, end = DECODE(text)
        if text.count("[") + text.count("{") > DEEPEST:
            require_shallow(record)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) and end == len(text) else None


def _ends_torn(path: Path) -> bool:
    try:
        with open_ordinary(path) as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:  # missing, or what nothing can be appended to: that is said when it is opened for it
        return False
