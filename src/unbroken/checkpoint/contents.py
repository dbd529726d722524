"""What any container of a checkpoint gives: its tree, and where each storage lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbroken.checkpoint.leaves import Name, StorageRef
from unbroken.checkpoint.storages import Spot
from unbroken.errors import DamagedFile

SMALL_BYTES = 64 << 20  # up to so much a file may unfold into, however few bytes it has


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


def check_storages(storages: dict[str, StorageRef], spots: dict[str, Spot], path: Path) -> None:
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
