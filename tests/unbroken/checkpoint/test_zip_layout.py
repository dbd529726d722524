"""The zip that is laid out before it is written: any reader of zips reads it, also where places need 64 bits."""

from __future__ import annotations

import random
import zipfile
from pathlib import Path

import pytest

from unbroken.checkpoint.zip_layout import (
    ALIGNMENT,
    BLOCK_BYTES,
    beginning_of,
    directory_of,
    entry_at,
    header_of,
    sealed,
)


@pytest.mark.parametrize("sizes", [[], [0], [1, 63, 64, 65, 0, 3], [BLOCK_BYTES, 5, 2 * BLOCK_BYTES + 7, 1]])
def test_each_entry_begins_at_a_64th_and_no_byte_lies_between_entries(tmp_path: Path, sizes: list[int]) -> None:
    print("seed 5")
    chance, place, entries = random.Random(5), 0, []
    for number, size in enumerate(sizes):
        entries.append(entry_at(place, f"archive/data/{number}", size))
        place = entries[-1].end
    memory = bytearray(place)
    contents = [chance.randbytes(size) for size in sizes]
    for entry, content in zip(entries, contents):
        memory[entry.start : entry.end] = content
    front, small, crcs = beginning_of(b"pickled")
    blocks = [bytes(block) for block in sealed(entries, memoryview(memory), 0, crcs)]
    path = tmp_path / "x.pth"
    path.write_bytes(front + b"".join(blocks) + directory_of([*small, *entries], crcs, len(front)))
    assert len(front) % ALIGNMENT == 0 and all(entry.start % ALIGNMENT == 0 for entry in entries)
    assert all(len(block) == BLOCK_BYTES for block in blocks[:-1]), "large blocks"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.namelist()[0] == "archive/data.pkl" and archive.read("archive/data.pkl") == b"pickled"
        assert [archive.read(f"archive/data/{number}") for number in range(len(sizes))] == contents
        ends = [0, *(info.header_offset for info in archive.infolist()[1:])]
    for entry, header in zip([*small, *entries], ends, strict=True):
        assert entry.header + len(front) == header


def test_what_lies_beyond_32_bits_is_found(tmp_path: Path) -> None:
    large, small = entry_at(0, "archive/data/0", (4 << 30) + 5), None
    small = entry_at(large.end, "archive/data/1", 3)
    front, first, crcs = beginning_of(b"pickled")
    base = len(front)
    with (tmp_path / "x.pth").open("wb") as file:  # only what is written takes room: the numbers are a hole
        file.write(front + header_of(large, 0))
        file.seek(base + small.header)
        file.write(header_of(small, 0x352441C2) + b"abc")
        file.write(directory_of([*first, large, small], [*crcs, 0, 0x352441C2], base))
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        assert archive.getinfo("archive/data/0").file_size == (4 << 30) + 5
        with archive.open("archive/data/0") as opened:
            assert opened.read(10) == bytes(10)
        assert archive.read("archive/data/1") == b"abc"


def test_more_entries_than_16_bits_count_are_found(tmp_path: Path) -> None:
    place, entries = 0, []
    for number in range(70_000):
        entries.append(entry_at(place, f"archive/data/{number}", 1))
        place = entries[-1].end
    memory = bytearray(place)
    front, small, crcs = beginning_of(b"")
    blocks = b"".join(sealed(entries, memoryview(memory), 0, crcs))
    (tmp_path / "x.pth").write_bytes(front + blocks + directory_of([*small, *entries], crcs, len(front)))
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        assert len(archive.namelist()) == 70_005 and archive.read("archive/data/69999") == b"\0"
