"""The stand-in for a lock where the file system has none: a file that says who holds it, with a sign of life.

Whoever creates the file holds it. Its time is set anew every few seconds. What it says decides for a process of this
machine: dead, it holds nothing, at once. Of another machine it holds until its signs of life have stopped for a while.
A file that travelled here with a copy of its folder names another place, and holds nothing.
"""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unbroken.clock import Clock, SystemClock
from unbroken.ids import host_name, new_id
from unbroken.storage.durable import PARTIAL_SUFFIX
from unbroken.storage.files import BINARY, Disk
from unbroken.storage.ordinary import read_json

SIGN_EVERY_S = 10.0
SILENT_S = 120.0  # without a sign of life from another machine, its process is taken for dead
UNSAID_S = 5.0  # a file in which nothing stands yet was created by somebody this moment, or is nobody's
MOST_BYTES = 10_000
DEAD = "dead"


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Who created the file, and where: `machine` tells apart what has one host name, `started` one process number."""

    id: str
    host: str
    machine: str
    pid: int
    started: str
    place: str
    inode: int


class SoftLock:
    """The right that a file stands for, until `release`."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path, self._clock, self._disk = path, clock or SystemClock(), Disk()
        self._id, self._process, self._ended = "", 0, threading.Event()

    def take(self) -> bool:
        """Take it where nobody has it; what a dead process left is taken over. OSError where it cannot be written."""
        while not self._create():
            if is_live(self._path, now_s=self._now_s()):
                return False
            self._remove_dead()
        self._ended.clear()
        threading.Thread(target=self._give_signs, args=(self._id,), name="unbroken-lock", daemon=True).start()
        return True

    def is_ours(self) -> bool:
        """Whether the file is still the one that was created here."""
        owner = read_owner(self._path)
        return owner is not None and owner.id == self._id

    def release(self) -> None:
        """Remove the file, if it is still ours; a forked process lets go of nothing."""
        if os.getpid() != self._process:
            return
        self._ended.set()
        with suppress(OSError):
            if self.is_ours():
                self._disk.remove(self._path)

    def _create(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o644)
        except FileExistsError:
            return False
        try:
            self._id, self._process = new_id(), os.getpid()
            owner = Owner(
                id=self._id,
                host=host_name(),
                machine=_machine(),
                pid=self._process,
                started=_start_of(self._process),
                place=str(self._path.resolve()),
                inode=os.fstat(descriptor).st_ino,
            )
            os.write(descriptor, json.dumps(asdict(owner)).encode())
        except OSError:
            self._disk.remove(self._path)
            raise
        finally:
            os.close(descriptor)
        return True

    def _remove_dead(self) -> None:
        """Move the file away before it is removed, so that of several that saw it dead only one does so."""
        aside = self._beside()
        with suppress(FileNotFoundError):
            self._disk.rename(self._path, aside)
            if is_live(aside, now_s=self._now_s(), moved_from=self._path):  # that of one who was faster
                self._disk.rename(aside, self._path)
            else:
                self._disk.remove(aside)

    def _now_s(self) -> float:
        """The time by the clock that the file's own time is told by, which may be that of a server."""
        probe = self._beside()
        self._disk.close(self._disk.create(probe))
        try:
            return probe.stat().st_mtime
        except FileNotFoundError:  # a launch tidied it away
            return self._clock.now().timestamp()
        finally:
            with suppress(FileNotFoundError):
                self._disk.remove(probe)

    def _beside(self) -> Path:
        return self._path.with_name(f"{self._path.name}.{new_id()}{PARTIAL_SUFFIX}")

    def _give_signs(self, mine: str) -> None:
        while not self._ended.wait(SIGN_EVERY_S) and mine == self._id:
            with suppress(OSError):
                if self.is_ours():
                    os.utime(self._path)


def is_live(path: Path, *, now_s: float, moved_from: Path | None = None) -> bool:
    """Whether the file at `path` stands for a process that works; `now_s` is the time by which its own is judged."""
    try:
        facts = path.stat()
    except OSError:
        return False
    owner, silent_s = read_owner(path), abs(now_s - facts.st_mtime)  # a time that is still to come is no sign of life
    if owner is None:
        return silent_s < UNSAID_S
    if owner.place != str((moved_from or path).resolve()) and owner.inode != facts.st_ino:
        return False
    if owner.machine and owner.machine == _machine():
        return _is_alive(owner)
    return silent_s < SILENT_S


def read_owner(path: Path) -> Owner | None:
    """Who a file names; None where it names nobody."""
    try:
        data: Any = read_json(path, most_bytes=MOST_BYTES)
        owner = Owner(**data)
    except (OSError, ValueError, TypeError):
        return None
    words = (owner.id, owner.host, owner.machine, owner.started, owner.place)
    numbers = (owner.pid, owner.inode)
    fits = all(isinstance(word, str) for word in words) and all(type(number) is int for number in numbers)
    return owner if fits and owner.pid > 0 else None


def _is_alive(owner: Owner) -> bool:
    try:
        os.kill(owner.pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it is there, and belongs to somebody else
    started = _start_of(owner.pid)
    return started != DEAD and (not started or not owner.started or started == owner.started)


def _start_of(pid: int) -> str:
    """When a process began, in ticks since the machine did; DEAD for one that only waits to be buried."""
    try:
        facts = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return DEAD if facts[0] in "ZX" else facts[19]
    except (OSError, IndexError):
        return ""


def _machine() -> str:
    """What process numbers are told apart by: this start of this machine, and in it this world of processes.

    "" where that is not known: there the signs of life alone decide.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""
