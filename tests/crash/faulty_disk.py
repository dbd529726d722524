"""A disk that writes down every request, stops at one of them as a dying process would, or answers it with an error."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unbroken.storage import Disk, WritableFile

When = Literal["before", "after", "torn"]


class Crash(BaseException):
    """The process ends here; nothing it does afterwards reaches the disk."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing the operating system was asked for; `file` numbers the opened files of a session."""

    kind: str
    path: Path
    target: Path | str = ""
    file: int = 0
    data: bytes = b""

    def __str__(self) -> str:
        more = f" -> {self.target}" if self.target else f" ({len(self.data)} bytes)" if self.data else ""
        return f"{self.kind} {self.path.name}{more}"


class RecordedFile:
    """An open file whose writes are requests too."""

    def __init__(self, disk: FaultyDisk, path: Path, number: int, inner: Any) -> None:
        self.disk, self.path, self.number, self.inner = disk, path, number, inner

    def write(self, data: bytes, /) -> int:
        content = bytes(data)
        request = Request(kind="write", path=self.path, file=self.number, data=content)
        self.disk.perform(request, lambda: self.inner.write(content), self._write_half(content))
        return len(content)

    def flush(self) -> None:
        self.inner.flush()

    def _write_half(self, content: bytes) -> Callable[[], None]:
        return lambda: self.inner.write(content[: len(content) // 2])


class UnsyncedDisk(Disk):
    """The real disk without waiting for the medium: what a power cut leaves is computed (remains.py), never tried."""

    def sync(self, file: WritableFile) -> None:
        """Not waited for."""

    def sync_folder(self, folder: Path) -> None:
        """Not waited for."""


class FaultyDisk(UnsyncedDisk):
    """The real disk with a record of its requests, and at most one planned fault.

    `crash_at` raises Crash at the request of that number (counted from 0): before it, after it, or in the middle of a
    write. From then on every request raises again and does nothing, because a dead process asks for nothing.
    `fail_at` answers with the error `errno` instead, after half of a write's bytes; with `stays_full` every later
    request that needs space is answered likewise.
    """

    NEEDS_SPACE = frozenset({"create", "open_append", "write", "sync", "make_folder", "link"})
    CAN_FAIL = NEEDS_SPACE | {"rename", "close"}

    def __init__(
        self,
        *,
        crash_at: int | None = None,
        when: When = "before",
        fail_at: int | None = None,
        errno: int = 0,
        stays_full: bool = False,
    ) -> None:
        self.requests: list[Request] = []
        self.dead = False
        self._crash_at, self._when = crash_at, when
        self._fail_at, self._errno, self._stays_full = fail_at, errno, stays_full
        self._files: dict[int, Any] = {}

    def perform(self, request: Request, action: Callable[[], Any], half: Callable[[], None] | None = None) -> Any:
        """Do what is asked for, unless this is the request at which the fault was planned."""
        if self.dead:
            raise _ending("the process is dead")
        number = len(self.requests)
        self.requests.append(request)
        if number != self._crash_at and self._fails(number, request):
            if half is not None:
                half()
            raise OSError(self._errno, os.strerror(self._errno), str(request.path))
        if number != self._crash_at:
            return action()
        if self._when == "after":
            action()
        elif self._when == "torn" and half is not None:
            half()
        self.dead = True
        raise _ending(f"{self._when} request {number}: {request}")

    def bury(self) -> None:
        """Close what the dead process had open, as the operating system does."""
        for inner in self._files.values():
            with suppress(OSError):
                super().close(inner)
        self._files.clear()

    @property
    def open_files(self) -> int:
        """How many files were opened and not closed."""
        return len(self._files)

    def _fails(self, number: int, request: Request) -> bool:
        if self._fail_at is None or request.kind not in self.CAN_FAIL:
            return False
        later = self._stays_full and number > self._fail_at and request.kind in self.NEEDS_SPACE
        return number == self._fail_at or later

    # -- the requests --------------------------------------------------------------------------------------------

    def create(self, path: Path) -> WritableFile:
        return self._open("create", path, super().create)

    def open_append(self, path: Path) -> WritableFile:
        return self._open("open_append", path, super().open_append)

    def _open(self, kind: str, path: Path, really: Callable[[Path], WritableFile]) -> RecordedFile:
        number = len(self.requests)

        def action() -> None:
            self._files[number] = really(path)

        self.perform(Request(kind=kind, path=path, file=number), action)
        return RecordedFile(self, path, number, self._files[number])

    def sync(self, file: WritableFile) -> None:
        assert isinstance(file, RecordedFile)
        inner, really = file.inner, super().sync
        self.perform(Request(kind="sync", path=file.path, file=file.number), lambda: really(inner))

    def close(self, file: WritableFile) -> None:
        assert isinstance(file, RecordedFile)
        really = super().close
        request = Request(kind="close", path=file.path, file=file.number)
        try:
            self.perform(request, lambda: None)
        finally:  # a close that answers with an error gives the descriptor back all the same
            if not self.dead:
                really(self._files.pop(file.number))

    def rename(self, source: Path, target: Path) -> None:
        really = super().rename
        self.perform(Request(kind="rename", path=source, target=target), lambda: really(source, target))

    def sync_folder(self, folder: Path) -> None:
        really = super().sync_folder
        self.perform(Request(kind="sync_folder", path=folder), lambda: really(folder))

    def make_folder(self, folder: Path) -> None:
        really = super().make_folder
        self.perform(Request(kind="make_folder", path=folder), lambda: really(folder))

    def move(self, source: Path, target: Path) -> None:
        really = super().move
        self.perform(Request(kind="move", path=source, target=target), lambda: really(source, target))

    def remove(self, path: Path) -> None:
        really = super().remove
        self.perform(Request(kind="remove", path=path), lambda: really(path))

    def remove_folder(self, folder: Path) -> None:
        really = super().remove_folder
        self.perform(Request(kind="remove_folder", path=folder), lambda: really(folder))

    def link(self, path: Path, target: str) -> None:
        really = super().link
        self.perform(Request(kind="link", path=path, target=target), lambda: really(path, target))


def _ending(words: str) -> BaseException:
    """The thread of the curves outlives a death that is only played: to it the disk just answers no more."""
    return OSError(words) if threading.current_thread().name == "unbroken-curves" else Crash(words)
