"""The containers of a checkpoint: the zip of `torch.save`, its legacy form, and safetensors.

Each gives the tree of a file and where its storages lie; no tensor is read.
"""

from __future__ import annotations

import json
import re
import shlex
import struct
import zipfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from unbroken.checkpoint.entries import Spot, read_spot
from unbroken.checkpoint.tree import ITEM_BYTES, Name, Opaque, StorageRef, TensorRef, is_shape
from unbroken.checkpoint.unpickle import MAX_PICKLE_BYTES, Pickled, read_pickle
from unbroken.errors import DamagedFile, ForeignFile
from unbroken.jsonlines import each_once
from unbroken.text import printable

SMALL_BYTES = 64 << 20  # up to so much a file may unfold into, however few bytes it has
MAX_ENTRIES = 1_000_000
MOST_INFLATED = 20
PYTHON_UNPACKS = re.compile(r"\.(?:zip|tar(?:\.(?:gz|bz2|xz))?|tgz|tbz2?|txz)$", re.IGNORECASE)
OF_TORCH = re.compile(r"/data/[0-9]+$|/(?:version|byteorder|data\.pkl)$")  # names of entries that torch.save writes
ENCRYPTED_FLAG = 0x1
BROKEN_ZIP = (  # what zipfile raises for files that are no sound archives
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
    IndexError,
    EOFError,
    MemoryError,
)
MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
FIRST_BYTES = (b"\x80", b"L119547037146038801333356L\n.")
COUNT = struct.Struct("<q")
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


@dataclass(frozen=True, kw_only=True)
class Contents:
    """The tree of a file with its directory; no tensor was read."""

    format: str
    tree: Any
    names: tuple[Name, ...]
    storages: dict[str, StorageRef]
    spots: dict[str, Spot]  # by storage key
    byteorder: str
    entries: tuple[Spot, ...]  # all that has a checksum or a place of its own
    trailing_bytes: int = 0  # what stands behind the end of a format that has no directory


def _check_storages(storages: dict[str, StorageRef], spots: dict[str, Spot], path: Path) -> None:
    """Raise DamagedFile unless every storage that the pickle mentions is there and long enough."""
    for key, ref in storages.items():
        spot = spots.get(key)
        if spot is None:
            raise DamagedFile(path, f"the entry of storage {key[:80]!r} is missing")
        if spot.size_bytes < ref.block_bytes:
            raise DamagedFile(
                path,
                f"entry {spot.entry[:80]!r} is too short",
                expected=f"{ref.block_bytes} bytes",
                found=f"{spot.size_bytes}",
            )


# -- the zip of torch.save: a directory of entries, one of them the pickle, the rest storages ------------------------


def read_archive(file: BinaryIO, path: Path) -> Contents:
    """Read the pickle and the directory of a torch zip, and no tensor."""
    entries = _zip_entries(file, path)
    packed = [spot for spot in entries.values() if spot.deflated_bytes is not None]
    claimed, found = sum(spot.size_bytes for spot in packed), sum(spot.deflated_bytes or 0 for spot in packed)
    if claimed > max(MOST_INFLATED * found, SMALL_BYTES):  # a bomb grows a thousandfold, numbers hardly shrink
        raise DamagedFile(path, f"{found:,} compressed bytes claim to be {claimed:,}, as in no checkpoint")
    prefix = _prefix(entries, path)
    pickle = entries[f"{prefix}/data.pkl"]
    if pickle.size_bytes > MAX_PICKLE_BYTES:
        raise DamagedFile(path, f"data.pkl claims {pickle.size_bytes} bytes, more than any checkpoint has")
    pickled = read_pickle(bytes(read_spot(file, pickle, where=path)), where=path, what="data.pkl")
    spots = {key: entries[name] for key in pickled.storages if (name := f"{prefix}/data/{key}") in entries}
    _check_storages(pickled.storages, spots, path)
    return Contents(
        format="torch zip",
        tree=pickled.value,
        names=pickled.names,
        storages=pickled.storages,
        spots=spots,
        byteorder=_byteorder(file, entries.get(f"{prefix}/byteorder"), path),
        entries=tuple(entries.values()),
    )


