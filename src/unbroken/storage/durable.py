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

# end of the name of a durable write's temporary file; one that is found at a launch was cut off
PARTIAL_SUFFIX = ".partial"
ASKED_TO_END = (KeyboardInterrupt, SystemExit)  # raised by the handler of a signal, at any instant
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
    """Replace a file by what is written; at any instant the name holds the old content or the new, whole.

    Whatever ends it, the temporary file is removed and the error goes on.

    Args:
        disk: What changes the disk: `Disk()`.
        path: The file, in a folder that is there.
        fill: Writes into the open file that it is given.
        check: Given the path of the temporary file, whole and on the medium, before it takes the name; what it raises
            prevents that. None: nothing is checked.
    Raises:
        OSError: The disk refuses: it is full, or fails.
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
    except (OSError, UnbrokenError, NotTaken, *ASKED_TO_END):
        with suppress(OSError):
            disk.remove(partial)
        raise
    disk.sync_folder(path.parent)  # a rename is on the medium with its folder only


def durable_folder(disk: Disk, folder: Path) -> None:
    """Create a folder and its parents where they are missing, so that their names survive a power cut too.

    Args:
        disk: What changes the disk.
        folder: Its path.
    Raises:
        OSError: The disk refuses.
    """
    missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
    disk.make_folder(folder)
    for path in missing:
        disk.sync_folder(path.parent)


@contextmanager
def explained(disk: Disk, path: Path, what: str) -> Iterator[None]:
    """Turn what the operating system raises within the block into a refusal that says what to do.

    Args:
        disk: What was written with.
        path: What the error names.
        what: What could not be done, as the beginning of a sentence.
    Raises:
        Refused: In place of an OSError.
    Example:
        >>> from pathlib import Path
        >>> from unbroken.storage import Disk, explained
        >>> with explained(Disk(), Path("out/a.json"), "it cannot be written"):
        ...     raise PermissionError(13, "Permission denied")
        Traceback (most recent call last):
        unbroken.errors.Refused: out/a.json: it cannot be written (Permission denied). Earlier checkpoints ...
    """
    try:
        yield
    except OSError as error:
        raise refusal(disk, path, what, error) from error


def refusal(disk: Disk, path: Path, what: str, error: OSError) -> Refused:
    """Return the operating system's error as one that says what to do, and where room lacks, how much is left.

    Args:
        disk: What was written with.
        path: What the error names.
        what: What could not be done, as the beginning of a sentence.
        error: What was raised.
    """
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
    """Replace a file durably.

    Args:
        disk: What changes the disk: `Disk()`.
        path: The file, in a folder that is there.
        data: All of its content.
    Returns:
        How many bytes these are.
    Raises:
        OSError: The disk refuses; the old content is untouched.
    Example:
        from pathlib import Path
        from unbroken import Disk, durable_folder, read_whole, write_whole

        durable_folder(Disk(), Path("out"))
        write_whole(Disk(), Path("out/classes.txt"), b"road")
        assert read_whole("out/classes.txt") == b"road"
    """
    durable_write(disk, path, lambda file: file.write(data))
    return len(data)


def write_json(disk: Disk, path: Path, data: Any) -> None:
    """Replace a file durably by data as UTF-8 JSON.

    Args:
        disk: What changes the disk: `Disk()`.
        path: The file, in a folder that is there.
        data: What `json.dumps` takes; a TypeError comes before anything is written.
    Raises:
        OSError: The disk refuses; the old content is untouched.
    """
    text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
    write_whole(disk, path, as_bytes(text))


def point_to(disk: Disk, pointer: Path, target_name: str) -> bool:
    """Let a name be a relative link to a file beside it.

    Args:
        disk: What changes the disk.
        pointer: The link; one that is there is replaced in one step.
        target_name: Name of the file.
    Returns:
        False where the file system has no links.
    """
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

    def put(self, line: bytes) -> None:
        """Write a line, after what waits; raises OSError, and keeps what is not written."""
        if self._waiting or self._torn:
            self._waiting.append(line)
            self.write()
            return
        self._torn = True
        try:
            self._file.write(line)
        except BaseException:
            self._waiting.append(line)
            raise
        self._torn = False

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
