"""One process at a time at a file: by the operating system's lock where there is one, else by a stand-in beside it.

flock on POSIX, a locked byte on Windows; both end with their owner, and forked loader workers do not keep them. Only
one answer means that another process has the lock: every other error (no lock service, a file system that knows none)
says nothing about anybody. A lock is only worth something while the file that carries it has its name: that is looked
at after it was taken, and now and then.
"""

from __future__ import annotations

import errno
import os
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum, auto
from pathlib import Path

from unbroken.clock import Clock, SystemClock
from unbroken.errors import RunHeld
from unbroken.storage.files import AT_ONCE, BINARY, NO_LINK
from unbroken.storage.soft_lock import SIGN_EVERY_S, SoftLock, is_live

STAND_IN = ".owner"  # behind the file's name
LOOK_EVERY_S = 0.05
TURNS_LOOK_EVERY_S = 0.02
TAKEN_BY_ANOTHER = {errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES}


class LockHeld(Exception):
    """Another process is at the file."""


class FileLock:
    """The right to a file, from `acquire` to `release`; the file itself is made where it is missing, and stays."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self.path, self._clock = path, clock or SystemClock()
        self._descriptor: int | None = None
        self._soft = SoftLock(stand_in(path), self._clock)
        self.is_soft = False  # whether the stand-in is what keeps others out
        _ALL.add(self)

    def acquire(self, *, wait_s: float) -> None:
        """Take it; Held where another process has it for longer than `wait_s`, OSError where it cannot be made."""
        give_up_s = self._clock.monotonic_s() + wait_s
        while not self._take():
            if self._clock.monotonic_s() >= give_up_s:
                raise LockHeld(self.path)
            self._clock.pause_s(LOOK_EVERY_S)

    def is_ours(self) -> bool:
        """Whether the file has still its name, and the lock on it is still ours; True where that cannot be seen."""
        if self._descriptor is None:
            return False
        try:
            if not os.path.samestat(os.fstat(self._descriptor), self.path.stat()):
                return False
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return not self.is_soft or self._soft.is_ours()

    def release(self) -> None:
        """Let go."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is None:
            return
        if self.is_soft:
            self._soft.release()
        unlock(descriptor)
        os.close(descriptor)

    def _take(self) -> bool:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | AT_ONCE | NO_LINK | BINARY, 0o644)
        try:
            if self._is_taken(descriptor):
                self._descriptor, descriptor = descriptor, -1
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return self._descriptor is not None

    def _is_taken(self, descriptor: int) -> bool:
        answer = ask(descriptor)
        if answer is Answer.HELD:
            return False
        try:  # it may have been removed or moved away while it was waited for
            if not os.path.samestat(os.fstat(descriptor), self.path.stat()):
                return False
        except FileNotFoundError:
            return False
        self.is_soft = answer is Answer.NO_LOCKS or not keeps_others_out(self.path)
        if self.is_soft:
            return self._soft.take()
        # From a machine on which the same file system has no locks.
        return not is_live(stand_in(self.path), now_s=self._clock.now().timestamp())

    def left_to_parent(self) -> None:
        """In a forked process: the file is closed, and the lock stays with who took it."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether a live process holds the lock of a file; looks without creating or changing anything."""
    if is_live(stand_in(path), now_s=SystemClock().now().timestamp()):
        return True
    try:
        descriptor = os.open(path, os.O_RDONLY | AT_ONCE | BINARY)
    except OSError:
        return False
    try:
        return ask(descriptor, shared=True) is Answer.HELD
    finally:
        unlock(descriptor)
        os.close(descriptor)


def stand_in(path: Path) -> Path:
    """Where the file that stands in for the lock of a file lies."""
    return path.with_name(path.name + STAND_IN)


def stand_in_words(path: Path) -> str:
    """What stands in for the lock of a file, and since when it is silent; "" where nothing does."""
    try:
        silent_s = max(SystemClock().now().timestamp() - stand_in(path).stat().st_mtime, 0.0)
    except OSError:
        return ""
    return f"{no_locks_words()}, the last one {silent_s:.0f} s ago"


def no_locks_words() -> str:
    """What is the case on a file system without locks."""
    return f"this file system has no locks: a lock file with a sign of life every {SIGN_EVERY_S:.0f} s stands in"


# -- turns at a file that is replaced --------------------------------------------------------------------------------


@contextmanager
def turn_at(path: Path, clock: Clock, *, wait_s: float) -> Iterator[None]:
    """Hold the turn at a file that several processes replace; RunHeld where others have it for longer than `wait_s`.

    The file itself cannot be locked, because each writer puts a new one in its place: its folder is, which leaves
    nothing behind. Where a folder cannot be locked (Windows, some network file systems), a file beside it stands in,
    which goes with the turn.
    """
    descriptor = -1 if os.name == "nt" else os.open(path.parent, os.O_RDONLY)
    soft = SoftLock(path.with_name(path.name + ".turn"), clock)
    try:
        give_up_s = clock.monotonic_s() + wait_s
        while not _taken(path.parent, descriptor, soft):
            if clock.monotonic_s() > give_up_s:
                raise RunHeld(path, "other processes are writing it", do="Run the same command again.")
            clock.pause_s(TURNS_LOOK_EVERY_S)
        yield
    finally:
        soft.release()
        if descriptor >= 0:
            unlock(descriptor)  # also for a process that was forked meanwhile
            os.close(descriptor)


def _taken(folder: Path, descriptor: int, soft: SoftLock) -> bool:
    answer = ask(descriptor) if descriptor >= 0 else Answer.NO_LOCKS
    if answer is Answer.NO_LOCKS or (answer is Answer.OURS and not keeps_others_out(folder)):
        return soft.take()
    return answer is Answer.OURS


# -- the operating system's locks ------------------------------------------------------------------------------------


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


_ALL: weakref.WeakSet[FileLock] = weakref.WeakSet()


def _after_fork() -> None:
    for lock in list(_ALL):
        with suppress(OSError):
            lock.left_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
