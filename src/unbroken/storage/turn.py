"""Taking turns at a file that several processes replace: a lock on its folder, which leaves nothing behind.

The file itself cannot be locked, because each writer puts a new one in its place. Where a folder cannot be locked
(Windows, some network file systems), a lock file among the temporary files of this machine does.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unbroken.errors import RunHeld
from unbroken.values import Clock

LOOK_EVERY_S = 0.02


@contextmanager
def turn_at(path: Path, clock: Clock, *, wait_s: float) -> Iterator[None]:
    """Hold the turn at a file; RunHeld where others have it for longer than `wait_s`."""
    descriptor = _open(path.parent)
    if descriptor is None:
        with _by_lock_file(path, wait_s):
            yield
        return
    import fcntl

    try:
        give_up_s = clock.monotonic_s() + wait_s
        while not _taken(descriptor):
            if clock.monotonic_s() > give_up_s:
                raise _busy(path)
            clock.pause_s(LOOK_EVERY_S)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # also for a process that was forked meanwhile
        os.close(descriptor)


def _open(folder: Path) -> int | None:
    """The folder, open to be locked; None where that is not possible."""
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BlockingIOError:
        pass  # it can be locked: somebody has done it
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _taken(descriptor: int) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _by_lock_file(path: Path, wait_s: float) -> Iterator[None]:
    from filelock import FileLock, Timeout

    name = hashlib.sha256(os.fsencode(path.resolve())).hexdigest()[:16]
    try:
        with FileLock(Path(tempfile.gettempdir()) / f"unbroken-{name}.lock", timeout=wait_s):
            yield
    except Timeout:
        raise _busy(path) from None


def _busy(path: Path) -> RunHeld:
    return RunHeld(path, "other processes are writing it", do="Run the same command again.")
