"""The bytes of the checkpoint that a launch has verified, kept until it is loaded: so the file is read once.

Only a launch that will load asks for it, and only for as long as it decides; what is loaded then is, to the bit, what
was verified. A file that is another one by then, or that does not fit into memory, is read again.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from unbroken.checkpoint.structure import Structure, known_by


@dataclass(frozen=True, kw_only=True)
class KeptFile:
    """A verified file: what was found in it, and all of its bytes."""

    structure: Structure
    memory: memoryview


class _Keeper:
    """What is kept in this process, if anything is asked to be."""

    def __init__(self) -> None:
        self.most_bytes = 0
        self.found: dict[tuple[int, ...], KeptFile] = {}  # one, by what the system says of its file


KEEPER = _Keeper()


@contextmanager
def keeping_what_is_verified(most_bytes: int | None) -> Iterator[None]:
    """Keep, while the block runs, the last file that is found good, unless it has more bytes than this."""
    KEEPER.most_bytes = 1 << 62 if most_bytes is None else most_bytes
    try:
        yield
    finally:
        KEEPER.most_bytes = 0
        KEEPER.found.clear()


def room_for(file: BinaryIO) -> memoryview | None:
    """Memory for all of an open file, where it is to be kept."""
    size_bytes = os.fstat(file.fileno()).st_size
    if not 0 < size_bytes <= KEEPER.most_bytes:
        return None
    KEEPER.found.clear()  # first: there is room for one
    try:
        memory = mmap.mmap(-1, size_bytes)
    except (OSError, ValueError, MemoryError):
        return None
    with suppress(AttributeError, OSError):  # where the system has no large pages, small ones do
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)


def keep(file: BinaryIO, structure: Structure, memory: memoryview) -> None:
    """Keep the bytes of a file that is found good."""
    KEEPER.found[known_by(os.fstat(file.fileno()))] = KeptFile(structure=structure, memory=memory)


def kept_of(path: Path) -> KeptFile | None:
    """What is kept of the file that has this name now."""
    try:
        return KEEPER.found.get(known_by(path.stat()))
    except OSError:
        return None
