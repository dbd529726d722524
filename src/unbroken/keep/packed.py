"""A run as one file: a zip whose entries are not compressed, with a list of what is in it, digests and all.

A zip, because every system opens one without a tool of ours, Windows too, and because a host that unpacks what is
uploaded makes the run's folder of it, which `--search` finds as it is. Its directory stands at its
end, so a file that was cut off is noticed, and each entry has a checksum. Not compressed, because weights do not get
smaller, and because a file that claims to grow when it is opened can then be refused. The list is the last entry.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, cast

from unbroken.errors import DamagedFile, NewerFormat
from unbroken.fields import digest, typed
from unbroken.ids import why_unsafe
from unbroken.jsonlines import parsed_json
from unbroken.keep.inventory import PACKING_LIST, ListedFile, as_found
from unbroken.run.layout import OWN_FOLDER
from unbroken.storage import WritableFile, open_ordinary
from unbroken.text import as_bytes

FORMAT = 1
BLOCK_BYTES = 1 << 22
MOST_ENTRIES, MOST_LIST_BYTES = 100_000, 64 << 20
BROKEN_ZIP = (zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, OverflowError, EOFError, OSError)


class ChangedMeanwhile(Exception):
    """A file of the run was replaced or removed between being looked at and being read."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


@dataclass(frozen=True, kw_only=True)
class PackedFile:
    """A file in the list."""

    name: str
    size_bytes: int
    sha256: Annotated[str, digest]


@dataclass(frozen=True, kw_only=True)
class PackingList:
    """What a packed run holds."""

    format: int
    folder: str  # the name of the run's folder, under which all entries stand
    run: str
    recipe: str
    tag: str
    step: int
    packed: str  # when
    files: tuple[PackedFile, ...]

    @property
    def name(self) -> str:
        """The entry that is the list itself."""
        return f"{self.folder}/{OWN_FOLDER}/{PACKING_LIST}"


