"""The safetensors format: a length, a header in JSON, then the tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import BinaryIO

from unbroken.checkpoint.contents import Contents
from unbroken.checkpoint.leaves import ITEM_BYTES, StorageRef, TensorRef, is_shape
from unbroken.checkpoint.storages import Spot
from unbroken.errors import DamagedFile
from unbroken.jsonlines import each_once
from unbroken.text import printable

MAX_HEADER_BYTES = 100_000_000  # the limit of the format's own reader
DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}


def looks_like_safetensors(head: bytes) -> bool:
    """True when the first bytes are a small length and the opening of a JSON object."""
    return len(head) >= 9 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER_BYTES


def read_safetensors(file: BinaryIO, path: Path, size_bytes: int) -> Contents:
    """Read the header; every tensor is a storage of its own."""
    file.seek(0)
    header_bytes = int.from_bytes(file.read(8), "little")
    first = 8 + header_bytes
    try:
        header = json.loads(file.read(min(header_bytes, size_bytes)), object_pairs_hook=each_once)
        notes = header.pop("__metadata__", {})
        refs = {name: _ref(name, row) for name, row in header.items()}
        spots = {name: _spot(name, row, first) for name, row in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedFile(path, f"the safetensors header cannot be read ({printable(str(error)[:120])})") from error
    for name, spot in spots.items():
        if spot.size_bytes != refs[name].size_bytes or spot.start < first:
            raise DamagedFile(path, f"tensor {name[:80]!r} has another size than its shape says")
        if spot.start + spot.size_bytes > size_bytes:
            raise DamagedFile(path, f"the file is cut off inside tensor {name[:80]!r}")
    end = max((spot.start + spot.size_bytes for spot in spots.values()), default=first)
    return Contents(
        format="safetensors",
        tree=refs | ({"__metadata__": notes} if notes else {}),
        names=(),
        storages={name: _storage(ref) for name, ref in refs.items()},
        spots=spots,
        byteorder="little",
        entries=tuple(spots.values()),
        trailing_bytes=size_bytes - end,
    )


def _ref(name: str, row: dict[str, list[int]]) -> TensorRef:
    shape, dtype = tuple(row["shape"]), DTYPES[str(row["dtype"])]
    if not is_shape(shape):
        raise ValueError(f"shape of {name}")
    stride = [1]
    for size in reversed(shape[1:]):
        stride.insert(0, stride[0] * size)
    numel = stride[0] * shape[0] if shape else 1
    return TensorRef(
        dtype=dtype,
        shape=shape,
        stride=tuple(stride[: len(shape)]),
        offset=0,
        storage_key=name,
        storage_bytes=numel * ITEM_BYTES[dtype],
    )


def _storage(ref: TensorRef) -> StorageRef:
    return StorageRef(key=ref.storage_key, dtype=ref.dtype, numel=ref.numel, device="cpu", block_numel=ref.numel)


def _spot(name: str, row: dict[str, list[int]], first: int) -> Spot:
    begin, end = row["data_offsets"]
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end < 2**63:
        raise ValueError(f"place of {name}")
    return Spot(entry=name, start=first + begin, size_bytes=end - begin)
