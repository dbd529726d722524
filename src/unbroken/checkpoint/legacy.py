"""The older form of `torch.save`, as OpenPCDet writes it: five pickles, then one storage after the other."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from unbroken.checkpoint.contents import Contents, check_storages
from unbroken.checkpoint.leaves import ITEM_BYTES, Opaque, StorageRef
from unbroken.checkpoint.storages import Spot
from unbroken.checkpoint.unpickle import Pickled, read_pickle
from unbroken.errors import DamagedFile, ForeignFile
from unbroken.text import printable

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
FIRST_BYTES = (b"\x80", b"L119547037146038801333356L\n.")
COUNT = struct.Struct("<q")


def read_legacy(file: BinaryIO, path: Path, size_bytes: int) -> Contents:
    """Read the five pickles and step over the storages; no tensor is read."""
    file.seek(0)
    first = read_pickle(file, where=path, what="the first pickle of the file")
    if first.value != MAGIC_NUMBER or type(first.value) is not int:
        raise _bare_pickle(path, first, is_all=not file.read(1))
    version = read_pickle(file, where=path, what="the format number").value
    if type(version) is not int or version != PROTOCOL_VERSION:
        raise DamagedFile(path, "the legacy torch format has another number than the only known one, 1001")
    read_pickle(file, where=path, what="the description of the machine")
    tree = read_pickle(file, where=path, what="the main pickle")
    keys = read_pickle(file, where=path, what="the list of storages").value
    spots = _spots(file, keys, tree.storages, path, size_bytes)
    check_storages(tree.storages, spots, path)
    end = max((spot.start + spot.size_bytes for spot in spots.values()), default=file.tell())
    return Contents(
        format="torch legacy",
        tree=tree.value,
        names=tree.names,
        storages=tree.storages,
        spots=spots,
        byteorder="little",  # torch swaps on writing where the machine is big-endian
        entries=tuple(spots.values()),
        trailing_bytes=size_bytes - end,
    )


def _spots(
    file: BinaryIO, keys: object, storages: dict[str, StorageRef], path: Path, size_bytes: int
) -> dict[str, Spot]:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise DamagedFile(path, "the list of storages is damaged")
    spots: dict[str, Spot] = {}
    for number, key in enumerate(keys):
        if key not in storages or key in spots:
            raise DamagedFile(path, f"the list of storages names {key[:40]!r}, which no tensor uses or twice")
        spots[key] = _next_spot(file, storages[key], f"storage {number} of {len(keys)}", path, size_bytes)
    return spots


def _next_spot(file: BinaryIO, ref: StorageRef, entry: str, path: Path, size_bytes: int) -> Spot:
    head = file.read(COUNT.size)
    start = file.tell()
    if len(head) < COUNT.size or start + ref.block_bytes > size_bytes:
        raise DamagedFile(
            path,
            f"the file is cut off inside {entry}",
            expected=f"at least {start + ref.block_bytes} bytes",
            found=f"{size_bytes}",
            do="Take an older checkpoint, or copy the file again from its source.",
        )
    (numel,) = COUNT.unpack(head)
    if numel != ref.block_numel:
        raise DamagedFile(path, f"{entry} is damaged", expected=f"{ref.block_numel} numbers", found=numel)
    file.seek(start + ref.block_bytes)
    return Spot(entry=entry, start=start, size_bytes=numel * ITEM_BYTES[ref.dtype])


def _bare_pickle(path: Path, first: Pickled, *, is_all: bool) -> DamagedFile:
    """One pickle from the first byte to the last is sound, and of another kind; else torch's first was altered."""
    kind = type(first.value).__name__.replace("Fields", "dict")
    keys = ", ".join(printable(str(key)[:40]) for key in list(first.value)[:4]) if isinstance(first.value, dict) else ""
    if isinstance(first.value, Opaque):
        kind = printable(f"an object of {first.value.module}.{first.value.name}"[:160])
    what = f"this is a bare pickle ({f'{kind} with {keys}' if keys else kind}), not a checkpoint"
    expected = "a file written by torch.save"
    if not is_all:
        return DamagedFile(path, what, expected=expected)
    do = "It stays shut: a bare pickle can run code when it is opened."
    return ForeignFile(path, f"not a training state, because {what}", expected=expected, do=do)
