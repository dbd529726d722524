"""The one reader of pickles, and it executes nothing: opcodes are read as data and become data.

Python's own unpickler calls what the file names, and its C form allocates what the file asks for. So it is
not used: the readers of `pickletools`, which only read, take each opcode's argument from the stream, and the machine of
`opcodes` carries it out. There is no import, no attribute look-up and no call of a stranger's name anywhere on this
path; protocols 0 to 5 are read.
"""

from __future__ import annotations

import io
import struct
import warnings
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

from unbroken.checkpoint.leaves import Name, StorageRef
from unbroken.checkpoint.opcodes import carry_out
from unbroken.errors import DamagedFile
from unbroken.text import printable

MAX_PICKLE_BYTES = 512 * 1024 * 1024

# What a wrong byte can raise in the reader, in the machine or in what it builds; all else is a bug of ours.
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    OverflowError,
    EOFError,
    struct.error,
    AssertionError,
    RecursionError,
    MemoryError,
)


@dataclass(frozen=True, kw_only=True)
class Pickled:
    """One value of a pickle as plain data, with the globals and the storages that it mentioned."""

    value: Any
    names: tuple[Name, ...]
    storages: dict[str, StorageRef]


class CappedReader:
    """A file that gives no more than `limit` bytes, so that a wrong length cannot fill the memory."""

    def __init__(self, file: BinaryIO, limit: int) -> None:
        self._file = file
        self._left = limit

    def tell(self) -> int:
        """Return the position in the file."""
        return self._file.tell()

    def read(self, count: int) -> bytes:
        """Return up to `count` bytes, as a file does."""
        return self._spend(self._file.read(min(count, self._left + 1)))

    def readline(self) -> bytes:
        """Return one line, as a file does."""
        return self._spend(self._file.readline(self._left + 1))

    def _spend(self, data: bytes) -> bytes:
        self._left -= len(data)
        if self._left < 0:
            raise ValueError("a pickle that is larger than any checkpoint has")
        return data


def read_pickle(source: bytes | BinaryIO, *, where: object, what: str = "the pickle") -> Pickled:
    """Read one pickle, leaving a file just behind it; raise DamagedFile when it cannot be read."""
    file = io.BytesIO(source) if isinstance(source, bytes) else CappedReader(source, MAX_PICKLE_BYTES)
    try:
        with warnings.catch_warnings():  # pickletools warns of a backslash in a stranger's text
            warnings.simplefilter("ignore", DeprecationWarning)
            return _run(file)
    except UNREADABLE as error:
        reason = printable((str(error) or type(error).__name__)[:200])
        raise DamagedFile(where, f"{what} cannot be read ({reason}, before byte {file.tell()})") from error


def _run(file: CappedReader | io.BytesIO) -> Pickled:
    machine = carry_out(cast(IO[bytes], file))
    (value,) = machine.last(1)
    return Pickled(value=value, names=tuple(machine.names.values()), storages=machine.storages)
