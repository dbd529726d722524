"""One live process per run: the lock of its folder, and who holds it.

Who holds it stands in a file beside the lock, because a locked file may not be read on Windows. A session looks now and
then whether both are still its own: a lock file can be removed by hand, or its folder moved away, under a live process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from unbroken.clock import Clock, shown_time, utc_text
from unbroken.errors import RunHeld, UsageError
from unbroken.ids import host_name
from unbroken.storage.durable import durable_folder, explained, write_json
from unbroken.storage.file_lock import STAND_IN, FileLock, LockHeld, is_locked, no_locks_words, stand_in_words
from unbroken.storage.files import Disk
from unbroken.storage.ordinary import read_typed

LOCK, HOLDER = "lock", "holder.json"
LOCK_FILES = (LOCK, LOCK + STAND_IN, HOLDER)  # of a process here: they go nowhere with the run
LOOK_EVERY_S = 1.0  # whether the lock is still ours
COMMANDS = ("prune", "restore", "unpack")  # what else than a session a lock is taken as
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
        process = f"process {self.pid} on {self.host}, since {shown_time(self.since)}"
        return f"`unbroken {self.session}` ({process})" if self.is_command else process

    @property
    def is_this_process(self) -> bool:
        """Whether it is the process that asks: it has the run open already."""
        return self.pid == os.getpid() and self.host == host_name() and not self.released

    @property
    def is_command(self) -> bool:
        """Whether it is a command that ends by itself, and no training that could be asked to stop."""
        return self.session in COMMANDS


class RunLock:
    """The right to change a run's folder, held until `release`."""

    def __init__(self, disk: Disk, folder: Path, clock: Clock) -> None:
        self._disk, self._folder, self._clock = disk, folder, clock
        self._lock: FileLock | None = None
        self._holder: Holder | None = None
        self._previous: Holder | None = None
        self._made: list[Path] = []  # what was not there before: folders, the innermost first, and the lock itself
        self._looked_s, self._looking = 0.0, threading.Lock()  # a save beside the training looks from its own thread
        self._said: list[str] = []
        self.lost: RunHeld | None = None  # why it is not ours any more, since that was seen

    def acquire(self, session: str | Callable[[], str]) -> Holder | None:
        """Take the lock; returns the previous holder if it died without letting go, raises RunHeld if it lives.

        A session's name that is to be new in the folder is chosen once the folder is ours: `session` is called then.
        The folder is made where it is missing.
        """
        lock_path = self._folder / LOCK
        self._made = [path for path in (lock_path, self._folder, *self._folder.parents) if not path.exists()]
        try:
            with explained(self._disk, self._folder.parent, "the run's folder cannot be made"):
                durable_folder(self._disk, self._folder)
            self._lock = lock = self._taken()
        except BaseException:
            self._tidy()
            raise
        try:
            self._previous = previous = read_holder(self._folder)
            self._holder = Holder(
                host=host_name(),
                pid=os.getpid(),
                since=utc_text(self._clock.now()),
                session=session if isinstance(session, str) else session(),
                released=False,
            )
            self._write_holder(self._holder)
        except BaseException:
            self._withdraw()
            raise
        self._looked_s = self._clock.monotonic_s()
        self.lost = None
        if lock.is_soft:
            self._said.append(f"note: {no_locks_words()}")
        return previous if previous and not previous.released else None

    @property
    def session(self) -> str:
        """The name it was taken under."""
        return self._holder.session if self._holder is not None else ""

    def hold_as(self, session: str) -> None:
        """Hold it on under another name."""
        if self._holder is None:
            raise ValueError("this lock is not held")
        self._holder = replace(self._holder, session=session)
        self._write_holder(self._holder)

    def said(self) -> list[str]:
        """What there is to say of the lock since the last time."""
        said, self._said = self._said, []
        return said

    def require(self, *, now: bool = False) -> None:
        """Raise RunHeld where the run is another's by now; looks at most once a second, or `now`.

        A lock file that only was removed, or replaced by nobody's, is made again.
        """
        with self._looking:
            if self._lock is None:
                return
            if self.lost is not None:
                raise self.lost
            now_s = self._clock.monotonic_s()
            if not now and now_s - self._looked_s < LOOK_EVERY_S:
                return
            self._looked_s = now_s
            if not self._lock.is_ours() or not self._names_us(read_holder(self._folder)):
                self._lock_again()

    def release(self) -> None:
        """Say in the holder file that the run was let go in order, then let go."""
        if self._holder is not None:
            self._let_go(replace(self._holder, released=True))

    def withdraw(self) -> None:
        """Let go of a run that was only looked at: its folder is as it was, with who worked on it last."""
        if self._lock is None:
            return
        with suppress(OSError, RunHeld):
            self.require(now=True)
        if self.lost is None:
            self._withdraw()
        else:
            self._let_go(self._previous)

    def _withdraw(self) -> None:
        if self._previous is not None or self._folder / LOCK not in self._made:
            self._let_go(self._previous)
            return
        with suppress(OSError):
            self.discard()
        self._tidy()

    def _tidy(self) -> None:
        """Remove the folders that were made for the lock; one in which something is stays, and those above it."""
        with suppress(OSError):
            for folder in self._made:
                if folder.name != LOCK:
                    self._disk.remove_folder(folder)

    def discard(self) -> None:
        """Let go of a place where nothing is but the lock: its files go too. OSError where they cannot."""
        if self._lock is None:
            return
        lock, self._lock = self._lock, None
        try:
            for name in (HOLDER, LOCK):
                if os.name == "nt":
                    lock.release()  # an open file cannot be removed there
                with suppress(FileNotFoundError):
                    self._disk.remove(self._folder / name)
        finally:
            lock.release()

    def _taken(self) -> FileLock:
        lock = FileLock(self._folder / LOCK, self._clock)
        try:
            try:
                lock.acquire(wait_s=GRACE_S)
            except FileNotFoundError:  # an empty place was tidied away in this moment
                durable_folder(self._disk, self._folder)
                lock.acquire(wait_s=GRACE_S)
        except LockHeld:
            raise held_error(self._folder) from None
        except OSError as error:
            raise UsageError(
                self._folder,
                f"the run's folder cannot be locked ({error.strerror})",
                do="Choose a folder that can be written to; a read-only one can be a source: --search.",
            ) from None
        return lock

    def _write_holder(self, holder: Holder) -> None:
        with explained(self._disk, self._folder, "the run's folder cannot be written"):
            write_json(self._disk, self._folder / HOLDER, asdict(holder))

    def _lock_again(self) -> None:
        """The files of the lock are not as we left them: whose is the run?"""
        if (before := self._lock) is None or self._holder is None:
            return
        lock = before
        if not lock.is_ours():
            lock = FileLock(self._folder / LOCK, self._clock)
            try:
                lock.acquire(wait_s=0.0)
            except (LockHeld, OSError):
                raise self._lose() from None
        found = read_holder(self._folder)
        if found is not None and not self._names_us(found):  # even if that one has let go: it has changed what is here
            if lock is not before:
                lock.release()
            raise self._lose()
        if lock is not before:
            before.release()
            self._lock = lock
            self._said.append("warning: the lock of this run was removed or replaced; nobody took it, it is made again")
        if found is None:
            self._write_holder(self._holder)

    def _names_us(self, found: Holder | None) -> bool:
        mine = self._holder
        return found is not None and mine is not None and found.session == mine.session

    def _lose(self) -> RunHeld:
        found = read_holder(self._folder)
        if found is not None and not self._names_us(found):
            other = f"by {found}"
        else:  # who has just taken it says a moment later who it is
            other = "by another process" if is_held(self._folder) else "or its folder was moved away"
        self.lost = RunHeld(
            self._folder.parent,
            f"this session's lock was removed, and the run was taken {other}",
            do="This session ends and writes nothing more here: what it saved is what the other one goes on from. "
            "To end a session, use `unbroken stop`.",
        )
        return self.lost

    def _let_go(self, last: Holder | None) -> None:
        if self._lock is None:
            return
        file = self._folder / HOLDER
        try:
            # On a full disk the word stays unsaid; the reason why this session ends matters more.
            with suppress(OSError, RunHeld):
                self.require(now=True)
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

    Raises RunHeld where one is in it.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(wait_s=GRACE_S)
    except LockHeld:
        raise held_error(folder) from None
    try:
        yield
    finally:
        lock.release()


