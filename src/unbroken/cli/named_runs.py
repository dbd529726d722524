"""Runs as people name them: by their folder, or by the tag of a run below the current folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unbroken.errors import UsageError
from unbroken.text import ESCAPED

LISTED = 8  # runs named in an error
Tagged = tuple[str, Path]


def run_named(word: Path) -> Path:
    """The folder of the run that is meant, where a word is no path but the tag of one run; else the word itself."""
    if len(word.parts) != 1 or word.suffix in (".pth", ".zip") or _is_there(word):
        return word
    return the_one(str(word), runs_below(Path())) or word


def runs_named(words: Sequence[Path]) -> list[Path]:
    """The same for several."""
    return [run_named(word) for word in words]


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
    from unbroken.run import read_record
    from unbroken.run.finding import find_runs

    found: list[Tagged] = []
    for folder in find_runs(root):
        record = read_record(folder)
        names = {folder.name} if record is None or record.tag == folder.name else {folder.name, record.tag}
        found += [(str(name), folder) for name in sorted(map(str, names))]
    owners = {name for name, folder in found if folder.name == name}
    return [(name, folder) for name, folder in found if folder.name == name or name not in owners]


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name that no file can have: what is done with it says so
        return True
