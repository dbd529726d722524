"""`log`: bring `experiments_log.txt` up to date for all runs below a folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from unbroken.cli.args import CommandParser, add_json, add_language, require_language
from unbroken.cli.tables import as_json_text, columns
from unbroken.clock import SystemClock
from unbroken.errors import UsageError
from unbroken.logbook.entry import write_log
from unbroken.logbook.render import clean
from unbroken.logbook.table import CONFIG, DATE, FILE_NAME, RESULT, RowChange
from unbroken.storage import Disk

LANGUAGES = ("zh", "en")


def log_options(parser: CommandParser) -> None:
    """A folder, and the language of the file."""
    parser.add_argument(
        "root", type=Path, nargs="?", default=Path(), metavar="ROOT", help="a folder (default: this one)"
    )
    add_language(parser, "the language of the file (default: the file's own)")
    add_json(parser)
    parser.add_examples("unbroken log work_dirs")


def log_command(options: argparse.Namespace) -> None:
    """Bring ROOT/experiments_log.txt up to date: date, tag, what differs from the baseline, result; a row for each run.

    Every session does this for its own run. Whatever a person wrote into the file stays, in rows and between them.
    """
    root, language = options.root, options.language
    require_language(language, LANGUAGES)
    if not root.is_dir():
        raise UsageError(root, "there is no such folder", expected="a folder with runs below it")
    written = write_log(Disk(), SystemClock(), root, root / FILE_NAME, language=language)
    if options.as_json:
        found = [
            {"run": str(directory), "tag": change.label, "row": change.what, **_row(change)}
            for directory, change in written.changes
        ]
        data = {"file": str(written.file), "language": written.language, "rows": found, "others": written.others}
        print(as_json_text(data))
        return
    rows = [(change.what, change.label, *map(clean, _row(change).values())) for _, change in written.changes]
    if rows:
        print(columns([("row", "tag", "date", "what differs", "result"), *rows]) + "\n")
    counts = (
        f"{sum(change.what == what for _, change in written.changes)} {what}"
        for what in ("added", "updated", "unchanged")
    )
    others = f"; {written.others} more of runs that are not here, kept" if written.others else ""
    file = written.file.relative_to(Path.cwd()) if written.file.is_relative_to(Path.cwd()) else written.file
    print(f"{clean(file, 500)}: {', '.join(counts)}{others}")


def _row(change: RowChange) -> dict[str, str]:
    return {name: change.row.get(name, "") for name in (DATE, CONFIG, RESULT)}
