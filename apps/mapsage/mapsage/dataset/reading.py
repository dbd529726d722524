"""Reading pictures and masks from disk, with errors that name the file."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from mapsage.dataset.palette import IGNORED
from mapsage.dataset.transforms import Pixels
from unbroken import read_whole
from unbroken.errors import DamagedFile, UsageError

MOST_BYTES = 512 << 20  # of one file
MOST_PIXELS = 64 << 20  # 8192 x 8192
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_END = b"IEND\xaeB`\x82"
CODING = "EarthVQA masks hold 0 = no data and 1..8 = the eight classes; LoveDA 0 and 1..7."
UPRIGHT = 1  # the EXIF orientation of a picture that lies as it is stored
COPY_AGAIN = "Copy the file again from its source."


def read_image(path: Path) -> Pixels:
    """Decode a picture to uint8 BGR HWC, as OpenCV does: turned as its EXIF orientation says."""
    return read_oriented(path)[0]


def read_oriented(path: Path) -> tuple[Pixels, int]:
    """The same, and its EXIF orientation: 1 for a picture that lies as it is stored."""
    data = _read_whole(path)
    _require_few_pixels(path, data)
    try:
        image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as fault:
        raise DamagedFile(path, "the picture cannot be decoded", found=str(fault)[:200], do=COPY_AGAIN) from fault
    if image is None:
        raise DamagedFile(path, "the picture cannot be decoded", do=COPY_AGAIN)
    return np.asarray(image, dtype=np.uint8), _orientation(data)


def read_mask(path: Path) -> Pixels:
    """Decode a mask to uint8 HW with its raw values; a palette PNG gives its indices."""
    data = _read_whole(path)
    _require_few_pixels(path, data)
    try:
        with Image.open(io.BytesIO(data)) as picture:
            if picture.mode not in ("L", "P"):
                raise DamagedFile(
                    path,
                    "the mask is not a class map",
                    expected="one 8-bit channel (mode L or P)",
                    found=f"mode {picture.mode}",
                    do=_how_to_save(picture.mode),
                )
            return np.array(picture, dtype=np.uint8)
    except (UnidentifiedImageError, OSError, SyntaxError) as fault:
        raise DamagedFile(path, "the mask cannot be decoded", found=fault, do=COPY_AGAIN) from fault


def _how_to_save(mode: str) -> str:
    if mode.startswith(("I", "F")):
        return "Class numbers fit into 8 bits, and this mask has 16 or more: save its array as uint8 (mode L)."
    if mode == "1":
        return "It has one bit for each pixel: save it as mode L, with the class numbers 0 and 1."
    if mode in ("LA", "PA", "La"):
        return "Save it without its alpha channel, as mode L."
    return "Save class numbers, not colours."


def _orientation(data: bytes) -> int:
    """The EXIF orientation of a picture that could be decoded; only those that have such data are asked for it."""
    if not (data.startswith((b"II", b"MM")) or any(mark in data for mark in (b"Exif\0", b"eXIf", b"EXIF"))):
        return UPRIGHT
    try:
        with Image.open(io.BytesIO(data)) as picture:
            found = picture.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    except (OSError, SyntaxError, ValueError, KeyError):
        return UPRIGHT
    return found if found in range(UPRIGHT, 9) else UPRIGHT


def read_label(path: Path, *, classes: Sequence[str], reduce_zero_label: bool) -> Pixels:
    """Read a mask as labels 0..K-1 with 255 for no data.

    With `reduce_zero_label` the value 0 becomes 255, k becomes k - 1 and 255 stays.
    """
    mask = read_mask(path)
    label = reduce_zero(mask) if reduce_zero_label else mask
    counts = np.bincount(label.ravel(), minlength=256)
    counts[IGNORED] = 0
    if counts[len(classes) :].any():
        first = len(classes) + int(np.flatnonzero(counts[len(classes) :])[0])
        was, advice = "", "Set reduce_zero_label = true if your masks are coded like that, or name every class."
        if reduce_zero_label:
            was, advice = f" (value {first + 1} in the file)", "Check `classes` against the coding of your masks."
        raise UsageError(
            path,
            "the mask has a label that no class is named for",
            expected=f"0..{len(classes) - 1} or {IGNORED} with {len(classes)} classes",
            found=f"label {first}{was} on {counts[first]} pixels",
            do=f"{CODING} {advice}",
        )
    return label


def reduce_zero(mask: Pixels) -> Pixels:
    """Turn masks whose 0 means no data into labels: 0 to 255, k to k - 1, 255 to 255."""
    return np.where(mask == IGNORED, mask, mask - np.uint8(1))  # uint8 wraps 0 to 255


def _require_few_pixels(path: Path, data: bytes) -> None:
    """Raise DamagedFile where a picture claims a size that no tile has: a few KB would be unpacked to gigabytes."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data)) as picture:
                width, height = picture.size
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as fault:
        raise _too_large(path, str(fault)) from fault
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError):
        return  # the decoder says what is wrong with it
    if width * height > MOST_PIXELS:
        raise _too_large(path, f"{width} x {height}")


def _too_large(path: Path, found: str) -> DamagedFile:
    what = "the picture claims more pixels than any tile has"
    return DamagedFile(path, what, expected=f"at most {MOST_PIXELS:,}", found=found, do="Cut it into tiles.")


def _read_whole(path: Path) -> bytes:
    try:
        data = read_whole(path, most_bytes=MOST_BYTES)
    except OSError as fault:
        raise DamagedFile(path, "the file cannot be read", found=fault.strerror or fault) from fault
    # Decoders differ in whether they forgive a missing end, and half a picture would train silently.
    if not data or (data.startswith(PNG_START) and PNG_END not in data[-4096:]):
        raise DamagedFile(path, "the file is truncated", found=f"{len(data)} bytes", do=COPY_AGAIN)
    return data
