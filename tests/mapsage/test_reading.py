"""Pictures and masks that were made to take memory, or that cannot be read: errors that name the file."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mapsage.dataset.reading import read_image, read_mask
from unbroken.errors import DamagedFile

READERS = [read_image, read_mask]


def claiming(width: int, height: int) -> bytes:
    """A whole PNG of one byte a pixel whose head says how large it is, and that has hardly any data."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("side_px", [9_000, 12_000, 20_000, 60_000])
def test_a_picture_that_claims_more_pixels_than_a_tile_has_is_refused_unopened(
    read: Callable[[Path], Any], side_px: int, tmp_path: Path
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(claiming(side_px, side_px))
    with pytest.raises(DamagedFile, match=r"bomb\.png: the picture claims more pixels than any tile has"):
        read(path)


@pytest.mark.parametrize("read", READERS)
def test_what_is_no_ordinary_file_is_refused_with_its_name(read: Callable[[Path], Any], tmp_path: Path) -> None:
    pipe, folder, endless, hole = (tmp_path / name for name in ("pipe.png", "folder.png", "endless.png", "hole.png"))
    os.mkfifo(pipe)
    folder.mkdir()
    endless.symlink_to("/dev/zero")
    with hole.open("wb") as file:
        file.truncate(10 << 30)
    for path in (pipe, folder, endless, hole):
        with pytest.raises(DamagedFile, match=path.name):
            read(path)


def test_a_tile_of_ordinary_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tile.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(path)
    assert read_image(path).shape == (8, 8, 3)
    assert read_mask(path)[7, 7] == 63
