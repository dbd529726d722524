"""Curves for TensorBoard: one event file per session, which together show each step of a run once.

A reader of TensorBoard takes the files of a folder in the order of their names, each to its end, and never comes back.
A START event makes it drop every point from that step on: those of a killed session that were not saved. The server's
reader in Python takes the first START it meets for the first session's, which drops nothing; so each comes twice. Its
reader in Rust drops by itself what a curve has from a step on when that step comes again. In the scalars file, which
holds all sessions, what was lost in a kill and is done again stands once as well.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from unbroken.clock import Clock
from unbroken.errors import Refused
from unbroken.fields import count_of
from unbroken.ids import host_name
from unbroken.jsonlines import lines_of, parsed_line
from unbroken.storage import Disk, WritableFile, durable_folder, explained, open_ordinary, write_whole
from unbroken.train.record import event_records, hparams
from unbroken.train.record.event_records import Point
from unbroken.train.record.hparams import RunSettings

FOLLOW_EVERY_S = 5.0
EVENT_FILES = "events.out.tfevents.*"
CANNOT_WRITE = "the curves for TensorBoard cannot be written"


class TensorBoardCurves:
    """The event file of one session; a thread writes what waits every `follow_every_s` seconds.

    The file appears with its first point. When a write fails a record may be torn and nothing behind it would be read,
    so the next attempt is made in a file of its own, from the first point on that is not known to be written.
    """

    def __init__(
        self,
        disk: Disk,
        folder: Path,
        clock: Clock,
        *,
        session: str,
        after: int,
        settings: RunSettings | None = None,
        follow_every_s: float = FOLLOW_EVERY_S,
    ) -> None:
        """`after` is the step this session goes on from; below 0 nothing of earlier sessions is dropped.

        `settings` are the run's row in the HParams tab, written when the file is begun.
        """
        self._disk, self._clock, self._session, self._settings = disk, clock, session, settings
        self._begun_s = clock.now().timestamp()
        earlier = _event_files(folder)
        self._path = folder / _name_after(earlier, self._begun_s, session)
        self._restart = after + 1 if earlier and after >= 0 else None
        self._waiting: list[Point] = []
        self._file: WritableFile | None = None
        self._settings_written = False
        self._holds_points = False  # whether something in the file is to be kept
        self._closed = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._follow, args=(follow_every_s,), name="unbroken-curves", daemon=True
        )
        self._thread.start()

    def add(self, step: int, values: Mapping[str, float | bytes], *, wall_time_s: float) -> None:
        """Let one point of each curve wait to be written; its values become 32-bit floats, also NaN and infinity.

        A value of bytes is a PNG, to be shown under its tag.
        """
        self._waiting.append((step, dict(values), wall_time_s))

    def flush(self) -> None:
        """Write everything waiting and wait until it is on the medium; Refused when the disk is full."""
        self._write(durable=True)

    def finish(self) -> None:
        """Write everything, and in the HParams tab that the run is finished."""
        self.flush()
        if self._settings is not None and self._holds_points:
            with explained(self._disk, self._path, CANNOT_WRITE):
                self._write_settings(self._settings, ended_s=self._clock.now().timestamp())

    def close(self) -> None:
        """Write what waits, end the thread and close the file."""
        self._ended.set()
        self._thread.join()
        if self._closed:
            return
        try:
            self._write(durable=True)
        finally:
            self._closed = True
            file, self._file = self._file, None
            if file is not None:
                with explained(self._disk, self._path, CANNOT_WRITE):
                    self._disk.close(file)

    def _follow(self, every_s: float) -> None:
        """Write now and then, for who looks on; what cannot be written waits, and the next `flush` raises."""
        while not self._ended.wait(every_s):
            with suppress(Refused):
                self._write(durable=False)

    def _write(self, *, durable: bool) -> None:
        with self._lock:
            count = len(self._waiting)
            if count and self._closed:
                raise ValueError(f"{self._path.name} is closed")
            data = self._records(self._waiting[:count]) if count else b""
            try:
                with explained(self._disk, self._path, CANNOT_WRITE):
                    self._put(data, durable=durable)
            except Refused:
                if count:
                    self._leave_file()
                raise
            self._holds_points = self._holds_points or bool(count)
            del self._waiting[:count]  # in one step: `add` may append meanwhile

    def _leave_file(self) -> None:
        """Begin the next file with what waits; one that holds nothing yet is begun again under its own name."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                self._disk.close(file)
        if self._holds_points:
            earlier = _event_files(self._path.parent)
            self._path = self._path.with_name(_name_after(earlier, self._begun_s, self._session))
            self._restart, self._holds_points = self._waiting[0][0], False

    def _put(self, data: bytes, *, durable: bool) -> None:
        if data and self._file is None:
            durable_folder(self._disk, self._path.parent)
            if self._settings is not None and not self._settings_written:
                self._write_settings(self._settings, ended_s=None)
            begin = self._disk.create if self._path.exists() else self._disk.open_append
            self._file = begin(self._path)
            self._disk.sync_folder(self._path.parent)
        if data and self._file is not None:
            self._file.write(data)
        if durable and self._file is not None:
            self._disk.sync(self._file)

    def _write_settings(self, settings: RunSettings, *, ended_s: float | None) -> None:
        """Replace the file of the settings; half of one is skipped by readers, and written anew by the next session."""
        file = self._disk.create(self._path.parent / hparams.FILE)
        try:
            file.write(settings.as_file(ended_s=ended_s))
        finally:
            self._disk.close(file)
        self._settings_written = True

    def _records(self, points: list[Point]) -> bytes:
        """The points, after the head of the file when it is not begun, as TensorBoard's checksummed records."""
        begin = b"" if self._file else event_records.head(begun_s=self._begun_s, restart=self._restart)
        return begin + event_records.points(points)


def _event_files(folder: Path) -> list[str]:
    """The files of sessions, and of other programs."""
    return [path.name for path in folder.glob(EVENT_FILES) if path.name != hparams.FILE]


def _name_after(earlier: list[str], begun_s: float, session: str) -> str:
    """A name that sorts after the earlier ones, also of a machine whose clock was ahead of ours."""
    found = [re.match(r"events\.out\.tfevents\.(\d+)\.", name) for name in earlier]
    seconds = max([int(begun_s), *(int(match[1]) + 1 for match in found if match)])
    return f"events.out.tfevents.{seconds:010d}.{host_name()}.{session}"


def rewind(disk: Disk, path: Path, *, step: int) -> None:
    """Drop the lines of a scalars file that are later than `step`: these steps are done again from here."""
    try:
        with open_ordinary(path) as file:
            lines = list(lines_of(file))
    except FileNotFoundError:
        return
    kept = [line for line in lines if line.endswith(b"\n") and _step(line) <= step]
    if kept != lines:
        write_whole(disk, path, b"".join(kept))


def _step(line: bytes) -> int:
    """The step of a line; one that says none stays, whatever it is."""
    record = parsed_line(line)
    return (count_of(record.get("step")) or 0) if record is not None else 0
