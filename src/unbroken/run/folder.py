"""A run's folder: which of its links are followed, what lies in it by name and size, and where a command may write.

Whoever runs out of room moves checkpoints to another disk and leaves a link. Such a link is followed, and everybody
follows the same ones: a launch, a listing, a pack, a backup. A link that leads to another run, or to a folder that the
run itself lies in, is never followed; nor is one beside a file that it only gives a second name to (`latest.pth`).

What a command writes of a run stays inside its folder, also where the folder is a copy that a stranger made. A folder
of checkpoints may be a link; another folder of the run may be one only where it leads to what the run kept there
before it was moved; nothing is written into any other folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath

from unbroken.checkpoint.sharded import is_cut_off, is_sharded
from unbroken.errors import DamagedFile, UsageError
from unbroken.run.layout import ARCHIVE_FOLDER, LAYOUTS, OWN_FOLDER, SUFFIXES, Layout
from unbroken.storage import PARTIAL_SUFFIX, read_json

MANIFESTS = f"{OWN_FOLDER}/manifests"
RECORDS = (OWN_FOLDER, MANIFESTS, f"{OWN_FOLDER}/configs")
CURVES = {name.split("/")[0] for layout in LAYOUTS for name in (layout.curves, layout.evaluation_curves) if name}
FOLDERS = {*RECORDS, ARCHIVE_FOLDER, *CURVES}  # followed where they are links, as the folder of the checkpoints is
POINTERS = {layout.pointer for layout in LAYOUTS if layout.pointer}


def why_not_followed(path: str, run: str) -> str:
    """Why a link below a run's folder is not followed, as the end of a sentence; "" where it is."""
    target, home = os.path.realpath(path), os.path.realpath(run)
    if not os.path.exists(target):  # noqa: PTH110 - `ls` comes here for each link of 10,000 runs
        return "is not there"
    if _is_in(home, target):
        return "is a folder that this run itself lies in"
    return "is of another run" if not _is_in(target, home) and _is_of_another_run(target, home) else ""


def is_checkpoint_elsewhere(path: str, run: str) -> bool:
    """Whether a link in the folder of the checkpoints stands for a file that was moved to another place."""
    name, folder = os.path.basename(path), os.path.realpath(os.path.dirname(path))  # noqa: PTH119, PTH120
    if name in POINTERS or not (os.path.isfile(path) or is_sharded(Path(path))):  # noqa: PTH113
        return False
    beside = os.path.realpath(os.path.dirname(os.path.join(folder, os.readlink(path))))  # noqa: PTH115, PTH118, PTH120
    return beside != folder and not why_not_followed(path, run)


def checkpoint_files(folder: Path, run: Path) -> list[Path]:
    """The `.pth` files and the folders of shards in a run's folder of checkpoints, and the links that stand for one."""
    return [
        path
        for path in sorted(path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}"))
        if (is_checkpoint_elsewhere(str(path), str(run)) if path.is_symlink() else path.is_file() or is_sharded(path))
    ]


def cut_off_saves(folder: Path) -> list[Path]:
    """What saves left that were cut off: files that have no name yet, and folders of shards without a head."""
    folders = [path for path in folder.glob(f"*{SUFFIXES[1]}") if is_cut_off(path)]
    return sorted([*folder.glob(f"*.pth{PARTIAL_SUFFIX}"), *folders])


def unreachable(run: Path, layout: Layout) -> str:
    """Which folder of a run cannot be looked into and why, as a sentence; "" where each can, or was never made."""
    parts = ((OWN_FOLDER, "records"), (MANIFESTS, "manifests"), (layout.checkpoint_folder, "checkpoint folder"))
    for above in (run, *run.parents):
        if above.is_symlink() and not above.exists():
            return _sentence("the run's folder", above, "is not there", name=str(above))
    for part, what in parts:
        path = run / part
        if why := _trouble(path, run):
            return _sentence(what, path, why, name=part or run.name)
    return ""


def _trouble(path: Path, run: Path) -> str:
    try:
        os.scandir(path).close()
    except FileNotFoundError:
        return "is not there" if path.is_symlink() else ""
    except ValueError as error:  # a NUL, out of a config or a script
        raise UsageError(ascii(str(run)), f"no folder can have this name ({error})", do="Name another.") from None
    except NotADirectoryError:
        return "is no folder" if path.is_symlink() or path.exists() else ""
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    return why_not_followed(str(path), str(run)) if path.is_symlink() and path != run else ""


