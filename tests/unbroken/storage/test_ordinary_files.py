"""Only ordinary files are opened, nothing waits, and nothing is read beyond what it may have."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from unbroken.storage import NotOrdinary, open_ordinary, read_json, read_whole


def a_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def a_socket(folder: Path) -> Path:
    before = Path.cwd()
    os.chdir(folder)  # the path of a socket may only have 107 characters
    try:
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind("socket")
    finally:
        os.chdir(before)
    return folder / "socket"


def a_link_to_a_device(folder: Path) -> Path:
    (folder / "link").symlink_to("/dev/zero")
    return folder / "link"


NOT_ORDINARY = {
    "a pipe": a_pipe,
    "a folder": lambda folder: folder,
    "a device": lambda _: Path("/dev/zero"),
    "a terminal": lambda _: Path("/dev/tty"),
    "a link to a device": a_link_to_a_device,
    "a socket": a_socket,
    "a NUL in its name": lambda folder: folder / "a\0b",
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("make", NOT_ORDINARY.values(), ids=NOT_ORDINARY)
def test_what_is_no_ordinary_file_is_not_read(make, tmp_path: Path) -> None:
    with pytest.raises(OSError):
        open_ordinary(make(tmp_path))


def test_a_file_behind_a_link_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"[1]")
    (tmp_path / "link").symlink_to("file")
    assert read_json(tmp_path / "link") == [1]


def test_a_file_that_is_larger_than_it_may_be_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 100)
    assert read_whole(tmp_path / "file", most_bytes=100) == b"x" * 100
    with pytest.raises(NotOrdinary, match="larger than 99 bytes"):
        read_whole(tmp_path / "file", most_bytes=99)


def test_json_that_is_nested_too_deep_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"[" * 200_000 + b"]" * 200_000)
    with pytest.raises(ValueError, match="nested too deep"):
        read_json(tmp_path / "file")
