"""Curves for TensorBoard: one event file per session, which together show each step of a run once.

A reader of TensorBoard takes the files of a folder in the order of their names, each to its end, and never comes back.
A START event makes it drop every point from that step on: those of a killed session that were not saved. The server's
reader in Python takes the first START it meets for the first session's, which drops nothing; so each comes twice. Its
reader in Rust drops by itself what a curve has from a step on when that step comes again.
"""

from __future__ import annotations

import io
import re
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from unbroken.errors import Refused
from unbroken.storage import Disk, WritableFile, durable_folder, explained
from unbroken.values import Clock

FOLLOW_EVERY_S = 5.0
EVENT_FILES = "events.out.tfevents.*"
VERSION = "brain.Event:2"  # from version 2 on readers heed START events
CANNOT_WRITE = "the curves for TensorBoard cannot be written"

Point = tuple[int, dict[str, float], float]  # step, value by tag, wall time in seconds


class Curves:
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
        follow_every_s: float = FOLLOW_EVERY_S,
    ) -> None:
        """`after` is the step this session goes on from; below 0 nothing of earlier sessions is dropped."""
        self._disk, self._session = disk, session
        self._begun_s = clock.now().timestamp()
        earlier = [path.name for path in folder.glob(EVENT_FILES)]
        self._path = folder / _name_after(earlier, self._begun_s, session)
        self._restart = after + 1 if earlier and after >= 0 else None
        self._waiting: list[Point] = []
        self._file: WritableFile | None = None
        self._holds_points = False  # whether something in the file is to be kept
        self._closed = False
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(
            target=self._follow, args=(follow_every_s,), name="unbroken-curves", daemon=True
        )
        self._thread.start()

    def add(self, step: int, values: Mapping[str, float], *, wall_time_s: float) -> None:
        """Let one point of each curve wait to be written; its values become 32-bit floats, also NaN and infinity."""
        self._waiting.append((step, dict(values), wall_time_s))

    def flush(self) -> None:
        """Write everything waiting and wait until it is on the medium; Refused when the disk is full."""
        self._write(durable=True)

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
            earlier = [path.name for path in self._path.parent.glob(EVENT_FILES)]
            self._path = self._path.with_name(_name_after(earlier, self._begun_s, self._session))
            self._restart, self._holds_points = self._waiting[0][0], False

    def _put(self, data: bytes, *, durable: bool) -> None:
        if data and self._file is None:
            durable_folder(self._disk, self._path.parent)
            begin = self._disk.create if self._path.exists() else self._disk.open_append
            self._file = begin(self._path)
            self._disk.sync_folder(self._path.parent)
        if data and self._file is not None:
            self._file.write(data)
        if durable and self._file is not None:
            self._disk.sync(self._file)

    def _records(self, points: list[Point]) -> bytes:
        """The points, after the head of the file when it is not begun, as TensorBoard's checksummed records."""
        # Here and not above: the import takes a sixth of a second, and the thread has it to itself.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        data = io.BytesIO()
        records = RecordWriter(data)
        if self._file is None:
            records.write(Event(wall_time=self._begun_s, file_version=VERSION).SerializeToString())
            if self._restart is not None:
                start = SessionLog(status=SessionLog.START)
                event = Event(wall_time=self._begun_s, step=self._restart, session_log=start)
                for _ in range(2):
                    records.write(event.SerializeToString())
        for step, values, wall_time_s in points:
            event = Event(wall_time=wall_time_s, step=step)
            for tag, value in values.items():
                event.summary.value.add(tag=tag, simple_value=value)
            records.write(event.SerializeToString())
        return data.getvalue()


def _name_after(earlier: list[str], begun_s: float, session: str) -> str:
    """A name that sorts after the earlier ones, also of a machine whose clock was ahead of ours."""
    found = [re.match(r"events\.out\.tfevents\.(\d+)\.", name) for name in earlier]
    seconds = max([int(begun_s), *(int(match[1]) + 1 for match in found if match)])
    return f"events.out.tfevents.{seconds:010d}.{socket.gethostname()}.{session}"
