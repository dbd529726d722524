"""The one spelling of durability: temporary name, write, fsync, rename, fsync of the folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unbroken.storage.files import Disk, WritableFile

PARTIAL_SUFFIX = ".partial"


def durable_write(disk: Disk, path: Path, fill: Callable[[WritableFile], None]) -> None:
    """Replace `path` by what `fill` writes; at any instant the name holds the old content or the new, whole."""
    partial = path.with_name(path.name + PARTIAL_SUFFIX)
    file = disk.create(partial)
    try:
        fill(file)
        disk.sync(file)
    finally:
        disk.close(file)
    disk.rename(partial, path)
    disk.sync_folder(path.parent)


def write_json(disk: Disk, path: Path, data: Any) -> None:
    """Replace `path` durably by `data` as UTF-8 JSON."""
    text = json.dumps(data, ensure_ascii=False, indent=1) + "\n"
    durable_write(disk, path, lambda file: _put(file, text.encode()))


def append_line(disk: Disk, file: WritableFile, data: Any, *, durable: bool) -> None:
    """Add one JSON line to an open file in one write; wait for the medium when `durable`."""
    line = json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"
    file.write(line.encode())
    if durable:
        disk.sync(file)


def point_to(disk: Disk, pointer: Path, target_name: str) -> bool:
    """Let `pointer` be a relative link to its neighbour `target_name`; False where the file system has no links."""
    partial = pointer.with_name(pointer.name + PARTIAL_SUFFIX)
    if partial.is_symlink() or partial.exists():
        disk.remove(partial)
    try:
        disk.link(partial, target_name)
    except OSError:
        return False
    disk.rename(partial, pointer)
    disk.sync_folder(pointer.parent)
    return True


def _put(file: WritableFile, data: bytes) -> None:
    file.write(data)
