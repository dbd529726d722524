"""Lines for a file on a disk that may refuse them for a while: they wait in memory and are written later, in order."""

from __future__ import annotations

from collections import deque

from unbroken.storage.files import Disk, WritableFile


class PatientFile:
    """An open file that ends with a whole line, or will: a line that was cut off is closed and comes again whole."""

    def __init__(self, disk: Disk, file: WritableFile, *, torn: bool = False) -> None:
        self._disk, self._file, self._torn = disk, file, torn
        self._waiting: deque[bytes] = deque()

    @property
    def waiting(self) -> int:
        """How many lines are not written yet."""
        return len(self._waiting)

    def add(self, line: bytes) -> None:
        """Let a line wait to be written."""
        self._waiting.append(line)

    def write(self) -> None:
        """Write what waits; raises OSError, and keeps what is not written."""
        while self._waiting:
            line = self._waiting[0]
            if self._torn:  # close the torn line, so that it stays one bad line and does not swallow the next
                self._file.write(b"\n")
            self._torn = True
            self._file.write(line)
            self._torn = False
            self._waiting.popleft()

    def sync(self) -> None:
        """Write what waits and return when it is on the medium; raises OSError."""
        self.write()
        self._disk.sync(self._file)

    def close(self) -> None:
        """Give the descriptor back; what still waits is lost."""
        self._disk.close(self._file)
