"""Lists of frames, one for each split, and frames that two of them share.

A split that is drawn over frames and their augmented copies has nearly every validation frame in training as well:
neighbours of one dive differ by centimetres. So a split goes by sequence, and copies serve training only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from unbroken import NOT_TEXT, is_name, is_ordinary, read_whole, text_of
from unbroken.errors import DamagedFile, UsageError

FRAME_ID: Final = re.compile(r"(?:[amcd]_)?(\d+)")
MOST_BYTES: Final = 16 << 20
SUFFIXES: Final = (".bin", ".txt", ".npy", ".pcd")
SAFE: Final = re.compile(r"[\w-][\w.-]*")


def read_image_set(root: Path, split: str) -> tuple[str, ...]:
    """Read the ids of a split from `ImageSets/<split>.txt`, in the order of the file."""
    path = root / "ImageSets" / f"{split}.txt"
    if not is_ordinary(path):
        raise UsageError(
            path,
            "the list of frames is missing",
            expected="ImageSets/<split>.txt below the data root, one id per line",
            do="Check the data root and the name of the split.",
        )
    try:
        frames = tuple(text_of(read_whole(path, most_bytes=MOST_BYTES)).split())
    except (OSError, UnicodeDecodeError) as fault:
        raise DamagedFile(path, "the list of frames cannot be read", expected=NOT_TEXT, found=fault) from fault
    if not frames:
        raise UsageError(path, "the list of frames is empty", expected="one id per line")
    seen: set[str] = set()
    for frame in frames:
        if not (SAFE.fullmatch(frame) and is_name(frame)) or frame.endswith(SUFFIXES):
            do = "Write ids alone: no folder, no suffix."
            raise DamagedFile(path, "this is no id of a frame", found=repr(frame[:80]), do=do)
        if frame in seen:
            raise DamagedFile(path, f"frame {frame} is listed twice")
        seen.add(frame)
    return frames


def leaked_frames(training: Iterable[str], validation: Sequence[str]) -> tuple[str, ...]:
    """List the validation frames that training has as well, as themselves or as a copy."""
    known = {_base(frame) for frame in training}
    return tuple(frame for frame in validation if _base(frame) in known)


def _base(frame: str) -> str:
    """The same for ids of any form: one that is not of the recordings is its own."""
    match = FRAME_ID.fullmatch(frame)
    return match[1] if match else frame
