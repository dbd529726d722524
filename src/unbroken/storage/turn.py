"""Taking turns at a file that several processes replace: a lock on its folder, which leaves nothing behind.

The file itself cannot be locked, because each writer puts a new one in its place. Where a folder cannot be locked
(Windows, some network file systems), a file beside it stands in, which goes with the turn.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unbroken.clock import Clock
from unbroken.errors import RunHeld
from unbroken.storage.advisory import Answer, ask, keeps_others_out, unlock
from unbroken.storage.soft_lock import SoftLock

LOOK_EVERY_S = 0.02
STAND_IN = ".turn"  # behind the file's name


@contextmanager
def turn_at(path: Path, clock: Clock, *, wait_s: float) -> Iterator[None]:
    """Hold the turn at a file; RunHeld where others have it for longer than `wait_s`."""
    descriptor = -1 if os.name == "nt" else os.open(path.parent, os.O_RDONLY)
    soft = SoftLock(path.with_name(path.name + STAND_IN), clock)
    try:
        give_up_s = clock.monotonic_s() + wait_s
        while not _taken(path.parent, descriptor, soft):
            if clock.monotonic_s() > give_up_s:
                raise _busy(path)
            clock.pause_s(LOOK_EVERY_S)
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


def _busy(path: Path) -> RunHeld:
    return RunHeld(path, "other processes are writing it", do="Run the same command again.")
