"""The one spelling of durability: temporary name, write, fsync, rename, fsync of the folder."""

from __future__ import annotations

import errno
import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unbroken.errors import Refused, UnbrokenError
from unbroken.storage.files import Disk, WritableFile
from unbroken.text import as_bytes

PARTIAL_SUFFIX = ".partial"
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


class NotTaken(Exception):
    """What `fill` or `check` of a durable write raise when the file is not to take its name after all."""


def durable_write(
    disk: Disk,
    path: Path,
    fill: Callable[[WritableFile], object],
    *,
    check: Callable[[Path], None] | None = None,
) -> None:
    """Replace `path` by what `fill` writes; at any instant the name holds the old content or the new, whole.

    `check` is given the partial, whole and on the medium, before it takes the name; what it raises prevents that.
    When it does, or the disk refuses (full, failing), the partial is removed and the error goes on.
    """
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    try:
        file = disk.create(partial)
        try:
            fill(file)
            disk.sync(file)  # before the name: else a power cut leaves the name, and nothing or zeros under it
        finally:
            disk.close(file)
        if check is not None:
            check(partial)
        disk.rename(partial, path)
    except (OSError, UnbrokenError, NotTaken):
        with suppress(OSError):
            disk.remove(partial)
        raise
    disk.sync_folder(path.parent)  # a rename is on the medium with its folder only


def durable_folder(disk: Disk, folder: Path) -> None:
    """Create `folder` and its parents where they are missing, so that their names survive a power cut too."""
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    disk.make_folder(folder)
    for path in missing:
        disk.sync_folder(path.parent)


@contextmanager
def explained(disk: Disk, path: Path, what: str) -> Iterator[None]:
    """Turn the operating system's error into a refusal."""
    try:
        yield
    except OSError as error:
        raise refusal(disk, path, what, error) from error


def refusal(disk: Disk, path: Path, what: str, error: OSError) -> Refused:
    """The operating system's error as one that says what to do, and where room lacks, how much is left."""
    room, do = "", "Mend that, or name another folder"
    if error.errno in NO_ROOM:
        do = "Make room"
        with suppress(OSError):
            room = f"{disk.free_bytes(path.parent):,} bytes free"
    return Refused(
        path,
        f"{what} ({error.strerror or error})",
        found=room,
        do=f"Earlier checkpoints are untouched. {do}, then run the same command again.",
    )


def write_whole(disk: Disk, path: Path, data: bytes) -> int:
    """Replace `path` durably by `data`, in a folder that is there; return how many bytes these are."""
    durable_write(disk, path, lambda file: file.write(data))
    return len(data)


def write_json(disk: Disk, path: Path, data: Any) -> None:
    """Replace `path` durably by `data` as UTF-8 JSON."""
    text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
    write_whole(disk, path, as_bytes(text))


def point_to(disk: Disk, pointer: Path, target_name: str) -> bool:
    """Let `pointer` be a relative link to its neighbour `target_name`; False where the file system has no links."""
    partial = pointer.with_name(pointer.name + PARTIAL_SUFFIX)
    if partial.is_symlink() or partial.exists():
        disk.remove(partial)
    try:
        disk.link(partial, target_name)
    except OSError:
        return False
    disk.rename(partial, pointer)
    disk.sync_folder(pointer.parent)
    return True


class PatientFile:
    """An open file of lines on a disk that may refuse them for a while: they wait in memory, and are written in order.

    It ends with a whole line, or will: a line that was cut off is closed and comes again whole.
    """

    def __init__(self, disk: Disk, file: WritableFile, *, torn: bool = False) -> None:
        self._disk, self._file, self._torn = disk, file, torn
        self._waiting: deque[bytes] = deque()

    @property
    def waiting(self) -> int:
        """How many lines are not written yet."""
        return len(self._waiting)

    def add(self, line: bytes) -> None:
        """Let a line wait to be written."""
        self._waiting.append(line)

    def write(self) -> None:
        """Write what waits; raises OSError, and keeps what is not written."""
        while self._waiting:
            line = self._waiting[0]
            if self._torn:  # close the torn line, so that it stays one bad line and does not swallow the next
                self._file.write(b"\n")
            self._torn = True
            self._file.write(line)
            self._torn = False
            self._waiting.popleft()

    def sync(self) -> None:
        """Write what waits and return when it is on the medium; raises OSError."""
        self.write()
        self._disk.sync(self._file)

    def close(self) -> None:
        """Give the descriptor back; what still waits is lost."""
        self._disk.close(self._file)
