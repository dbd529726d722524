"""The only code that changes the disk: one method for each thing the operating system is asked to do."""

from __future__ import annotations

import errno
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

DISK_TROUBLE = {errno.EIO, errno.ENOSPC, errno.EDQUOT}


AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)  # opening never waits for the other end of a pipe
NO_LINK = getattr(os, "O_NOFOLLOW", 0)
BINARY = getattr(os, "O_BINARY", 0)  # Windows would turn every line feed into two bytes


class WritableFile(Protocol):
    """An open file that bytes can be put into."""

    def write(self, data: bytes | memoryview, /) -> int:
        """Put bytes at the end.

        Args:
            data: All of it is written.
        Returns:
            How many bytes that was.
        """
        ...

    def flush(self) -> None:
        """Hand buffered bytes to the operating system."""
        ...


class _OpenFile:
    """An unbuffered file descriptor: what `write` returned for is in the operating system's hands."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def write(self, data: bytes | memoryview, /) -> int:
        written = os.write(self.descriptor, data)
        if written != len(data):  # as good as never; of a view that is not of bytes the length counts its items
            view = memoryview(data).cast("B")
            while written < len(view):
                written += os.write(self.descriptor, view[written:])
        return written

    def flush(self) -> None:
        """Nothing is buffered here."""


def _descriptor(file: WritableFile) -> int:
    if not isinstance(file, _OpenFile):
        raise TypeError("this file was not opened by a disk")
    return file.descriptor


def _opened(path: Path, how: int) -> _OpenFile:
    """Open an ordinary file, without waiting for anybody and without following a link that a stranger may have made."""
    descriptor = os.open(path, how | BINARY | AT_ONCE | NO_LINK, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not an ordinary file", str(path))
    return _OpenFile(descriptor)


class Disk:
    """What changes the disk: one method for each thing the operating system is asked, each raising its OSError.

    A test hands in one of its own that stops at the n-th request.
    """

    def create(self, path: Path) -> WritableFile:
        """Open a file for writing, empty; a link, a pipe or another thing that has the name gives way to it.

        Args:
            path: The file.
        Returns:
            The open file, for `sync` and `close`.
        Raises:
            OSError: The name is that of a folder, or the system refuses.
        """
        with suppress(OSError):
            if not stat.S_ISREG(path.lstat().st_mode):
                path.unlink()
        return _opened(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def open_append(self, path: Path) -> WritableFile:
        """Open a file so that every write lands at its end.

        Args:
            path: The file, which is made where there is none.
        Returns:
            The open file, for `sync` and `close`.
        Raises:
            OSError: A link, a pipe or a device has this name.
        """
        return _opened(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def sync(self, file: WritableFile) -> None:
        """Return only when the file's bytes are on the medium.

        Args:
            file: One that this disk opened.
        """
        os.fsync(_descriptor(file))

    def close(self, file: WritableFile) -> None:
        """Give the descriptor back.

        Args:
            file: One that this disk opened.
        """
        os.close(_descriptor(file))

    def rename(self, source: Path, target: Path) -> None:
        """Put a file under another name in one indivisible step, replacing what is there.

        Args:
            source: Its name.
            target: The other one, on the same file system.
        """
        os.replace(source, target)

    def sync_folder(self, folder: Path) -> None:
        """Make the names inside a folder durable; nothing is done where folders cannot be opened, as on Windows.

        Args:
            folder: Its path.
        """
        if os.name == "nt":
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            # Some network file systems refuse to sync a folder; they order names themselves.
            if error.errno in DISK_TROUBLE:
                raise
        finally:
            os.close(descriptor)

    def make_folder(self, folder: Path) -> None:
        """Create a folder and its parents where they are missing.

        Args:
            folder: Its path.
        """
        folder.mkdir(parents=True, exist_ok=True)

    def move(self, source: Path, target: Path) -> None:
        """Move a file, a folder or a link to a new name on any file system; a link leads where it led before.

        Args:
            source: Its name.
            target: The new name, which nothing has yet.
        """
        import shutil  # it loads three compressors, which looking does without

        says = source.readlink() if source.is_symlink() else Path()
        if len(says.parts) < 2 or says.is_absolute():  # one that names its neighbour moves together with it
            shutil.move(source, target)
        else:
            target.symlink_to(source.parent.resolve() / says)
            source.unlink()

    def remove(self, path: Path) -> None:
        """Remove one file or link.

        Args:
            path: Its name; a link goes, and not what it leads to.
        """
        path.unlink()

    def remove_folder(self, folder: Path) -> None:
        """Remove an empty folder.

        Args:
            folder: Its path.
        """
        folder.rmdir()

    def link(self, path: Path, target: str) -> None:
        """Create a symbolic link.

        Args:
            path: Its name.
            target: What it says.
        """
        path.symlink_to(target)

    def free_bytes(self, folder: Path) -> int:
        """Return how many bytes can still be written.

        Args:
            folder: On the file system in question.
        """
        import shutil

        return shutil.disk_usage(folder).free


class _Nothing:
    """A file that keeps nothing of what is written."""

    def write(self, data: bytes | memoryview, /) -> int:
        return len(memoryview(data).cast("B"))

    def flush(self) -> None:
        """Nothing waits."""


class Nowhere(Disk):
    """A disk that keeps nothing and refuses nothing: that of a process whose writing another one does."""

    def create(self, path: Path) -> WritableFile:  # noqa: ARG002 - as a disk is asked
        """A file that goes nowhere."""
        return _Nothing()

    def open_append(self, path: Path) -> WritableFile:  # noqa: ARG002 - as a disk is asked
        """A file that goes nowhere."""
        return _Nothing()

    def sync(self, file: WritableFile) -> None:
        """Nothing to wait for."""

    def close(self, file: WritableFile) -> None:
        """Nothing to give back."""

    def rename(self, source: Path, target: Path) -> None:
        """There is nothing of this name."""

    def sync_folder(self, folder: Path) -> None:
        """Nothing to wait for."""

    def make_folder(self, folder: Path) -> None:
        """No folder is made."""

    def move(self, source: Path, target: Path) -> None:
        """Nothing moves."""

    def remove(self, path: Path) -> None:
        """Nothing goes."""

    def remove_folder(self, folder: Path) -> None:
        """Nothing goes."""

    def link(self, path: Path, target: str) -> None:
        """No link is made."""


def turn_away() -> None:
    """Let standard output lead nowhere, so that Python does not complain once more at exit of what is gone."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
