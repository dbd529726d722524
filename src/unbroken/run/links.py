"""Links in a run's folder: which of them the run's files are looked for behind, and where one leads to nothing.

Whoever runs out of room moves checkpoints to another disk and leaves a link. Such a link is followed, and everybody
follows the same ones: a launch, a listing, a pack, a backup. A link that leads to another run, or to a folder that the
run itself lies in, is never followed; nor is one beside a file that it only gives a second name to (`latest.pth`).
"""

from __future__ import annotations

import os
from pathlib import Path

from unbroken.errors import UsageError
from unbroken.run.layout import LAYOUTS, OWN_FOLDER, Layout
from unbroken.run.names import ARCHIVE_FOLDER
from unbroken.storage import read_json

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
    if name in POINTERS or not os.path.isfile(path):  # noqa: PTH113
        return False
    beside = os.path.realpath(os.path.dirname(os.path.join(folder, os.readlink(path))))  # noqa: PTH115, PTH118, PTH120
    return beside != folder and not why_not_followed(path, run)


def checkpoint_files(folder: Path, run: Path) -> list[Path]:
    """The `.pth` files in a run's folder of checkpoints, and the links that stand for one elsewhere."""
    found = sorted(folder.glob("*.pth"))
    return [
        path
        for path in found
        if (is_checkpoint_elsewhere(str(path), str(run)) if path.is_symlink() else path.is_file())
    ]


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