def held_error(folder: Path) -> RunHeld:
    """The refusal that names the live owner of a run."""
    holder, stand_in = read_holder(folder), stand_in_words(folder / LOCK)
    if holder is not None and holder.is_this_process and not holder.is_command:
        return RunHeld(
            folder.parent,
            f"this process has the run open itself, since {shown_time(holder.since)}",
            do="Close it first.",
        )
    stop = "" if holder and holder.is_command else ", or stop it (`unbroken stop` lets it save first)"
    return RunHeld(
        folder.parent,
        f"the run is held by {holder or 'another process'}" + (f"; {stand_in}" if stand_in else ""),
        do=f"Wait for it{stop}.",
    )


def read_holder(folder: Path) -> Holder | None:
    """Who holds or held the run of this folder, if anybody ever did."""
    return read_typed(folder / HOLDER, Holder)


def is_held(folder: Path) -> bool:
    """Whether a live process holds the lock; looks without creating or changing anything."""
    return is_locked(folder / LOCK)


def held_without_locks(folder: Path) -> str:
    """What stands in for the lock of a run that is held, on a file system without locks; "" elsewhere."""
    return stand_in_words(folder / LOCK)


def holds(folder: Path, pid: int) -> bool:
    """Whether that process of this machine has the run's lock file open; False also where that cannot be seen.

    A process of the same number may be another one: in another container, or after the holder has died.
    """
    with suppress(OSError):
        lock = (folder / LOCK).stat()
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                if os.path.samestat(entry.stat(), lock):
                    return True
    return False
