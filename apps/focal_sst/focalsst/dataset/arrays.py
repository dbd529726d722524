"""Archives of plain arrays (npz): written whole, and read without ever running a pickle."""

from __future__ import annotations

import io
import math
import struct
import sys
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from unbroken import Disk, open_ordinary, write_whole
from unbroken.errors import DamagedFile

Arrays = dict[str, NDArray[Any]]
MOST_BYTES = 256 << 20  # of all arrays of a file together, or so many times what the file has
MOST_INFLATED = 20
# What a wrong byte can raise in the zip, in the header that is Python's syntax, or in numpy's idea of a type.
UNREADABLE = (
    OSError, ValueError, EOFError, LookupError, TypeError, RuntimeError, SyntaxError,
    OverflowError, AttributeError, MemoryError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def load_arrays(path: Path, names: Sequence[str], *, what: str, do: str) -> Arrays:
    """Read the arrays of these names; `what` and `do` are for the error."""
    with open_ordinary(path) as file:
        if not zipfile.is_zipfile(file):
            raise DamagedFile(path, f"{what} cannot be read", expected="a whole npz archive", do=do)
        try:
            with zipfile.ZipFile(file) as archive:
                found = [name.removesuffix(".npy") for name in archive.namelist()]
                if not set(names) <= set(found):
                    has = ", ".join(found)[:200] or "none"
                    raise DamagedFile(path, f"{what} hold other arrays", expected=", ".join(names), found=has, do=do)
                entries = [archive.getinfo(f"{name}.npy") for name in names]
                claimed, most = sum(entry.file_size for entry in entries), MOST_INFLATED * path.stat().st_size
                if claimed > max(MOST_BYTES, most):
                    raise DamagedFile(path, f"{what} claim to be {claimed:,} bytes, as none are", do=do)
                return {name: _array(archive, entry) for name, entry in zip(names, entries)}
        except UNREADABLE as fault:
            raise DamagedFile(path, f"{what} cannot be read", found=str(fault)[:200], do=do) from fault


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    """One array. numpy's own reader makes room for whatever the header claims before it reads a number."""
    with archive.open(entry) as file:
        headers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        shape, column_major, dtype = headers[npy.read_magic(file)](file)
        data = file.read()
    if dtype.hasobject or len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{entry.filename} has {len(data):,} bytes for {dtype} {shape}"[:200])
    return sound(np.ndarray(shape, dtype, data, order="F" if column_major else "C").copy())


def sound(array: NDArray[Any]) -> NDArray[Any]:
    """The same array; ValueError where it holds text with characters that there are not, which Python cannot take."""
    if array.dtype.kind == "U" and array.size:
        codes = np.frombuffer(array.tobytes(), np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if codes.max(initial=0) > sys.maxunicode:
            raise ValueError(f"a character of number {codes.max()}")
    return array


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> int:
    """Write arrays durably, the same ones as the same bytes; return how many."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return write_whole(Disk(), path, buffer.getvalue())


def arrays_by_frame(
    frames: Sequence[str], names: Sequence[Sequence[str]], boxes: Sequence[NDArray[np.floating[Any]]]
) -> Arrays:
    """The objects of frames as arrays: `frame_id`, and of each object `box_frame` (which), `box_name` and `box7`."""
    counts = [len(of_frame) for of_frame in names]
    return {
        "frame_id": np.array(frames, np.str_),
        "box_frame": np.repeat(np.arange(len(counts)), counts).astype(np.int32),
        "box_name": np.array([name for of_frame in names for name in of_frame], np.str_),
        "box7": np.concatenate(boxes or [np.zeros((0, 7), np.float32)]),
    }
