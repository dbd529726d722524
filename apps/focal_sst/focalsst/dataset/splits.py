"""Which frames belong together, and splits that keep them together.

A split that is drawn over frames and their augmented copies has nearly every validation frame in training as well:
neighbours of one dive differ by centimetres. So a split goes by sequence, and copies serve training only.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from unbroken import NOT_TEXT, is_name, is_ordinary, read_whole, text_of
from unbroken.errors import DamagedFile, UsageError

# First frame of each of the twelve recordings, and the last frame of all.
FIRST_FRAMES: Final = (
    130001, 130081, 140001, 140395, 150781, 160001, 170076, 170471, 170839, 171043, 171067, 171248,
)  # fmt: skip
LAST_FRAME: Final = 180158
SAMPLE_DATA: Final = 1_000_000  # ids from here on are of sample data: four digits of sequence, three of frame
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


def base_frame(frame: str) -> str:
    """Give the frame that this one is a copy of, or itself."""
    return _parse(frame)


def sequence_of(frame: str) -> str:
    """Name the recording that a frame or a copy belongs to: `1` to `12`, or four digits in sample data."""
    number = int(_parse(frame))
    if number >= SAMPLE_DATA:
        return str(number // 1000)
    if not FIRST_FRAMES[0] <= number <= LAST_FRAME:
        raise UsageError(
            frame, "the frame is of no known recording", expected=f"{FIRST_FRAMES[0]} to {LAST_FRAME}", found=number
        )
    return str(bisect_right(FIRST_FRAMES, number))


def split_by_sequence(frames: Iterable[str], held_out: Collection[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Split frames into training and validation, the latter from the sequences `held_out` and without copies.

    Copies of held-out frames are in neither.
    """
    training, validation = list[str](), list[str]()
    for frame in frames:
        if sequence_of(frame) not in held_out:
            training.append(frame)
        elif base_frame(frame) == frame:
            validation.append(frame)
    return tuple(training), tuple(validation)


def leaked_frames(training: Iterable[str], validation: Sequence[str]) -> tuple[str, ...]:
    """List the validation frames that training has as well, as themselves or as a copy."""
    known = {_base(frame) for frame in training}
    return tuple(frame for frame in validation if _base(frame) in known)


def _base(frame: str) -> str:
    """The same for ids of any form: one that is not of the recordings is its own."""
    match = FRAME_ID.fullmatch(frame)
    return match[1] if match else frame


def _parse(frame: str) -> str:
    match = FRAME_ID.fullmatch(frame)
    if match is None:
        raise UsageError(
            repr(frame), "this is no id of a frame", expected="digits, after a_, m_, c_ or d_ if it is a copy"
        )
    return match[1]
