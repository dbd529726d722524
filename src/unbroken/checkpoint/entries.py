"""Where the bytes of a file's entries lie, and how they are read and checked, whatever the container is."""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from unbroken.errors import DamagedFile
from unbroken.text import printable

CHUNK_BYTES = 4 * 1024 * 1024
LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # signature .. name length, extra length: APPNOTE.TXT of zip, 4.3.7
LOCAL_SIGNATURE = b"PK\x03\x04"
SWAP_CODES = {2: "H", 4: "I", 8: "Q"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Spot:
    """A run of bytes in the file; in a zip, `start` is that of the entry's header, before the bytes."""

    entry: str
    start: int
    size_bytes: int
    crc: int | None = None  # None where the container has no checksum
    in_zip: bool = False
    deflated_bytes: int | None = None  # the bytes in the file, when another program compressed the entry


def read_spot(file: BinaryIO, spot: Spot, *, where: object) -> bytearray:
    """Return the bytes of `spot`, checked against its checksum when it has one."""
    data = bytearray()
    for chunk in read_chunks(file, spot, where=where):
        data += chunk
    return data


def bytes_in(whole: memoryview, spot: Spot, *, where: object) -> memoryview:
    """The bytes of `spot`, which are as they lie, out of all of the file, which was verified as a whole."""
    start = spot.start
    if spot.in_zip:
        head = bytes(whole[start : start + LOCAL_HEADER.size])
        start = _after_header(head, spot, where=where)
    return whole[start : start + spot.size_bytes]


def read_chunks(file: BinaryIO, spot: Spot, *, where: object) -> Iterator[bytes]:
    """Yield the bytes of `spot` piece by piece; raise DamagedFile at a short read or a wrong checksum."""
    file.seek(_first_byte(file, spot, where=where))
    crc, left = 0, spot.size_bytes
    for chunk in _inflated(file, spot) if spot.deflated_bytes is not None else _stored(file, spot.size_bytes):
        crc, left = zlib.crc32(chunk, crc), left - len(chunk)
        yield chunk
    if left:
        raise DamagedFile(where, f"entry {printable(spot.entry[:80])} ends {left} bytes too early")
    if spot.crc is not None and crc != spot.crc:
        raise DamagedFile(
            where,
            f"entry {printable(spot.entry[:80])} was altered: its checksum does not match",
            expected=f"{spot.crc:08x}",
            found=f"{crc:08x}",
        )


def _stored(file: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    while size_bytes and (chunk := file.read(min(CHUNK_BYTES, size_bytes))):
        size_bytes -= len(chunk)
        yield chunk


def _inflated(file: BinaryIO, spot: Spot) -> Iterator[bytes]:
    """Inflate no further than the size the entry claims: a bomb ends there."""
    inflate, left = zlib.decompressobj(-15), spot.size_bytes
    try:
        for packed in _stored(file, spot.deflated_bytes or 0):
            while left and packed:
                chunk = inflate.decompress(packed, min(CHUNK_BYTES, left))
                left, packed = left - len(chunk), inflate.unconsumed_tail
                yield chunk
    except zlib.error:
        return  # the missing bytes are what the caller reports


def _first_byte(file: BinaryIO, spot: Spot, *, where: object) -> int:
    if not spot.in_zip:
        return spot.start
    file.seek(spot.start)
    return _after_header(file.read(LOCAL_HEADER.size), spot, where=where)


def _after_header(header: bytes, spot: Spot, *, where: object) -> int:
    if len(header) < LOCAL_HEADER.size or not header.startswith(LOCAL_SIGNATURE):
        raise DamagedFile(where, f"entry {printable(spot.entry[:80])} has lost its header")
    name_bytes, extra_bytes = LOCAL_HEADER.unpack(header)[-2:]
    return spot.start + LOCAL_HEADER.size + int(name_bytes) + int(extra_bytes)


def in_native_order(data: bytearray, *, byteorder: str, item_bytes: int) -> bytearray:
    """Return the numbers in this machine's byte order."""
    if byteorder == sys.byteorder or item_bytes not in SWAP_CODES:
        return data
    numbers = array(SWAP_CODES[item_bytes], bytes(data))
    numbers.byteswap()
    return bytearray(numbers.tobytes())
