"""The structures that were read last, for as long as their files stay as they are: a launch asks for one several times.

A file is known by what the system says of the opened one: device, inode, size and times. A change within the grain of a
file system's times would not show in them, so a file is kept only when its last change lies further back than that.
"""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import BinaryIO, Generic, TypeVar

from unbroken.clock import Clock

Found = TypeVar("Found")

MOST_KEPT = 4
MOST_NODES = 50_000  # of a tree that is kept: about 10 MB of a training's memory
GRAIN_S = 3.0  # FAT counts in two seconds, everything else is finer


@dataclass(frozen=True, kw_only=True)
class FileState:
    """One file as it was when it was opened."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int


def state_of(file: BinaryIO) -> FileState:
    """The state of an open file."""
    facts = os.fstat(file.fileno())
    return FileState(
        device=facts.st_dev,
        inode=facts.st_ino,
        size_bytes=facts.st_size,
        modified_ns=facts.st_mtime_ns,
        changed_ns=facts.st_ctime_ns,
    )


class Recent(Generic[Found]):
    """What was found in the files that were read last; a tree that is handed out is nobody's to change."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._lock = clock, threading.Lock()  # a backup beside the training reads too
        self._found: dict[FileState, Found] = {}

    def get(self, state: FileState) -> Found | None:
        """What was found in a file that is as it was then."""
        with self._lock:
            return self._found.get(state)

    def keep(self, state: FileState, found: Found, *, nodes: int) -> None:
        """Keep what was found, where it is not too much of it and a later change of the file would show."""
        # Windows tells no time of change that nobody can set.
        age_s = self._clock.now().timestamp() - state.changed_ns / 1e9
        if nodes > MOST_NODES or age_s < GRAIN_S or os.name == "nt":
            return
        with self._lock:
            self._found[state] = found
            while len(self._found) > MOST_KEPT:
                del self._found[next(iter(self._found))]
