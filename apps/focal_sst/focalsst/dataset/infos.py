"""Infos: the annotations of one split in one file, as npz or json; the original's pickles are read as data.

An npz holds `frame_id` (F), and per box `box_frame` (index into frame_id), `box_name` and `box7` (M, 7). A json file
is a list of {"frame", "names", "boxes"}. A frame without objects is listed as well.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from focalsst.dataset.arrays import arrays_by_frame, load_arrays, sound, write_arrays
from focalsst.dataset.points import COPY_AGAIN, Points
from unbroken import Disk, durable_folder, is_name, is_ordinary, read_pickle, read_whole, write_whole
from unbroken.errors import DamagedFile, UsageError

ARRAYS: Final = ("frame_id", "box_frame", "box_name", "box7")
MOST_BYTES: Final = 256 << 20  # the infos of 5,000 frames have 2 MB
Row = tuple[Any, Any, Any]  # frame, names, boxes: not yet checked
PICKLES: Final = (".pkl", ".pickle")
# What a pickle of plain values and numpy arrays mentions. Nothing of it is looked up or called.
PLAIN: Final = frozenset(
    {
        "__builtin__.bytes",
        "_codecs.encode",
        "builtins.bytes",
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Annotation:
    """What is known about one frame: the name of each object, and its box as float32 (M, 7)."""

    frame: str
    names: tuple[str, ...]
    boxes: Points


def read_infos(path: Path) -> tuple[Annotation, ...]:
    """Read the annotations of a split from an npz or json file, each box checked."""
    match path.suffix:
        case ".npz":
            _require_file(path)
            rows = _rows_of_arrays(path, load_arrays(path, ARRAYS, what="the infos", do=COPY_AGAIN))
        case ".json":
            rows = _rows_of_json(path)
        case suffix if suffix in PICKLES:
            raise UsageError(
                path,
                "infos are not read from a pickle, which could run code",
                expected="infos in .npz or .json",
                do=f"Convert the file once: python convert.py infos {path}",
            )
        case _:
            raise UsageError(path, "this is no file of infos", expected=".npz or .json", found=repr(path.suffix))
    return _annotations(path, rows)


def read_infos_file(path: Path) -> bytes:
    """All bytes of a file of annotations; UsageError if it is not there, DamagedFile if it cannot be read."""
    _require_file(path)
    try:
        return read_whole(path, most_bytes=MOST_BYTES)
    except OSError as fault:
        raise DamagedFile(path, "the file cannot be read", found=fault.strerror or fault, do=COPY_AGAIN) from fault


def read_plain_pickle(path: Path) -> Any:
    """What a pickle of plain values and arrays holds; raises `DamagedFile` if it mentions anything else.

    An array comes as an object that has its `dtype`, `shape` and `data`: see `plain_array`.
    """
    pickled = read_pickle(read_infos_file(path), where=path)
    strange = sorted(str(name) for name in pickled.names if str(name) not in PLAIN)
    if strange:
        raise DamagedFile(
            path,
            "the pickle is of something else than plain values, and could do harm elsewhere",
            expected="dicts, lists, text, numbers and numpy arrays",
            found=", ".join(strange[:5]),
            do="Nothing in it was executed. Get the file again from a source that you trust.",
        )
    return pickled.value


def read_pickled_infos(path: Path) -> tuple[Annotation, ...]:
    """Read the original's pickled list of annotations, without executing anything of it."""
    value = read_plain_pickle(path)
    if not isinstance(value, list):
        raise _foreign(path, "a list of frames", type(value).__name__)
    rows: list[Row] = []
    for number, info in enumerate(value):
        try:
            frame, annos = info["point_cloud"]["lidar_idx"], info["annos"]
            rows.append((frame, plain_array(annos["name"]).tolist(), plain_array(annos["gt_boxes_lidar"])))
        except (LookupError, TypeError, ValueError, AttributeError, SyntaxError, OverflowError, MemoryError) as fault:
            expected = "point_cloud.lidar_idx, annos.name and annos.gt_boxes_lidar in every frame"
            raise _foreign(path, expected, f"{type(fault).__name__} {fault} in frame {number}") from fault
    return _annotations(path, rows)


