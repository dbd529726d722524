"""The zip form of `torch.save`: a directory of entries, one of them the pickle, the rest storages."""

from __future__ import annotations

import re
import shlex
import struct
import zipfile
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from unbroken.checkpoint.contents import SMALL_BYTES, Contents, check_storages
from unbroken.checkpoint.storages import Spot, read_spot
from unbroken.checkpoint.unpickle import MAX_PICKLE_BYTES, read_pickle
from unbroken.errors import DamagedFile, ForeignFile
from unbroken.text import printable

MAX_ENTRIES = 1_000_000
MOST_INFLATED = 20
PYTHON_UNPACKS = re.compile(r"\.(?:zip|tar(?:\.(?:gz|bz2|xz))?|tgz|tbz2?|txz)$", re.IGNORECASE)
OF_TORCH = re.compile(r"/data/[0-9]+$|/(?:version|byteorder|data\.pkl)$")  # names of entries that torch.save writes
DATA_DESCRIPTOR_FLAG, ENCRYPTED_FLAG = 0x8, 0x1
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


def read_archive(file: BinaryIO, path: Path) -> Contents:
    """Read the pickle and the directory of a torch zip, and no tensor."""
    entries = list_entries(file, path)
    _require_little_inflation(entries, path)
    prefix = _prefix(entries, path)
    pickle = entries[f"{prefix}/data.pkl"]
    if pickle.size_bytes > MAX_PICKLE_BYTES:
        raise DamagedFile(path, f"data.pkl claims {pickle.size_bytes} bytes, more than any checkpoint has")
    pickled = read_pickle(bytes(read_spot(file, pickle, where=path)), where=path, what="data.pkl")
    spots = {key: entries[name] for key in pickled.storages if (name := f"{prefix}/data/{key}") in entries}
    check_storages(pickled.storages, spots, path)
    return Contents(
        format="torch zip",
        tree=pickled.value,
        names=pickled.names,
        storages=pickled.storages,
        spots=spots,
        byteorder=_byteorder(file, entries.get(f"{prefix}/byteorder"), path),
        entries=tuple(entries.values()),
    )


def list_entries(file: BinaryIO, path: Path) -> dict[str, Spot]:
    """Return every entry of the zip by its name, from the directory at the end of the file."""
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
    except BROKEN_ZIP as error:
        raise _without_directory(path, error) from error
    repeated = [name for name, count in Counter(info.filename for info in infos).items() if count > 1]
    if repeated:
        raise DamagedFile(path, f"the zip has entry {repeated[0][:80]!r} more than once")
    if len(infos) > MAX_ENTRIES:
        raise DamagedFile(path, f"the zip has {len(infos)} entries, more than any checkpoint has")
    return {info.filename: _spot(info, path) for info in infos}


def _require_little_inflation(entries: dict[str, Spot], path: Path) -> None:
    """Raise for a bomb, which grows a thousandfold: torch compresses nothing, and numbers hardly shrink."""
    packed = [spot for spot in entries.values() if spot.deflated_bytes is not None]
    claimed, found = sum(spot.size_bytes for spot in packed), sum(spot.deflated_bytes or 0 for spot in packed)
    if claimed > max(MOST_INFLATED * found, SMALL_BYTES):
        raise DamagedFile(path, f"{found:,} compressed bytes claim to be {claimed:,}, as in no checkpoint")


def _without_directory(path: Path, error: Exception) -> DamagedFile:
    if "not a zip file" in str(error):
        what = "the file is cut off: the zip directory at its end is missing"
        return DamagedFile(path, what, do="Take an older checkpoint, or copy the file again from its source.")
    return DamagedFile(path, f"the zip directory is damaged ({printable(str(error)[:120]) or type(error).__name__})")


def _spot(info: zipfile.ZipInfo, path: Path) -> Spot:
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
