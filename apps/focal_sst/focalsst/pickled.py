"""The original's pickles, read as data: whatever is not plain values and arrays is refused, and nothing is executed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from focalsst.dataset.database import FOLDER, ROW_BYTES
from focalsst.dataset.infos import Pickled, read_infos_file
from focalsst.dataset.point_layout import COPY_AGAIN, Points
from unbroken import LeadsOut, is_ordinary, read_pickle
from unbroken import place as inside
from unbroken.errors import DamagedFile

# What a pickle of plain values and numpy arrays mentions. Nothing of it is looked up or called.
PLAIN: Final = frozenset(
    {
        "_codecs.encode",
        "builtins.dict",
        "builtins.list",
        "collections.OrderedDict",
        "collections.defaultdict",
        "numpy.dtype",
        "numpy.ndarray",
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
        *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
        *(f"pathlib{room}.{kind}Path" for room in ("", "._local") for kind in ("Posix", "PurePosix", "Windows")),
    }
)
Row = tuple[str, str, Points, int]  # one object: class, path below the data root, box, number of points


def read_plain_pickle(source: bytes, *, where: object) -> Pickled:
    """Read a pickle of plain values and arrays; raises `DamagedFile` if it mentions anything else."""
    pickled = read_pickle(source, where=where)
    strange = sorted(str(name) for name in pickled.names if str(name) not in PLAIN)
    if strange:
        raise DamagedFile(
            where,
            "the pickle is of something else than plain values, and could do harm elsewhere",
            expected="dicts, lists, text, numbers and numpy arrays",
            found=", ".join(strange[:5]),
            do="Nothing in it was executed. Get the file again from a source that you trust.",
        )
    return pickled


def read_pickled_database(path: Path, root: Path) -> list[Row]:
    """Read the original's list of objects, whose files of points must be there; objects without points are left out."""
    value = read_plain_pickle(read_infos_file(path), where=path).value
    if not isinstance(value, dict) or not all(isinstance(entries, list) for entries in value.values()):
        raise _foreign(path, "a dict of class names to lists of objects", type(value).__name__)
    rows = [
        _row_of_pickle(path, root, f"{name} number {number}", name, entry)
        for name, entries in value.items()
        for number, entry in enumerate(entries)
    ]
    return [row for row in rows if row[3]]


def _row_of_pickle(path: Path, root: Path, which: str, kind: Any, entry: Any) -> Row:
    try:
        name, box = entry.get("name", kind), _numbers(entry["box3d_lidar"])[:7].astype(np.float32)
        place, known = _place(entry["path"]), entry.get("num_points_in_gt")
        fits = isinstance(name, str) and box.shape == (7,) and np.isfinite(box).all() and (box[3:6] > 0).all()
        points = None if known is None else int(known)
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        expected = "name, path, box3d_lidar and num_points_in_gt in every object"
        raise _foreign(path, expected, f"{type(fault).__name__} {fault} in {which}") from fault
    if not fits:
        raise _foreign(path, f"a class and a box in {which}", f"{name!r} and {box.tolist()}")
    try:
        file = inside(root, place)
    except LeadsOut as fault:
        raise _foreign(path, f"a path below {root} in {which}", fault) from fault
    size = file.stat().st_size if is_ordinary(file) else 0
    expected_bytes = size // ROW_BYTES * ROW_BYTES if points is None else points * ROW_BYTES
    if size != expected_bytes or (points is None and not size):
        raise DamagedFile(
            file,
            "the object is missing or truncated",
            expected=f"{points or 'some'} points of {ROW_BYTES} bytes, as {path.name} says",
            found=f"{size} bytes",
            do=COPY_AGAIN,
        )
    return name, place, box, size // ROW_BYTES


def _numbers(value: Any) -> Any:
    """A flat array from a list of numbers, or from what the reader of pickles gives for an array."""
    return np.asarray(value if isinstance(value, list | tuple) else np.frombuffer(value.data, value.dtype)).ravel()


def _place(value: Any) -> str:
    """Folder and file of an object below the data root, whatever the machine on which its path was written."""
    text = value if isinstance(value, str) else "/".join(str(part) for part in value.args)
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    folder, file = parts[-2:] if len(parts) > 1 else (FOLDER, parts[0] if parts else "")
    if ".." in (folder, file) or not file or not folder.startswith(FOLDER):
        raise ValueError(f"no path of an object: {text!r}")
    return f"{folder}/{file}"


def _foreign(path: Path, expected: str, found: object) -> DamagedFile:
    return DamagedFile(path, "the list of objects is of another form", expected=expected, found=found)