def _sentence(what: str, path: Path, why: str, *, name: str) -> str:
    leads = f"{name} -> {path.readlink()}" if path.is_symlink() else name
    return f"{what} not reachable: {leads} {why}"


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _is_of_another_run(target: str, home: str) -> bool:
    """Whether a folder above the target holds the record of a run with another id."""
    above = Path(target)
    for folder in (above, *above.parents):
        record = folder / OWN_FOLDER / "run.json"
        if not _is_in(home, str(folder)) and record.is_file():
            return _id_in(record) != _id_in(Path(home) / OWN_FOLDER / "run.json")
    return False


def _id_in(record: Path) -> object:
    try:
        found = read_json(record)
    except (OSError, ValueError):
        return None
    return found.get("id") if isinstance(found, dict) else None


# -- what lies in it ---------------------------------------------------------------------------------------------------


def entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in a folder; nothing where it cannot be read."""
    try:
        with os.scandir(folder) as found:
            yield from found
    except OSError:
        return


def walk(run: str, parts: Collection[str], links: list[str] | None = None) -> Iterator[tuple[str, str, os.stat_result]]:
    """Folder (below the run's, with `/`), name and facts of each file of a run, also behind links that are followed.

    `parts` are the folders in which checkpoints may lie. The names of links that are not followed go to `links`.
    """
    waiting, left_out, behind = [""], [] if links is None else links, set[str]()
    while waiting:
        folder = waiting.pop()
        try:
            found = list(os.scandir(f"{run}/{folder}"))
        except OSError:
            continue
        for entry in found:
            name = f"{folder}/{entry.name}" if folder else entry.name
            try:
                if entry.is_symlink():
                    if not _is_followed(run, parts, folder, entry):
                        left_out.append(name)
                        continue
                    behind.add(os.path.realpath(entry.path))
                if entry.is_dir():
                    waiting.append(name)
                elif entry.is_file():
                    yield folder, entry.name, entry.stat()
            except OSError:  # retention of a live process
                continue
        if behind:  # a folder of this run that one of its links leads to is not walked a second time
            home = os.path.realpath(run)
            waiting = [name for name in waiting if f"{home}/{name}" not in behind]


def _is_followed(run: str, parts: Collection[str], folder: str, entry: os.DirEntry[str]) -> bool:
    if folder in parts and entry.name.endswith(SUFFIXES):
        return is_checkpoint_elsewhere(entry.path, run)
    if entry.is_dir():
        name = f"{folder}/{entry.name}" if folder else entry.name
        return (name in FOLDERS or name in parts) and not why_not_followed(entry.path, run)
    is_record = folder in RECORDS and entry.name.endswith((".json", ".jsonl"))
    return is_record and entry.is_file() and not why_not_followed(entry.path, run)


# -- where a command may write -----------------------------------------------------------------------------------------


SESSION_NAMES = r"[0-9]{8}_[0-9]{6}(?:_[0-9]+)?"
RECORD_NAMES = r".*\.(?:json|jsonl|partial)|lock|configs|manifests"


def require_inside(run: Path, layout: Layout | None = None) -> None:
    """Raise DamagedFile where a folder that a command may write into leads out of the run's own."""
    for name, kept in _folders(layout):
        path = run / name
        if is_inside(path, run):
            continue
        found = [entry.name for entry in entries(str(path))]
        if not found or not all(re.fullmatch(kept, entry) for entry in found):
            raise DamagedFile(
                path,
                "this folder is a link that leads out of the run, and nothing is written through it",
                expected="a folder in the run, or a link to what the run kept there before",
                found=os.path.realpath(path),
                do="Put a folder in its place, or remove the link.",
            )


def _folders(layout: Layout | None) -> Iterator[tuple[str, str]]:
    """The folders that a command may write into, each with the names that it has there."""
    yield from (
        (OWN_FOLDER, RECORD_NAMES),
        (f"{OWN_FOLDER}/manifests", RECORD_NAMES),
        (f"{OWN_FOLDER}/configs", RECORD_NAMES),
    )
    yield ARCHIVE_FOLDER, SESSION_NAMES
    if layout is not None:
        yield from ((name, r"events\.out\.tfevents\..*") for name in (layout.curves, layout.evaluation_curves) if name)
        yield layout.predictions, r"[0-9]+"
        if (beside := PurePosixPath(layout.run_scalars).parent.as_posix()) != ".":
            yield beside, r"scalars\.json.*|config\.py"


def is_inside(path: Path, run: Path) -> bool:
    """Whether a path lies in a folder or is it, all links followed."""
    return _is_in(os.path.realpath(path), os.path.realpath(run))  # Path.resolve would complain of a loop of links