def write_infos(path: Path, annotations: Sequence[Annotation]) -> int:
    """Write annotations as npz, or as json by its suffix; return the size in bytes.

    The same annotations give the same bytes. A reader never sees half a file.
    """
    durable_folder(Disk(), path.parent)
    if path.suffix == ".npz":
        frames, names = [a.frame for a in annotations], [a.names for a in annotations]
        return write_arrays(path, arrays_by_frame(frames, names, [a.boxes.astype(np.float32) for a in annotations]))
    if path.suffix == ".json":
        rows = [{"frame": a.frame, "names": a.names, "boxes": a.boxes.astype(np.float64).tolist()} for a in annotations]
        return write_whole(Disk(), path, json.dumps(rows, indent=1).encode())
    raise UsageError(path, "the infos have no such form", expected=".npz or .json", found=repr(path.suffix))


def _annotations(path: Path, rows: Iterable[Row]) -> tuple[Annotation, ...]:
    made: dict[str, Annotation] = {}
    for row in rows:
        annotation = _annotation(path, row)
        if annotation.frame in made:
            raise DamagedFile(path, f"frame {annotation.frame} is listed twice")
        made[annotation.frame] = annotation
    return tuple(made.values())


def _annotation(path: Path, row: Row) -> Annotation:
    frame, names, content = row
    try:
        boxes = np.asarray(content, np.float32)
    except (TypeError, ValueError, OverflowError) as fault:
        raise DamagedFile(path, f"frame {frame}: the boxes are no numbers", found=fault) from fault
    boxes = boxes.reshape(0, 7) if boxes.size == 0 else boxes
    if not (isinstance(frame, str) and isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise DamagedFile(path, f"frame {frame!r}: its id and the names of its objects are not all text")
    if not is_name(frame):
        raise DamagedFile(path, f"frame {frame[:80]!r}: this id cannot name a file", do=COPY_AGAIN)
    if boxes.shape != (len(names), 7):
        raise DamagedFile(
            path,
            f"frame {frame}: boxes and names do not fit together",
            expected=f"boxes of shape ({len(names)}, 7) for {len(names)} names",
            found=boxes.shape,
            do="" if boxes.shape[1:] == (7,) else "Of each box, write x y z dx dy dz heading and nothing else.",
        )
    unsound = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 3:6] <= 0).any(axis=1)
    if unsound.any():
        first = int(np.argmax(unsound))
        raise DamagedFile(
            path,
            f"frame {frame}: the box of {names[first]} is none",
            expected="x y z dx dy dz heading, all finite and sizes above 0",
            found=np.round(boxes[first], 3).tolist(),
        )
    return Annotation(frame=frame, names=tuple(str(name) for name in names), boxes=boxes)


def _rows_of_arrays(path: Path, arrays: Mapping[str, Any]) -> list[Row]:
    frames, owner, names, boxes = (arrays[name] for name in ARRAYS)
    if owner.dtype.kind not in "iu" or not len(owner) == len(names) == len(boxes):
        raise _foreign(path, "one frame, one name and one box per object", [len(owner), len(names), len(boxes)])
    if len(owner) and not 0 <= owner.min() <= owner.max() < len(frames):
        raise _foreign(path, f"box_frame within 0..{len(frames) - 1}", f"{owner.min()}..{owner.max()}")
    order = np.argsort(owner, kind="stable")
    cuts = np.searchsorted(owner[order], np.arange(1, len(frames)))
    groups = np.split(order, cuts) if len(frames) else []
    return [(str(frame), names[group].tolist(), boxes[group]) for frame, group in zip(frames, groups)]


def _rows_of_json(path: Path) -> list[Row]:
    try:
        content = json.loads(read_infos_file(path))
    except (ValueError, RecursionError) as fault:
        raise DamagedFile(path, "the infos cannot be read", found=fault) from fault
    keys = {"frame", "names", "boxes"}
    if not isinstance(content, list) or not all(isinstance(row, dict) and keys <= set(row) for row in content):
        raise _foreign(path, "a list of objects with frame, names and boxes", type(content).__name__)
    return [(row["frame"], row["names"], row["boxes"]) for row in content]


def plain_array(value: Any) -> NDArray[Any]:
    """Make an array of what a pickle holds as one: its `dtype`, `shape` and `data`; or of a list."""
    if isinstance(value, np.ndarray | list | tuple):
        return np.asarray(value)
    order: Literal["F", "C"] = "F" if getattr(value, "column_major", False) else "C"
    dtype = np.dtype(value.dtype)
    flat = sound(np.frombuffer(value.data, dtype)) if value.data else np.zeros(0, dtype)
    return flat.reshape(value.shape, order=order)


def _require_file(path: Path) -> None:
    if not is_ordinary(path):
        raise UsageError(path, "there is no such file of infos", do="Check the data root and the name of the infos.")


def _foreign(path: Path, expected: str, found: object) -> DamagedFile:
    return DamagedFile(path, "the infos are of another form", expected=expected, found=found)
