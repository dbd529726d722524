"""The command `convert.py`: text points to binary, pickled infos to npz, and the database of objects.

Each conversion can be killed and repeated: a file appears whole or not at all, and what is there already stays. It
executes nothing of a pickle, and what it finds in its place and did not write itself is refused and not replaced.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar
from rich.table import Table

from focalsst.dataset.database import (
    FOLDER,
    ROW_BYTES,
    Row,
    database_file,
    read_database,
    read_pickled_database,
    write_database,
    write_list,
)
from focalsst.dataset.infos import Annotation, read_infos, read_pickled_infos, write_infos
from focalsst.dataset.points import BINARY, MOST_BYTES, POINT_BYTES, TEXT, Progress, read_points, write_points
from unbroken import Disk, OptionParser, is_ordinary, read_whole, size_text, text_of, write_whole
from unbroken.errors import DamagedFile, Refused, UnbrokenError, UsageError

INFOS: Final = "sonar_infos_*.pkl"
PIPE_WIDTH: Final = 200


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
        lines = text_of(read_whole(source, most_bytes=MOST_BYTES)).splitlines() if is_ordinary(target) else []
        size_bytes = sum(1 for line in lines if line.strip()) * POINT_BYTES
        if not is_ordinary(target) or target.stat().st_size != size_bytes:
            write_points(target, read_points(source))
            written += 1
        if progress is not None:
            progress(done, len(sources))
    return written


def main(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    out = Console(soft_wrap=True, highlight=False, markup=False, emoji=False)
    if not out.is_terminal:
        out.width = PIPE_WIDTH
    parser, commands = _parsers()
    options, unknown = parser.parse_known_args(list(arguments))
    if unknown:  # the command knows its own options, and which of them is near
        commands[options.command].error(f"unrecognized arguments: {' '.join(unknown)}")
    if (options.root is None) == (options.data_path is None):
        expected = "one folder, as DATA_ROOT or as --data_path DIR"
        raise UsageError("convert.py", "it is not clear what to convert", expected=expected)
    root = options.root or options.data_path
    try:
        if not root.exists():
            raise UsageError(root, "there is no such folder", do="Check the data root.")
        match options.command:
            case "points" if options.check:
                return check_points(root, out)
            case "points":
                out.print(points_to_binary(root, out))
            case "infos":
                out.print(infos_to_npz(root, out))
            case "database":
                out.print(make_database(root, out, split=options.split))
        return 0
    except OSError as error:
        what = f"the disk refuses ({error.strerror or error})"
        raise UnbrokenError(error.filename or "convert.py", what, do="Then repeat.") from error


def usage() -> str:
    """The help text, with that of each command."""
    parser, commands = _parsers()
    return "\n".join(each.format_help() for each in (parser, *commands.values()))


def _parsers() -> tuple[OptionParser, Mapping[str, ArgumentParser]]:
    """The options of `convert.py`, and of each of its commands."""
    parser = OptionParser(prog="convert.py", description="Convert sonar data, once. Any command can be repeated.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="points|infos|database")
    points = commands.add_parser("points", help="points/<id>.txt to points_binary/<id>.bin")
    points.add_argument("--check", action="store_true", help="only read every file of points, and list the bad ones")
    infos = commands.add_parser("infos", help=f"{INFOS} below a folder, or one file, to .npz beside it")
    database = commands.add_parser("database", help="objects of the training frames for gt_sampling, or their old list")
    database.add_argument("--split", default="train", help="whose frames they are of (default: train)")
    for command in (points, infos, database):
        command.add_argument(
            "root", nargs="?", type=Path, metavar="DATA_ROOT", help="folder with ImageSets/ and points/"
        )
        command.add_argument("--data_path", type=Path, metavar="DIR", help="the same, spelled as in the original")
    return parser, commands.choices


def points_to_binary(root: Path, out: Console) -> str:
    """Convert every text file of points that has no binary file of as many points; returns what was done."""
    root = _root_of(root)
    binary = root / BINARY[0]
    before = {path.stem for path in files_of_points(root, BINARY)}
    with _shown(out, "points") as progress:
        written = convert_points(root, progress=progress)
    sources = files_of_points(root, TEXT)
    again = written - sum(source.stem not in before for source in sources)
    text_bytes = sum(source.stat().st_size for source in sources)
    binary_bytes = sum((binary / f"{source.stem}{BINARY[1]}").stat().st_size for source in sources)
    notes = [f"{len(sources) - written} were there already"] if written < len(sources) else []
    notes += [f"{again} replaced a file with another number of points"] if again else []
    did = f"Converted {written} of {len(sources)} files of points into {binary}"
    sizes = f"{size_text(text_bytes)} of text are {size_text(binary_bytes)} of binary."
    return f"{did}{''.join(f'; {note}' for note in notes)}. {sizes}"


def check_points(root: Path, out: Console) -> int:
    """Read every file of points in both forms and list those that are damaged; returns the exit code."""
    root = _root_of(root)
    files = [path for kind in (TEXT, BINARY) for path in files_of_points(root, kind)]
    if not files:
        raise UsageError(root, "there are no points to check", expected=f"{TEXT[0]}/ or {BINARY[0]}/ with files")
    count, bad = 0, list[DamagedFile]()
    with _shown(out, "check") as progress:
        for done, path in enumerate(files, start=1):
            try:
                count += len(read_points(path))
            except DamagedFile as error:
                bad.append(error)
            progress(done, len(files))
    if not bad:
        size = size_text(sum(path.stat().st_size for path in files))
        out.print(f"All {len(files)} files of points are whole: {count} points, {size}.")
        return 0
    table = Table("file", "what is wrong", box=None, pad_edge=False)
    for fault in bad:
        facts = [f"expected {fault.expected}"] * bool(fault.expected) + [f"found {fault.found}"] * bool(fault.found)
        words = f"{fault.what}{': ' * bool(facts)}{', '.join(facts)}"
        table.add_row(str(Path(fault.where).relative_to(root)), " ".join(words.split()))
    out.print(table, soft_wrap=False)
    out.print(f"{len(bad)} of {len(files)} files of points are damaged. Copy them again from their source.")
    return DamagedFile.exit_code


def infos_to_npz(root: Path, out: Console) -> str:
    """Convert the original's pickled infos, one file or all below a folder; returns what was done.

    All files are read, and their targets compared, before the first one is written.
    """
    sources = [root] if is_ordinary(root) else sorted(root.rglob(INFOS))
    if not sources:
        raise UsageError(root, "there are no infos to convert", expected=INFOS)
    read: dict[Path, tuple[Annotation, ...]] = {}
    with _shown(out, "infos") as progress:
        for done, source in enumerate(sources, start=1):
            read[source.with_suffix(".npz")] = read_pickled_infos(source)
            progress(done, len(sources))
    new = {target: annotations for target, annotations in read.items() if not target.exists()}
    for target, wanted in read.items():
        if target in new:
            continue
        known = read_infos(target)
        same = len(known) == len(wanted) and all(
            (a.frame, a.names) == (b.frame, b.names) and np.array_equal(a.boxes, b.boxes)
            for a, b in zip(known, wanted, strict=True)
        )
        if not same:
            raise _in_the_way(target, "the infos of the pickle beside it")
    size_bytes = sum(write_infos(target, annotations) for target, annotations in new.items())
    frames = sum(len(annotations) for annotations in new.values())
    objects = sum(len(annotation.names) for annotations in new.values() for annotation in annotations)
    note = f"; {len(read) - len(new)} were there already" if len(new) < len(read) else ""
    did = f"Converted {len(new)} of {len(read)} files of infos{note}"
    return f"{did}: {frames} frames, {objects} objects, {size_text(size_bytes)}." if new else f"{did}."


def make_database(root: Path, out: Console, *, split: str) -> str:
    """Write the list of objects for gt_sampling; returns what was done.

    With the original's `sonar_dbinfos_<split>.pkl` its list is converted and its files of objects stay; without it
    the objects are cut out of the frames of the infos.
    """
    target, old = database_file(root, split), root / f"sonar_dbinfos_{split}.pkl"
    if is_ordinary(old):
        rows = read_pickled_database(old, root)
        if not target.exists():
            write_list(root, split, rows)
        elif _listed(root, split) != {_key(row) for row in rows}:
            raise _in_the_way(target, f"the objects of {old.name}")
        did = f"{target} lists the {len(rows)} objects of {old.name}"
    else:
        rows = _cut(root, out, split=split)
        did = f"{target} lists {len(rows)} objects that were cut out into {FOLDER}/"
    counts = {name: sum(row[0] == name for row in rows) for name in sorted({row[0] for row in rows})}
    each = ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"
    return f"{did}: {each}; {size_text(sum(row[3] for row in rows) * ROW_BYTES)}."


def _cut(root: Path, out: Console, *, split: str) -> list[Row]:
    """Cut objects out of the frames, unless that was done already; refuse to replace those of someone else."""
    target = database_file(root, split)
    begun = target.with_name(f"{target.name}.partial")  # becomes the list at the end, and tells that it is not yet
    infos = root / f"sonar_infos_{split}.npz"
    if not is_ordinary(infos):
        do = f"Run `convert.py infos {root}` first, or check the data root."
        raise UsageError(infos, "there are no infos", do=do)
    if not (root / BINARY[0]).is_dir():
        raise UsageError(root / BINARY[0], "there are no binary points", do=f"Run `convert.py points {root}` first.")
    annotations = read_infos(infos)
    # Every object that the frames have, as `write_database` names them; those without points are not listed.
    expected = {
        _key((name, f"{FOLDER}/{known.frame}_{name}_{number}.bin", box, 0))
        for known in annotations
        for number, (name, box) in enumerate(zip(known.names, known.boxes, strict=True))
    }
    if target.exists():
        if not _listed(root, split) <= expected:
            raise _in_the_way(target, f"the objects of sonar_infos_{split}.npz")
        rows = _rows_of(root, split)
        files = [root / row[1] for row in rows]
        if [is_ordinary(file) and file.stat().st_size for file in files] == [row[3] * ROW_BYTES for row in rows]:
            return rows
    elif not begun.exists():
        there = sum((root / place).exists() for _, place, _ in expected)
        if there:
            raise Refused(
                root / FOLDER,
                f"the folder holds {there} objects of these frames already, and no list of them",
                expected=f"{target.name} or sonar_dbinfos_{split}.pkl beside it, or no such folder",
                do="Move the folder away to cut the objects out anew.",
            )
        write_whole(Disk(), begun, b"")
    with _shown(out, "database") as progress:
        write_database(root, annotations, split=split, progress=progress)
    return _rows_of(root, split)


def _rows_of(root: Path, split: str) -> list[Row]:
    objects = read_database(root, split=split, min_points={}).objects
    return [
        (item.name, item.path.relative_to(root).as_posix(), item.box, item.points)
        for stored in objects.values()
        for item in stored
    ]


def _key(row: Row) -> tuple[str, str, bytes]:
    return row[0], row[1], np.asarray(row[2], "<f4").tobytes()


def _listed(root: Path, split: str) -> set[tuple[str, str, bytes]]:
    return {_key(row) for row in _rows_of(root, split)}


def _in_the_way(target: Path, expected: str) -> Refused:
    do = "Move the file away to write it anew."
    return Refused(target, "the file exists and says something else", expected=expected, do=do)


def _root_of(folder: Path) -> Path:
    """The data root, also where its folder of points was named, as the original allows."""
    named = folder.resolve().name in (TEXT[0], BINARY[0]) and not (folder / TEXT[0]).is_dir()
    return folder.resolve().parent if named else folder


@contextmanager
def _shown(out: Console, title: str) -> Iterator[Progress]:
    """Progress as a bar on a terminal, and as a line for every tenth elsewhere."""
    if not out.is_terminal:
        told = 0

        def tell(done: int, total: int) -> None:
            nonlocal told
            if done * 10 // total > told:
                told = done * 10 // total
                out.print(f"{title}: {done * 100 // total} % ({done} of {total})")

        yield tell
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBar(*columns, console=out) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
