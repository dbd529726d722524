"""Runs as people name them: by their folder, or by the tag of a run below the current folder."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from unbroken.config import nearest
from unbroken.errors import UsageError
from unbroken.option_parser import OptionParser
from unbroken.run import layout_seen, read_record
from unbroken.run.layout import SUFFIXES, has_checkpoints, manifests, own
from unbroken.run.locate import find_runs
from unbroken.storage import require_local
from unbroken.text import ESCAPED

LISTED = 8  # runs named in an error
A_RUN = "a run's folder, or the tag of a run below the current folder"
Tagged = tuple[str, Path]


def add_run(parser: OptionParser) -> None:
    """Let a command be about one run."""
    parser.add_argument("run", type=run_named, metavar="RUN", help=A_RUN)


def add_runs(parser: OptionParser, name: str, help: str) -> None:
    """Let a command be about one run or more."""
    parser.add_argument(name.lower(), type=run_named, nargs="+", metavar=f"{name}...", help=help)


def run_named(word: str) -> Path:
    """The folder of the run that is meant, where a word is no path but the tag of one run; else the word itself."""
    path = Path(word)
    try:
        is_there = path.exists()
    except (OSError, ValueError):  # a name that no file can have: what is done with it says so
        is_there = True
    if len(path.parts) != 1 or path.suffix in (".pth", ".dcp", ".zip") or is_there:
        return path
    return the_one(str(path), runs_below(Path())) or path


def the_one(word: str, below: Sequence[Tagged]) -> Path | None:
    """The run with this tag; None where there is none, UsageError where there are several."""
    named = list(dict.fromkeys(folder for name, folder in below if name == word))
    if len(named) > 1:
        listed = ", ".join(map(str, named[:LISTED]))
        shown = word.encode("utf-8", ESCAPED).decode()
        raise UsageError(shown, "several runs have this tag", found=listed, do="Name one by its folder.")
    return named[0] if named else None


def runs_below(root: Path) -> list[Tagged]:
    """Every run by its tag, and by its folder's name: a copy has the tag of what it is a copy of."""
    found: list[Tagged] = []
    for folder in find_runs(root):
        record = read_record(folder)
        names = {folder.name} if record is None or record.tag == folder.name else {folder.name, record.tag}
        found += [(str(name), folder) for name in sorted(map(str, names))]
    owners = {name for name, folder in found if folder.name == name}
    return [(name, folder) for name, folder in found if folder.name == name or name not in owners]


def require_there(path: Path) -> None:
    """Raise UsageError for a path that leads to nothing, with what is near it."""
    if path.exists():
        return
    require_local(path)
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    names = sorted(item.name for item in folder.iterdir())
    near = get_close_matches(path.name, names, n=3, cutoff=0.5) or [name for name in names if name.endswith(SUFFIXES)]
    there = ", ".join(near[:5]) or "nothing like it"
    tag = nearest(path.name, [name for name, _ in runs_below(Path())]) if len(path.parts) == 1 else ""
    do = f"Did you mean the run {tag}?" if tag else ""
    raise UsageError(path, "there is no such file or folder", found=f"in {folder.absolute()}: {there}", do=do)


def run_folder(path: Path) -> Path:
    """The folder itself if a run is in it; else an error that names the runs near it."""
    require_there(path)
    if own(path).is_dir() or (path.is_dir() and has_checkpoints(layout_seen(path)[0].checkpoints(path))):
        return path
    around = path if path.is_dir() else path.parent
    near = [str(folder) for folder in find_runs(around)][:5] if around.is_dir() else []
    raise UsageError(
        path,
        "this is not a run",
        expected="a folder with unbroken/ or with .pth files in it",
        found=f"runs near it: {', '.join(near)}" if near else "none, and no run below it",
        do=f"For a file: unbroken inspect {path}" if path.is_file() else "See `unbroken ls ROOT`.",
    )


def manifests_for(file: Path) -> Path:
    """The folder that may list a file, where it lies or where it is linked from."""
    folders = [file.absolute().parent, file.resolve().parent]  # a link to another disk is listed where it lies
    runs = [run for folder in folders for run in (folder, folder.parent) if own(run).is_dir()]
    return manifests(next(iter(runs), folders[-1]))
