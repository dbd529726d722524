"""The zip of `torch.save`, laid out before a byte of it is written: each tensor's numbers begin at a multiple of 64.

So numbers are copied to where they will lie in the file, the file goes to the disk in large blocks of that memory, and
`torch.load(..., mmap=True)` can map it. Format: APPNOTE.TXT of zip, 4.3.7 (header of an entry), 4.3.12 (directory),
4.3.14 to 16 (its end) and 4.5.3 (what is larger than 32 bits).
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from unbroken.checkpoint.entries import LOCAL_HEADER, LOCAL_SIGNATURE

ALIGNMENT = 64
BLOCK_BYTES = 8 << 20  # at least so much goes to the disk at once
ROOT = "archive"
DIRECTORY_ENTRY = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
LARGE_END, LARGE_PLACE = struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")
VERSION, LARGE_VERSION = 20, 45  # of the format that is needed to read an entry
MOST, MOST_ENTRIES = 0xFFFFFFFF, 0xFFFF  # also what stands for "see the extra field"
PADDING, LARGE = 0x4246, 0x0001  # kinds of extra fields; the first is torch's own
NO_DATE = (1 << 5) + 1  # the first day of 1980: a file's bytes do not depend on when it was written


@dataclass(frozen=True, kw_only=True, slots=True)
class ZipEntry:
    """An entry of the zip; places count from some multiple of 64 in the file."""

    name: str
    header: int
    start: int  # of its bytes
    size_bytes: int

    @property
    def end(self) -> int:
        """Where the next one begins."""
        return self.start + self.size_bytes

    @property
    def extra_bytes(self) -> int:
        """What the header has beside its fields and the name."""
        return self.start - self.header - LOCAL_HEADER.size - len(self.name)


def entry_at(place: int, name: str, size_bytes: int, *, ends_aligned: bool = False) -> ZipEntry:
    """An entry whose header begins here, and whose bytes begin, or end, at a multiple of 64."""
    shift = size_bytes if ends_aligned else 0
    least = place + LOCAL_HEADER.size + len(name) + (20 if size_bytes >= MOST else 0) + 4 + shift
    return ZipEntry(name=name, header=place, start=-(-least // ALIGNMENT) * ALIGNMENT - shift, size_bytes=size_bytes)


def header_of(entry: ZipEntry, crc: int) -> bytes:
    """The bytes before those of an entry."""
    size, is_large, large = entry.size_bytes, entry.size_bytes >= MOST, b""
    if is_large:
        large, size = struct.pack("<2H2Q", LARGE, 16, entry.size_bytes, entry.size_bytes), MOST
    padding = entry.extra_bytes - len(large) - 4
    fields = LOCAL_HEADER.pack(
        LOCAL_SIGNATURE, LARGE_VERSION if is_large else VERSION, 0, 0, 0, NO_DATE, crc, size, size,
        len(entry.name), entry.extra_bytes,
    )  # fmt: skip
    return fields + entry.name.encode() + large + struct.pack("<2H", PADDING, padding) + b"Z" * padding


def beginning_of(pickled: bytes) -> tuple[bytes, list[ZipEntry], list[int]]:
    """What stands before the numbers, with its entries and their checksums; places count from where it ends.

    The pickle comes first: it says what the file is also where the end of it is missing.
    """
    small = {".format_version": b"1", ".storage_alignment": b"%d" % ALIGNMENT, "byteorder": sys.byteorder.encode()}
    whole, entries, crcs = bytearray(), list[ZipEntry](), list[int]()
    for name, content in {"data.pkl": pickled, **small, "version": b"3\n"}.items():
        entry = entry_at(len(whole), f"{ROOT}/{name}", len(content), ends_aligned=name == "version")
        crcs.append(zlib.crc32(content))
        entries.append(entry)
        whole += header_of(entry, crcs[-1]) + content
    size = len(whole)
    return bytes(whole), [replace(each, header=each.header - size, start=each.start - size) for each in entries], crcs


def sealed(entries: Iterable[ZipEntry], memory: memoryview, first: int, crcs: list[int]) -> Iterator[memoryview]:
    """Write the headers of entries that lie one after the other, and yield all of them in large blocks.

    The memory is that of the file from the place `first` on. The checksums are added to `crcs`.
    """
    begun = end = -1
    for entry in entries:
        header, start, end = entry.header - first, entry.start - first, entry.end - first
        begun = header if begun < 0 else begun
        crcs.append(crc := zlib.crc32(memory[start:end]))
        memory[header:start] = header_of(entry, crc)
        while end - begun >= BLOCK_BYTES:
            yield memory[begun : begun + BLOCK_BYTES]
            begun += BLOCK_BYTES
    if begun < end:
        yield memory[begun:end]


def directory_of(entries: Sequence[ZipEntry], crcs: Sequence[int], base: int) -> bytes:
    """What stands behind the last entry; places count from `base` in the file."""
    rows, place = bytearray(), entries[-1].end + base
    for entry, crc in zip(entries, crcs):
        header, extra = entry.header + base, b""
        if entry.size_bytes >= MOST:
            extra += struct.pack("<2Q", entry.size_bytes, entry.size_bytes)
        if header >= MOST:
            extra += struct.pack("<Q", header)
        if extra:
            extra = struct.pack("<2H", LARGE, len(extra)) + extra
        version, size = LARGE_VERSION if extra else VERSION, min(entry.size_bytes, MOST)
        rows += DIRECTORY_ENTRY.pack(
            b"PK\x01\x02", version, version, 0, 0, 0, NO_DATE, crc, size, size, len(entry.name), len(extra), 0, 0, 0, 0,
            min(header, MOST),
        )  # fmt: skip
        rows += entry.name.encode() + extra
    count, size, end = len(entries), len(rows), bytearray()
    if count >= MOST_ENTRIES or size >= MOST or place >= MOST:
        end += LARGE_END.pack(b"PK\x06\x06", 44, LARGE_VERSION, LARGE_VERSION, 0, 0, count, count, size, place)
        end += LARGE_PLACE.pack(b"PK\x06\x07", 0, place + size, 1)
    few = min(count, MOST_ENTRIES)
    return bytes(rows + end + END.pack(b"PK\x05\x06", 0, 0, few, few, min(size, MOST), min(place, MOST), 0))
