"""`log`: bring `experiments_log.txt` up to date for all runs below a folder."""

from __future__ import annotations

from pathlib import Path

from unbroken.cli.tables import as_json_text, columns
from unbroken.clock import SystemClock
from unbroken.errors import UsageError
from unbroken.logbook.book import CONFIG, DATE, FILE_NAME, RESULT, Change
from unbroken.logbook.entries import write_log
from unbroken.logbook.file import Written
from unbroken.logbook.words import clean
from unbroken.storage import Disk

LANGUAGES = ("zh", "en")


def log_command(root: Path, *, language: str, as_json: bool) -> None:
    """Write the file, then say what was done."""
    if language not in ("", *LANGUAGES):
        raise UsageError("--lang", "this language is not spoken here", expected=" or ".join(LANGUAGES), found=language)
    if not root.is_dir():
        raise UsageError(root, "there is no such folder", expected="a folder with runs below it")
    written = write_log(Disk(), SystemClock(), root, root / FILE_NAME, language=language)
    if as_json:
        print(as_json_text(as_data(written)))
    else:
        print("\n".join(lines(written)))


def as_data(written: Written) -> dict[str, object]:
    """What was done, as data."""
    rows = [
        {"run": str(directory), "tag": change.label, "row": change.what, **_row(change)}
        for directory, change in written.changes
    ]
    return {"file": str(written.file), "language": written.language, "rows": rows, "others": written.others}


def lines(written: Written) -> list[str]:
    """The rows, and how many of each kind."""
    rows = [(change.what, change.label, *map(clean, _row(change).values())) for _, change in written.changes]
    counts = [f"{_count(written, what)} {what}" for what in ("added", "updated", "unchanged")]
    others = f"; {written.others} more of runs that are not here, kept" if written.others else ""
    table = [columns([("row", "tag", "date", "what differs", "result"), *rows]), ""] if rows else []
    file = written.file.relative_to(Path.cwd()) if written.file.is_relative_to(Path.cwd()) else written.file
    return [*table, f"{clean(file, 500)}: {', '.join(counts)}{others}"]


def _row(change: Change) -> dict[str, str]:
    return {name: change.row.get(name, "") for name in (DATE, CONFIG, RESULT)}


def _count(written: Written, what: str) -> int:
    return sum(change.what == what for _, change in written.changes)
