"""One live process per run: an advisory lock that the operating system drops when its owner dies.

The lock itself is `filelock`'s (flock on POSIX, LockFileEx on Windows; forked loader workers do not keep it alive).
Who holds it stands in a file beside it, because a lock file may not be read while it is held on Windows.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from unbroken.errors import RunHeld, UsageError
from unbroken.storage.durable import explained, write_json
from unbroken.storage.files import AT_ONCE, Disk
from unbroken.storage.records import read_typed
from unbroken.values import Clock

if TYPE_CHECKING:
    from filelock import BaseFileLock

HOLDER = "holder.json"
GRACE_S = 2.0  # a dying owner's descriptors may outlive its last line of output by a moment


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The process that works on a run, or was the last to do so."""

    host: str
    pid: int
    since: str
    session: str
    released: bool

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


class RunLock:
    """The right to change a run's folder, held until `release`."""

    def __init__(self, disk: Disk, folder: Path, clock: Clock) -> None:
        self._disk, self._folder, self._clock = disk, folder, clock
        self._lock: BaseFileLock | None = None
        self._holder: Holder | None = None
        self._previous: Holder | None = None

    def acquire(self, session: str) -> Holder | None:
        """Take the lock; returns the previous holder if it died without letting go, raises RunHeld if it lives."""
        from filelock import FileLock, Timeout  # 70 ms of import that only a real launch pays for

        lock = FileLock(self._folder / "lock", timeout=GRACE_S)
        try:
            lock.acquire()
        except Timeout:
            raise held_error(self._folder) from None
        except OSError as error:
            raise UsageError(
                self._folder,
                f"the run's folder cannot be locked ({error.strerror})",
                do="Choose a folder that can be written to; a read-only one can be a source: --search.",
            ) from None
        self._previous = previous = read_holder(self._folder)
        self._lock = lock
        self._holder = Holder(
            host=socket.gethostname(),
            pid=os.getpid(),
            since=self._clock.now().isoformat(timespec="seconds"),
            session=session,
            released=False,
        )
        try:
            with explained(self._disk, self._folder, "the run's folder cannot be written"):
                write_json(self._disk, self._folder / HOLDER, asdict(self._holder))
        except BaseException:
            self._lock = None
            lock.release()
            raise
        return previous if previous and not previous.released else None

    def release(self) -> None:
        """Say in the holder file that the run was let go in order, then let go."""
        if self._holder is not None:
            self._let_go(replace(self._holder, released=True))

    def withdraw(self) -> None:
        """Let go of a run that was only looked at: the holder file says again who worked on it last."""
        self._let_go(self._previous)

    def _let_go(self, last: Holder | None) -> None:
        if self._lock is None:
            return
        file = self._folder / HOLDER
        try:
            # On a full disk the word stays unsaid; the reason why this session ends matters more.
            with suppress(OSError):
                if last is not None:
                    write_json(self._disk, file, asdict(last))
                elif file.exists():
                    self._disk.remove(file)
        finally:
            self._lock.release()
            self._lock = None


@contextmanager
def kept_out(folder: Path) -> Iterator[None]:
    """Keep all others out of a copy of a run while it is brought up to date; who worked on the run stays written.

    Raises RunHeld where one is in it. A file system without locks keeps nobody out; there each file is still whole.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / "lock", timeout=GRACE_S)
    try:
        lock.acquire()
    except Timeout:
        raise held_error(folder) from None
    except (OSError, NotImplementedError):
        if not folder.is_dir():
            raise
    try:
        yield
    finally:
        lock.release()


def held_error(folder: Path) -> RunHeld:
    """The refusal that names the live owner of a run."""
    holder = read_holder(folder)
    return RunHeld(
        folder.parent,
        f"the run is held by {holder}" if holder else "the run is held by another process",
        do="Wait for it, stop it (`unbroken stop` lets it save first), or choose another --tag.",
    )


def read_holder(folder: Path) -> Holder | None:
    """Who holds or held the run of this folder, if anybody ever did."""
    return read_typed(folder / HOLDER, Holder)


def is_held(folder: Path) -> bool:
    """Whether a live process holds the lock; looks without creating or changing anything."""
    try:
        descriptor = os.open(folder / "lock", os.O_RDONLY | AT_ONCE)
    except OSError:
        return False
    try:
        return not _could_lock(descriptor)
    finally:
        os.close(descriptor)


def holds(folder: Path, pid: int) -> bool:
    """Whether that process of this machine has the run's lock file open; False also where that cannot be seen.

    A process of the same number may be another one: in another container, or after the holder has died.
    """
    with suppress(OSError):
        lock = (folder / "lock").stat()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.path.samestat(entry.stat(), lock):
                    return True
    return False


def _could_lock(descriptor: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows: a held lock file refuses to be opened for reading, so it is free here
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
