"""Reading a file of JSON lines while another process writes it: only what is new, and only whole lines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, BinaryIO

from unbroken.jsonlines import parsed_line
from unbroken.storage import open_ordinary

BLOCK_BYTES = 1 << 20
TAIL_BYTES = 1 << 17


class Follower:
    """One file; where it is replaced or cut short, it is read again from its beginning."""

    def __init__(self, path: Path, *, whole: bool) -> None:
        self._path, self._whole = path, whole
        self._identity: tuple[int, int] | None = None
        self._at = 0

    def new(self) -> list[dict[str, Any]]:
        """The records that came since the last call; of a file seen for the first time, perhaps only the end."""
        try:
            with open_ordinary(self._path) as file:
                return self._new_in(file)
        except OSError:  # not there yet, or being replaced
            return []

    def _new_in(self, file: BinaryIO) -> list[dict[str, Any]]:
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) != self._identity or not self._still_there(file, status.st_size):
            self._identity = status.st_dev, status.st_ino
            self._at = 0 if self._whole else _begin_of_tail(file, status.st_size)
        file.seek(self._at)
        records = []
        while block := file.read(BLOCK_BYTES):
            end = block.rfind(b"\n") + 1
            if not end:
                break
            self._at += end
            file.seek(self._at)
            records += [record for line in block[:end].splitlines(keepends=True) if (record := parsed_line(line))]
        return records

    def _still_there(self, file: BinaryIO, size: int) -> bool:
        """Whether what was read before is still in front of what follows."""
        if size < self._at:
            return False
        if self._at == 0:
            return True
        file.seek(self._at - 1)
        return file.read(1) == b"\n"


def _begin_of_tail(file: BinaryIO, size: int) -> int:
    """The first line that begins in the last part of a long file."""
    if size <= TAIL_BYTES:
        return 0
    file.seek(size - TAIL_BYTES)
    found = file.read(TAIL_BYTES).find(b"\n")
    return size - TAIL_BYTES + found + 1 if found >= 0 else size
