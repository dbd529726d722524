"""Converters: text files of points to binary ones, and pickled infos to npz. Both can be killed and repeated."""

from __future__ import annotations

from pathlib import Path

from focalsst.dataset.infos import Annotation, ReadPickle, read_pickled_infos, write_infos
from focalsst.dataset.point_layout import ROW_BYTES
from focalsst.dataset.points import BINARY, MOST_BYTES, TEXT, Progress, read_points, write_points
from unbroken import is_ordinary, read_whole, text_of
from unbroken.errors import UsageError


def files_of_points(root: Path, kind: tuple[str, str]) -> list[Path]:
    """The files of one kind, `TEXT` or `BINARY`, in order; raises OSError for a folder that may not be read."""
    folder, suffix = root / kind[0], kind[1]
    return sorted(path for path in folder.iterdir() if path.suffix == suffix) if folder.is_dir() else []


def convert_points(root: Path, *, progress: Progress | None = None) -> int:
    """Write `points_binary/<id>.bin` for each `points/<id>.txt`; return how many were written.

    A binary file with as many points as its text is left as it is.
    """
    sources = files_of_points(root, TEXT)
    if not sources:
        raise UsageError(root / TEXT[0], "there are no points to convert", expected="<id>.txt files")
    written = 0
    for done, source in enumerate(sources, start=1):
        target = root / BINARY[0] / f"{source.stem}{BINARY[1]}"
        if not _is_done(source, target):
            write_points(target, read_points(source))
            written += 1
        if progress is not None:
            progress(done, len(sources))
    return written


def convert_infos(
    source: Path, target: Path, *, read_pickle: ReadPickle, progress: Progress | None = None
) -> tuple[Annotation, ...]:
    """Write the original's pickled infos as npz or json; return them.

    `read_pickle` is a reader that executes nothing. An existing target is refused.
    """
    if target.exists():
        raise UsageError(target, "the target exists already", do="Choose another name, or delete it first.")
    annotations = read_pickled_infos(source, read_pickle)
    write_infos(target, annotations)
    if progress is not None:
        progress(len(annotations), len(annotations))
    return annotations


def _is_done(source: Path, target: Path) -> bool:
    if not is_ordinary(target):
        return False
    rows = sum(1 for line in text_of(read_whole(source, most_bytes=MOST_BYTES)).splitlines() if line.strip())
    return target.stat().st_size == rows * ROW_BYTES
