"""Files of points: text and binary, with errors that name the file; and the two encodings of intensity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np

from focalsst.dataset.boxes import Floats
from focalsst.dataset.point_layout import COLUMNS, COPY_AGAIN, NAMES, Points, parse_binary, require_places
from unbroken import NOT_TEXT, Disk, durable_folder, read_whole, text_of, write_whole
from unbroken.errors import ConfigError, DamagedFile

Progress = Callable[[int, int], None]  # files that are done, files in all
Encoding = Literal["standard", "original"]

MOST_BYTES: Final = 128 << 20  # of one frame; a scan of a dive has a few
TEXT_ROW: Final = "%.6f %.6f %.6f %.1f %.1f"
TEXT, BINARY = ("points", ".txt"), ("points_binary", ".bin")  # folder and suffix of the two forms
LOUDEST: Final = 4.71e10  # louder echoes are clipped
CENTRE, SPREAD = 8.95, 0.35  # log10 of the raw intensity over all real points: mean, and about 1.5 deviations
SEPARATORS: Final = {",": "commas", ";": "semicolons"}


def encode_intensity(raw: Floats, encoding: Encoding) -> Points:
    """Turn raw intensities into an input of the network.

    `standard` is (log10 I - 8.95) / 0.35, about -1 to 3; `original` is log10(I + 1) / 11, which is what public
    weights and databases were made with, and lies between 0.78 and 0.97. Both clip I to 0..4.71e10.
    """
    return _of_log10(np.log10(np.clip(raw.astype(np.float64), 0, LOUDEST) + 1), encoding)


def recode_intensity(original: Floats, encoding: Encoding) -> Points:
    """Turn intensities of the `original` encoding into another one."""
    return _of_log10(original.astype(np.float64) * 11, encoding)


def require_encoding(encoding: str) -> None:
    """Raise ConfigError unless this encoding is known."""
    if encoding not in get_args(Encoding):
        known = " or ".join(get_args(Encoding))
        raise ConfigError("intensity", "this encoding is not known", expected=known, found=repr(encoding))


def read_points(path: Path) -> Points:
    """Read a file of points by its suffix, .txt or .bin: float32 (N, 5). DamagedFile where it holds something else."""
    points = parse_binary(path, _read_whole(path)) if path.suffix == BINARY[1] else _parse_text(path)
    require_places(path, points)
    return points


def write_points(path: Path, points_N5: Floats) -> int:
    """Write a file of points by its suffix; return its size in bytes. A reader never sees half a file."""
    durable_folder(Disk(), path.parent)
    if path.suffix == BINARY[1]:
        return write_whole(Disk(), path, np.ascontiguousarray(points_N5, "<f4").tobytes())
    values = tuple(points_N5.astype(np.float64).ravel().tolist())
    return write_whole(Disk(), path, ((TEXT_ROW + "\n") * len(points_N5) % values).encode())


def as_written(points_N5: Floats) -> Points:
    """Round points as a text file does, so that both forms of a file hold the same float32 numbers."""
    rounded = np.array(points_N5, np.float64)
    rounded[:, :3] = np.round(rounded[:, :3], 6)
    rounded[:, 3:] = np.round(rounded[:, 3:].astype(np.float32), 1)
    return rounded.astype(np.float32)


def _of_log10(log10: Floats, encoding: Encoding) -> Points:
    coded = log10 / 11 if encoding == "original" else (log10 - CENTRE) / SPREAD
    return np.asarray(coded, np.float32)


def _read_whole(path: Path) -> bytes:
    try:
        data = read_whole(path, most_bytes=MOST_BYTES)
    except OSError as fault:
        raise DamagedFile(path, "the points cannot be read", found=fault.strerror or fault, do=COPY_AGAIN) from fault
    if not data.strip(b" \n\r\t" if path.suffix == TEXT[1] else b""):
        raise DamagedFile(path, "the file of points is empty", do=COPY_AGAIN)
    return data


def _parse_text(path: Path) -> Points:
    data = _read_whole(path)
    try:
        text = text_of(data)
    except UnicodeDecodeError as fault:
        raise DamagedFile(path, "this is no text", expected=NOT_TEXT, found=fault, do=COPY_AGAIN) from fault
    try:
        table = np.loadtxt(text.splitlines(), np.float64, ndmin=2)
    except ValueError as fault:
        separator = next((name for sign, name in SEPARATORS.items() if sign in text), "")
        do = f"Its numbers are separated by {separator}: write spaces, and a point in decimals." if separator else ""
        raise DamagedFile(path, "the text is not a table of numbers", found=fault, do=do or COPY_AGAIN) from fault
    if table.shape[1] != COLUMNS:
        raise DamagedFile(
            path,
            "the rows have another length",
            expected=f"{COLUMNS} columns: {NAMES}",
            found=table.shape[1],
            do="Write a fifth column, 0 in every row will do." if table.shape[1] == COLUMNS - 1 else COPY_AGAIN,
        )
    return table.astype(np.float32)
