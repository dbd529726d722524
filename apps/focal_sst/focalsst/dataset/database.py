"""The database of objects: cut out of training frames once, and pasted into other frames while training.

Layout below the data root: `gt_database/<frame>_<name>_<number>.bin`, float32 (M, 4) around the centre of the box
with intensity in the `original` encoding, and one list of all objects, `sonar_dbinfos_<split>.npz`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from focalsst.dataset.arrays import load_arrays, write_arrays
from focalsst.dataset.infos import Annotation, plain_array, read_plain_pickle
from focalsst.dataset.points import (
    BINARY,
    COPY_AGAIN,
    Encoding,
    Points,
    Progress,
    encode_intensity,
    read_points,
    recode_intensity,
)
from focalsst.dataset.scene import Scene, Triple, bev_overlap, points_in_box
from unbroken import Disk, LeadsOut, durable_folder, is_ordinary, place, read_whole, write_whole
from unbroken.errors import DamagedFile, UsageError

FOLDER: Final = "gt_database"
ARRAYS: Final = ("name", "path", "box7", "points")
ROW_BYTES: Final = 16
Row = tuple[str, str, Points, int]  # one object: class, path below the data root, box, number of points


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredObject:
    """One object of the database: where its points lie, how many they are, and the box they came from."""

    name: str
    path: Path
    box: Points
    points: int

    def read(self, encoding: Encoding) -> Points:
        """Read its points (M, 4) at the place where they were recorded."""
        self.require_whole()
        data = read_whole(self.path)
        self._require_size(len(data))
        points = np.frombuffer(data, "<f4").reshape(-1, 4).astype(np.float32)
        points[:, :3] += self.box[:3]
        points[:, 3] = recode_intensity(points[:, 3], encoding)
        return points

    def require_whole(self) -> None:
        """Raise DamagedFile unless its points are there."""
        self._require_size(self.path.stat().st_size if is_ordinary(self.path) else 0)

    def _require_size(self, size_bytes: int) -> None:
        if size_bytes != self.points * ROW_BYTES:
            raise DamagedFile(
                self.path,
                "the object is missing or truncated",
                expected=f"{self.points} points, {self.points * ROW_BYTES} bytes",
                found=f"{size_bytes} bytes",
                do=f"Write the database again: {_command(self.path.parent.parent)}",
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Database:
    """The objects of each class that may be pasted."""

    objects: Mapping[str, tuple[StoredObject, ...]]
    encoding: Encoding


def database_file(root: Path, split: str) -> Path:
    """Name the list of all objects of a split."""
    return root / f"sonar_dbinfos_{split}.npz"


def write_database(
    root: Path, annotations: Sequence[Annotation], *, split: str = "train", progress: Progress | None = None
) -> int:
    """Cut every object with points out of its frame; return how many there are.

    A repeated call writes the same bytes again. The list is written last, when every object is there.
    """
    rows: list[Row] = []
    durable_folder(Disk(), root / FOLDER)
    for done, annotation in enumerate(annotations, start=1):
        rows.extend(_cut_objects(root, annotation))
        if progress is not None:
            progress(done, len(annotations))
    write_list(root, split, rows)
    return len(rows)


def write_list(root: Path, split: str, rows: Sequence[Row]) -> None:
    """Write the list of all objects of a split."""
    names, places, boxes, counts = zip(*rows, strict=True) if rows else ((), (), (), ())
    columns = (
        np.array(names, np.str_),
        np.array(places, np.str_),
        np.array(boxes, np.float32).reshape(-1, 7),
        np.array(counts, np.int64),
    )
    write_arrays(database_file(root, split), dict(zip(ARRAYS, columns, strict=True)))


def read_database(
    root: Path, *, split: str = "train", min_points: Mapping[str, int], encoding: Encoding = "standard"
) -> Database:
    """List the objects that have `min_points` of their class, or 1 for a class without an entry."""
    path = database_file(root, split)
    if not is_ordinary(path):
        raise UsageError(path, "there is no database of objects", do=f"Write it once: {_command(root)}")
    again = f"Move the file away and write it again: {_command(root)}"
    names, paths, boxes, counts = load_arrays(path, ARRAYS, what="the objects", do=again).values()
    stored = [
        StoredObject(name=str(name), path=_inside(path, root, str(where)), box=box, points=int(count))
        for name, where, box, count in zip(names, paths, boxes, counts)
        if count >= min_points.get(str(name), 1)
    ]
    objects = {kind: tuple(item for item in stored if item.name == kind) for kind in dict.fromkeys(map(str, names))}
    return Database(objects=objects, encoding=encoding)


def paste_objects(
    scene: Scene,
    rng: np.random.Generator,
    *,
    database: Database,
    groups: Mapping[str, int],
    limit_whole_scene: bool = False,
    extra_width_m: Triple = (0.0, 0.0, 0.0),
) -> Scene:
    """Paste up to `groups[class]` objects of each class at the places where they were recorded.

    With `limit_whole_scene` the objects that are already there count. An object that overlaps another one from
    above is left out. Points of the scene inside a pasted box, enlarged by `extra_width_m`, make room.
    """
    boxes, pasted = scene.boxes, list[StoredObject]()
    for name, wanted in groups.items():
        count = wanted - scene.names.count(name) if limit_whole_scene else wanted
        stored = database.objects.get(name, ())
        drawn = [stored[place] for place in rng.permutation(len(stored))[: max(count, 0)]]
        chosen = list[StoredObject]()
        if drawn:
            own = np.stack([item.box for item in drawn])
            among = bev_overlap(own, own) & ~np.eye(len(own), dtype=bool)
            hit = np.asarray(np.concatenate([bev_overlap(own, boxes), among], axis=1).any(axis=1)).tolist()
            chosen = [item for item, overlaps in zip(drawn, hit) if not overlaps]
        pasted.extend(chosen)
        boxes = np.concatenate([boxes, *(item.box[None] for item in chosen)])
    points = scene.points
    for item in pasted:
        room = item.box + np.array([0, 0, 0, *extra_width_m, 0], np.float32)
        points = points[~points_in_box(points, room)]
    return Scene(
        points=np.concatenate([*(item.read(database.encoding) for item in pasted), points]),
        names=scene.names + tuple(item.name for item in pasted),
        boxes=boxes,
    )


def _inside(listed_in: Path, root: Path, where: str) -> Path:
    """Where an object of the list lies; DamagedFile where that would be outside of the data."""
    try:
        return place(root, where.replace("\\", "/"))
    except LeadsOut as fault:
        raise DamagedFile(listed_in, "the list names an object elsewhere", found=fault, do=_command(root)) from fault


def _command(root: Path) -> str:
    return f"python convert.py database {root}"


def _cut_objects(root: Path, annotation: Annotation) -> list[Row]:
    rows: list[Row] = []
    if not annotation.names:
        return rows
    points = read_points(root / BINARY[0] / f"{annotation.frame}{BINARY[1]}")
    for number, (name, box) in enumerate(zip(annotation.names, annotation.boxes)):
        inside = points[points_in_box(points, box, margin_m=1e-4)][:, :4]
        if len(inside) == 0:
            continue
        inside[:, 3] = encode_intensity(inside[:, 3], "original")
        inside[:, :3] -= box[:3]
        where = f"{FOLDER}/{annotation.frame}_{name}_{number}.bin"
        target = _inside(database_file(root, "*"), root, where)
        write_whole(Disk(), target, np.ascontiguousarray(inside, "<f4").tobytes())
        rows.append((name, where, box, len(inside)))
    return rows


def read_pickled_database(path: Path, root: Path) -> list[Row]:
    """Read the original's list of objects, whose files of points must be there; objects without points are left out."""
    value = read_plain_pickle(path)
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
        name, box = entry.get("name", kind), plain_array(entry["box3d_lidar"]).ravel()[:7].astype(np.float32)
        where, known = _place_of(entry["path"]), entry.get("num_points_in_gt")
        fits = isinstance(name, str) and box.shape == (7,) and np.isfinite(box).all() and (box[3:6] > 0).all()
        points = None if known is None else int(known)
    except (KeyError, TypeError, ValueError, AttributeError) as fault:
        expected = "name, path, box3d_lidar and num_points_in_gt in every object"
        raise _foreign(path, expected, f"{type(fault).__name__} {fault} in {which}") from fault
    if not fits:
        raise _foreign(path, f"a class and a box in {which}", f"{name!r} and {box.tolist()}")
    try:
        file = place(root, where)
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
    return name, where, box, size // ROW_BYTES


def _place_of(value: Any) -> str:
    """Folder and file of an object below the data root, whatever the machine on which its path was written."""
    text = value if isinstance(value, str) else "/".join(str(part) for part in value.args)
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
    folder, file = parts[-2:] if len(parts) > 1 else (FOLDER, parts[0] if parts else "")
    if ".." in (folder, file) or not file or not folder.startswith(FOLDER):
        raise ValueError(f"no path of an object: {text!r}")
    return f"{folder}/{file}"


def _foreign(path: Path, expected: str, found: object) -> DamagedFile:
    return DamagedFile(path, "the list of objects is of another form", expected=expected, found=found)