def _zip_entries(file: BinaryIO, path: Path) -> dict[str, Spot]:
    """Return every entry of the zip by its name, from the directory at the end of the file."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except BROKEN_ZIP as error:
        if "not a zip file" in str(error):
            what = "the file is cut off: the zip directory at its end is missing"
            do = "Take an older checkpoint, or copy the file again from its source."
            raise DamagedFile(path, what, do=do) from error
        why = printable(str(error)[:120]) or type(error).__name__
        raise DamagedFile(path, f"the zip directory is damaged ({why})") from error
    repeated = [name for name, count in Counter(info.filename for info in infos).items() if count > 1]
    if repeated:
        raise DamagedFile(path, f"the zip has entry {repeated[0][:80]!r} more than once")
    if len(infos) > MAX_ENTRIES:
        raise DamagedFile(path, f"the zip has {len(infos)} entries, more than any checkpoint has")
    return {info.filename: _zip_spot(info, path) for info in infos}


def _zip_spot(info: zipfile.ZipInfo, path: Path) -> Spot:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or info.flag_bits & ENCRYPTED_FLAG:
        raise DamagedFile(path, f"entry {info.filename[:80]!r} is packed in a way no checkpoint is")
    deflated = info.compress_size if info.compress_type == zipfile.ZIP_DEFLATED else None
    if info.header_offset < 0 or (deflated is None and info.compress_size != info.file_size):
        raise DamagedFile(path, f"the zip directory is damaged: entry {info.filename[:80]!r} has two sizes")
    unchecked = info.CRC == 0 and info.file_size > 0  # torch.serialization.set_crc32_options(False)
    return Spot(
        entry=info.filename,
        start=info.header_offset,
        size_bytes=info.file_size,
        crc=None if unchecked else info.CRC,
        in_zip=True,
        deflated_bytes=deflated,
    )


def how_to_unpack(path: Path) -> str:
    """What to do with an archive that may hold a run: a command that takes it out, for those that Python reads."""
    kind = PYTHON_UNPACKS.search(path.name)
    if kind is None:
        return "If a run or a checkpoint is in it, unpack it first."
    module = "zipfile" if kind[0].lower() == ".zip" else "tarfile"
    return f"If a run or a checkpoint is in it, take it out: python -m {module} -e {shlex.quote(str(path))} DIR."


def _prefix(entries: dict[str, Spot], path: Path) -> str:
    prefixes = [name[: -len("/data.pkl")] for name in entries if name.endswith("/data.pkl")]
    prefixes = [prefix for prefix in prefixes if "/" not in prefix]
    if len(prefixes) != 1:
        inside = ", ".join(sorted(entries)[:3]) or "nothing"
        exported = any(name.endswith("/archive_format") for name in entries)
        what = "a torch.export program" if exported else "a zip file, but not a checkpoint"
        if not exported and any(map(OF_TORCH.search, entries)):  # a byte of a name was altered
            raise DamagedFile(path, f"this is {what}", expected="one entry data.pkl", found=printable(inside[:200]))
        raise ForeignFile(
            path,
            f"not a training state, because this is {what}",
            expected="one entry data.pkl",
            found=printable(inside[:200]),
            do="" if exported else how_to_unpack(path),
        )
    if f"{prefixes[0]}/constants.pkl" in entries:
        what = "not a training state, because this is a TorchScript program, not a checkpoint"
        raise ForeignFile(path, what, do="Save model.state_dict() in the program that has the model.")
    return prefixes[0]


def _byteorder(file: BinaryIO, spot: Spot | None, path: Path) -> str:
    if spot is None:
        return "little"  # files from before the entry existed
    order = bytes(read_spot(file, spot, where=path)) if spot.size_bytes < 16 else b""
    if order not in (b"little", b"big"):
        raise DamagedFile(path, "entry byteorder is damaged", expected="little or big", found=order[:20])
    return order.decode()


# -- its legacy form, as OpenPCDet writes it: five pickles, then one storage after the other -------------------------


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
    spots = _legacy_spots(file, keys, tree.storages, path, size_bytes)
    _check_storages(tree.storages, spots, path)
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


def _legacy_spots(
    file: BinaryIO, keys: object, storages: dict[str, StorageRef], path: Path, size_bytes: int
) -> dict[str, Spot]:
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise DamagedFile(path, "the list of storages is damaged")
    spots: dict[str, Spot] = {}
    for number, key in enumerate(keys):
        if key not in storages or key in spots:
            raise DamagedFile(path, f"the list of storages names {key[:40]!r}, which no tensor uses or twice")
        ref, entry = storages[key], f"storage {number} of {len(keys)}"
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
        spots[key] = Spot(entry=entry, start=start, size_bytes=numel * ITEM_BYTES[ref.dtype])
    return spots


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


# -- safetensors: a length, a header in JSON, then the tensors -------------------------------------------------------


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
        refs = {name: _tensor_of(name, row) for name, row in header.items()}
        spots = {name: _place_of(name, row, first) for name, row in header.items()}
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
        storages={
            name: StorageRef(key=name, dtype=ref.dtype, numel=ref.numel, device="cpu", block_numel=ref.numel)
            for name, ref in refs.items()
        },
        spots=spots,
        byteorder="little",
        entries=tuple(spots.values()),
        trailing_bytes=size_bytes - end,
    )


def _tensor_of(name: str, row: dict[str, list[int]]) -> TensorRef:
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


def _place_of(name: str, row: dict[str, list[int]], first: int) -> Spot:
    begin, end = row["data_offsets"]
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end < 2**63:
        raise ValueError(f"place of {name}")
    return Spot(entry=name, start=first + begin, size_bytes=end - begin)