class _Stream:
    """A file that only grows, as zipfile wants one; it leaves the counting to us."""

    def __init__(self, file: WritableFile) -> None:
        self._file, self._at = file, 0

    def write(self, data: bytes) -> int:
        self._at += self._file.write(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        self._file.flush()


def write_packed(
    file: WritableFile,
    run: Path,
    files: Sequence[tuple[str, int]],
    head: PackingList,
    *,
    still: Mapping[str, ListedFile | None],
) -> PackingList:
    """Write so many bytes of each of the files; raises ChangedMeanwhile where one of `still` is not that one any more.

    What was appended to a record since it was looked at is of a later moment, and is not taken.
    """
    listed = []
    with zipfile.ZipFile(cast(IO[bytes], _Stream(file)), "w", zipfile.ZIP_STORED) as archive:
        for name, size_bytes in files:
            digest, left = hashlib.sha256(), size_bytes
            try:
                source = open_ordinary(run / name)
            except FileNotFoundError:
                raise ChangedMeanwhile(name) from None
            with source:
                if name in still and as_found(name, os.fstat(source.fileno())) != still[name]:
                    raise ChangedMeanwhile(name)
                with archive.open(_entry(f"{head.folder}/{name}", size_bytes), "w") as target:
                    while left and (block := source.read(min(BLOCK_BYTES, left))):
                        digest.update(block)
                        target.write(block)
                        left -= len(block)
            if left:
                raise ChangedMeanwhile(name)
            listed.append(PackedFile(name=name, size_bytes=size_bytes, sha256=digest.hexdigest()))
        packed = replace(head, files=tuple(listed))
        archive.writestr(_entry(packed.name, 0), as_bytes(json.dumps(asdict(packed), ensure_ascii=False, indent=1)))
    return packed


def _entry(name: str, size_bytes: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)  # the time is that of 1980: times mean nothing here
    info.file_size, info.external_attr = size_bytes, (stat.S_IFREG | 0o644) << 16
    return info


# -- reading ---------------------------------------------------------------------------------------------------------


def read_list(path: Path) -> PackingList:
    """The list of a packed run whose directory agrees with it; nothing that the file claims is believed unchecked.

    Raises DamagedFile for a file that is cut off, is no packed run, or was made to do harm.
    """
    try:
        with open_ordinary(path) as file, zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            _require_harmless(path, infos)
            return _listed(path, archive, infos)
    except BROKEN_ZIP as error:
        what = "the file is cut off or is no zip" if isinstance(error, zipfile.BadZipFile) else "it cannot be read"
        raise DamagedFile(path, f"{what} ({str(error)[:120]})", do="Copy or download it again.") from error


def _require_harmless(path: Path, infos: Sequence[zipfile.ZipInfo]) -> None:
    if len(infos) > MOST_ENTRIES:
        raise DamagedFile(path, f"it claims {len(infos):,} entries, more than any run has")
    for info in infos:
        if why := _harm(info):
            raise DamagedFile(path, f"entry {info.filename[:80]!r} {why}: this was not made by `unbroken pack`")
    names = [info.filename.casefold() for info in infos]
    folders = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    if len(set(names)) < len(names) or folders & set(names):
        raise DamagedFile(path, "two entries have the same name: this was not made by `unbroken pack`")
    if sum(info.file_size for info in infos) > path.stat().st_size:
        raise DamagedFile(path, "it claims more bytes than it has: this was not made by `unbroken pack`")


def _harm(info: zipfile.ZipInfo) -> str:
    """Why an entry must not be unpacked, if it must not."""
    name, kind = info.orig_filename, stat.S_IFMT(info.external_attr >> 16)
    if (why := why_unsafe(name)) or "/" not in name:
        return why or "lies beside the run's folder"
    if kind not in (0, stat.S_IFREG):
        return "is a link or a device"
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 0x1:
        return "is compressed or encrypted"
    return ""


def _listed(path: Path, archive: zipfile.ZipFile, infos: Sequence[zipfile.ZipInfo]) -> PackingList:
    last = infos[-1] if infos else None
    if last is None or not last.filename.endswith(f"/{OWN_FOLDER}/{PACKING_LIST}") or last.file_size > MOST_LIST_BYTES:
        raise DamagedFile(path, "this zip is no packed run", expected=f"a last entry {PACKING_LIST}")
    found = _parsed(path, archive.read(last))
    in_zip = {info.filename: info.file_size for info in infos[:-1]}
    if found.name != last.filename or in_zip != {f"{found.folder}/{i.name}": i.size_bytes for i in found.files}:
        raise DamagedFile(path, "the list in it and its entries do not agree", do="Copy or download it again.")
    return found


def _parsed(path: Path, text: bytes) -> PackingList:
    try:
        data = parsed_json(text)
        if isinstance(data, dict) and type(data.get("format")) is int and data["format"] > FORMAT:
            raise NewerFormat(
                path,
                "a newer version of unbroken packed this run",
                expected=f"format {FORMAT}",
                found=f"format {data['format']}",
                do="Install the newer version: pip install -U unbroken.",
            )
        return typed(PackingList, data)
    except ValueError as error:
        words = f"the list in it cannot be read ({str(error)[:120]})"
        raise DamagedFile(path, words, do="Copy or download it again.") from error


def check_packed(path: Path) -> PackingList:
    """Read every byte of a packed run and compare it with the list; raises DamagedFile."""
    listed = read_list(path)
    with open_ordinary(path) as file, zipfile.ZipFile(file) as archive:
        for item in listed.files:
            digest = hashlib.sha256()
            for block in read_blocks(path, archive, f"{listed.folder}/{item.name}"):
                digest.update(block)
            if digest.hexdigest() != item.sha256:
                raise DamagedFile(path, f"{item.name} in it is not what was packed", do="Copy or download it again.")
    return listed


def read_blocks(path: Path, archive: zipfile.ZipFile, name: str) -> Iterator[bytes]:
    """The bytes of an entry; DamagedFile if its checksum does not hold."""
    try:
        with archive.open(name) as source:
            while block := source.read(BLOCK_BYTES):
                yield block
    except BROKEN_ZIP as error:
        raise DamagedFile(path, f"{name} in it is damaged ({str(error)[:120]})", do="Copy it again.") from error
