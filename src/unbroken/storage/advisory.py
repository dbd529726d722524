"""What the operating system's own locks say of an open file: it is ours now, another has it, or there are none here.

flock on POSIX, a locked byte on Windows; both end with the process. Only one answer means that another process has the
lock. Every other error (no lock service, a file system that knows none) says nothing about anybody.
"""

from __future__ import annotations

import errno
import os
import sys
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

TAKEN_BY_ANOTHER = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


class Answer(Enum):
    """What became of asking for a lock."""

    OURS = auto()
    HELD = auto()
    NO_LOCKS = auto()  # this file system has none, or has them in name only


def ask(descriptor: int, *, shared: bool = False) -> Answer:
    """Ask for the lock on an open file, without waiting."""
    try:
        _lock(descriptor, shared=shared)
    except OSError as error:
        return Answer.HELD if error.errno in TAKEN_BY_ANOTHER else Answer.NO_LOCKS
    return Answer.OURS


def keeps_others_out(path: Path) -> bool:
    """Whether a lock that we hold is one: some file systems grant every lock to everybody."""
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        return ask(descriptor) is Answer.HELD
    finally:
        os.close(descriptor)


def unlock(descriptor: int) -> None:
    """Let go, also for a process that was forked meanwhile and has the file open too."""
    with suppress(OSError):
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _lock(descriptor: int, *, shared: bool) -> None:
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
