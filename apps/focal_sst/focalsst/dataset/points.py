"""Files of points, text and binary, with errors that name the file; and the two encodings of intensity.

Of a binary file it is told what it looks like instead: four columns, or numbers of eight bytes, are often a multiple of
20 bytes as well. They must not be read as other points, so numbers that are no places under water are refused, with the
layout in which they would be some.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from unbroken import NOT_TEXT, Disk, durable_folder, read_whole, text_of, write_whole
from unbroken.errors import ConfigError, DamagedFile

Floats = NDArray[np.floating[Any]]
Points = NDArray[np.float32]

COLUMNS: Final = 5
NAMES: Final = "x y z intensity class"
POINT_BYTES: Final = 4 * COLUMNS
FARTHEST_M: Final = 10_000.0  # no sonar hears an object from there
NEAREST_M: Final = 1e-12  # numbers between this and 0 are no measured places
HIGHEST_CLASS: Final = 255
ALIKE: Final = 0.9  # columns of one kind vary less, by this factor, than columns that mix several kinds
COPY_AGAIN: Final = "Copy the file again from its source."
REWRITE: Final = f"Write each file anew as float32, {COLUMNS} numbers a point ({NAMES}; a class of 0 will do)."
# What files of other kinds begin with: they are renamed, not points.
STARTS: Final = {
    b"PK\x03\x04": "a zip or .npz file",
    b"# .PCD": "a .pcd file",
    b"VERSION": "a .pcd file",
    b"ply\n": "a .ply file",
    b"ply\r\n": "a .ply file",
    b"\x89HDF": "an HDF5 file",
    b"LASF": "a .las file",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\x1f\x8b": "a gzip file",
}
NPY: Final = b"\x93NUMPY"
TEXTUAL: Final = frozenset(b"0123456789+-.eE \t\r\n,;")
Progress = Callable[[int, int], None]  # files that are done, files in all
Encoding = Literal["standard", "original"]
MOST_BYTES: Final = 128 << 20  # of one frame; a scan of a dive has a few
TEXT_ROW: Final = "%.6f %.6f %.6f %.1f %.1f"
TEXT, BINARY = ("points", ".txt"), ("points_binary", ".bin")  # folder and suffix of the two forms
LOUDEST: Final = 4.71e10  # louder echoes are clipped
CENTRE, SPREAD = 8.95, 0.35  # log10 of the raw intensity over all real points: mean, and about 1.5 deviations
SEPARATORS: Final = {",": "commas", ";": "semicolons"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """So many numbers of one type for each point."""

    dtype: str
    columns: int

    def __str__(self) -> str:
        kind = np.dtype(self.dtype)
        order = "big-endian " if self.dtype.startswith(">") else ""
        return f"{self.columns} {order}{kind.newbyteorder('=').name} numbers a point"

    def table(self, data: bytes) -> Floats | None:
        """The numbers, one row a point; None where the bytes do not come out even."""
        row_bytes = self.columns * np.dtype(self.dtype).itemsize
        return np.frombuffer(data, self.dtype).reshape(-1, self.columns) if data and not len(data) % row_bytes else None


OURS: Final = Layout(dtype="<f4", columns=COLUMNS)
OTHERS: Final = tuple(
    Layout(dtype=dtype, columns=columns)
    for dtype, widths in (("<f4", (3, 4, 6, 7, 8)), ("<f8", (3, 4, 5, 6)), (">f4", (4, 5)), (">f8", (4, 5)))
    for columns in widths
)


def parse_binary(path: Path, data: bytes) -> Points:
    """Turn the bytes of a binary file into points, float32 (N, 5); DamagedFile where they are something else."""
    # A file of another kind under this name.
    kind = next((kind for start, kind in STARTS.items() if data.startswith(start)), "")
    if data.startswith(NPY):
        kind = f"a .npy file{_inside_npy(data)}"
    elif not kind and TEXTUAL.issuperset(data[:1000]):
        kind = "text"
    if kind:
        do = "Name it .txt below points/, and convert it: python convert.py points" if kind == "text" else REWRITE
        raise DamagedFile(path, f"this is {kind}, not binary points", expected=f"{OURS} and nothing else", do=do)
    found = OURS.table(data)
    if found is None:
        other = _other_layout(data)
        raise DamagedFile(
            path,
            "the file of points has another layout" if other else "the file of points is truncated",
            expected=f"a multiple of {POINT_BYTES} bytes ({COLUMNS} float32 numbers per point)",
            found=f"{len(data)} bytes{f', which are {other[0]}' if other else ''}",
            do=REWRITE if other else COPY_AGAIN,
        )
    wrong = not _are_places(found) or bool((found[:, 3] < 0).any())  # no echo is less than none
    if (wrong or not are_classes(found[:, 4])) and (other := _other_layout(data)):
        layout, table = other
        if wrong or _mixed(table) < ALIKE * _mixed(found):
            xyz = table[:, :3].astype(np.float64)
            low, high = (np.round(side(xyz, axis=0), 2).tolist() for side in (np.min, np.max))
            raise DamagedFile(
                path,
                "the file of points has another layout",
                expected=f"{OURS} ({NAMES})",
                found=f"{layout}: as these, {len(table)} points lie within {low} to {high} m",
                do=REWRITE,
            )
    return found.astype(np.float32)


def require_places(path: Path, points: Points) -> None:
    """Raise DamagedFile where a point is no place that an echo can come from."""
    sound = np.isfinite(points).all(axis=1)
    if not sound.all():
        row = int(np.flatnonzero(~sound)[0])
        raise DamagedFile(path, f"point {row + 1} is not a number", found=points[row].tolist(), do=COPY_AGAIN)
    if not points.any():
        raise DamagedFile(path, "the file of points holds only zeros", found=f"{len(points)} points", do=COPY_AGAIN)
    far = (np.abs(points[:, :3]) > FARTHEST_M).any(axis=1)
    if far.any():
        row = int(np.flatnonzero(far)[0])
        raise DamagedFile(
            path,
            f"point {row + 1} is no place: {far.sum()} of {len(points)} points lie beyond {FARTHEST_M / 1000:g} km",
            expected=f"{NAMES} of each point, in metres",
            found=[float(f"{number:.6g}") for number in points[row]],
            do=f"Are these millimetres, or other columns? {COPY_AGAIN}",
        )


def _inside_npy(data: bytes) -> str:
    """What the header of a .npy file says is inside."""
    try:
        header = ast.literal_eval(data[data.index(b"{") : data.index(b"}") + 1].decode("ascii"))
        return f" with {np.dtype(header['descr']).name} of shape {tuple(header['shape'])}"
    except (ValueError, SyntaxError, TypeError, LookupError):
        return ""


def _other_layout(data: bytes) -> tuple[Layout, Floats] | None:
    """The layout other than ours in which the bytes are most likely points, and these; of those alike the simplest."""
    tables = {layout: table for layout in OTHERS if (table := layout.table(data)) is not None and _are_places(table)}
    fitting = [layout for layout in tables if layout.columns != COLUMNS or are_classes(tables[layout][:, 4])]
    mixed = {layout: _mixed(tables[layout]) for layout in fitting}
    alike = [layout for layout in fitting if mixed[layout] * ALIKE <= min(mixed.values())]
    simplest = min(alike, key=lambda layout: layout.columns, default=None)
    return None if simplest is None else (simplest, tables[simplest])


def _are_places(table: Floats) -> bool:
    """Whether the first three columns may be metres: bytes of another type are mostly far too large or too small."""
    size = np.abs(table[:, :3])
    near = np.isfinite(table).all() and (size <= FARTHEST_M).all()
    return bool(near and size.any() and not ((size > 0) & (size < NEAREST_M)).any())


def are_classes(column: Floats) -> bool:
    """Whether a column may be that of the classes: small whole numbers."""
    return bool(((column >= 0) & (column <= HIGHEST_CLASS) & (column == np.round(column))).all())


def _mixed(table: Floats) -> float:
    """How much the numbers of a column differ, compared with all of the table: near 1 where columns are mixed."""
    whole = float(table.var(dtype=np.float64))
    if len(table) < 2 or not whole:
        return 1.0
    return float(table.var(axis=0, dtype=np.float64, ddof=1).mean()) / whole


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
