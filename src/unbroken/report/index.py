"""A derived table of runs, so that ten thousand of them list at once: everything in it stands in the runs' own files.

It may be deleted at any time. Where it cannot be used (damaged, written by another version, on a read-only or full
disk, held by another process for too long) the runs are read as if it were not there; that is never an error.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unbroken.fields import numbers_of
from unbroken.jsonlines import parsed_json
from unbroken.storage import Disk

if TYPE_CHECKING:
    from unbroken.run.summary import Summary


class IndexRow(NamedTuple):
    """One run. `signature` says which state of its files this tells of; 0: look again the next time."""

    folder: str  # absolute
    signature: int
    part: str  # of the folder, that the checkpoints lie in
    label: str
    id: str
    tag: str
    recipe: str
    status: str
    step: int
    total: int | None
    best_metric: str | None
    best_value: float | None  # None for one that is not a number: the table has none either
    best_step: int | None
    last: str  # JSON
    last_step: int | None
    began: str
    last_seen: str
    sessions: int
    trained_s: float | None
    size_bytes: int
    parent: str  # JSON

    @property
    def parent_facts(self) -> Mapping[str, Any] | None:
        """Where the run began from, if it did not begin from nothing."""
        return _mapping(self.parent) if self.parent else None

    @property
    def metrics(self) -> Mapping[str, float]:
        """The newest evaluation."""
        return numbers_of(_mapping(self.last)) if self.last else {}

    @property
    def best(self) -> float | None:
        """The best score, which may be NaN; None if there is none."""
        return math.nan if self.best_value is None and self.best_metric is not None else self.best_value


def _mapping(cell: str) -> Mapping[str, Any]:
    """What a cell of the table holds; nothing where it was damaged, as all of the table may be."""
    try:
        found = parsed_json(cell.encode())
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


TEXT: set[type] = {str}
WHOLE: set[type] = {int}
NUMBER: set[type] = {int, float}
MAYBE: set[type] = {type(None)}
TYPES: tuple[set[type], ...] = (
    TEXT,
    WHOLE,
    *(TEXT,) * 6,
    WHOLE,
    WHOLE | MAYBE,
    TEXT | MAYBE,
    NUMBER | MAYBE,
    WHOLE | MAYBE,
    TEXT,
    WHOLE | MAYBE,
    TEXT,
    TEXT,
    WHOLE,
    NUMBER | MAYBE,
    WHOLE,
    TEXT,
)


def row_of(summary: Summary, *, folder: str, signature: int, part: str) -> IndexRow:
    """A run's row."""
    best = summary.best
    return IndexRow(
        folder=folder,
        signature=signature,
        part=part,
        label=summary.label,
        id=summary.id,
        tag=summary.tag,
        recipe=summary.recipe,
        status=summary.status,
        step=summary.step,
        total=summary.total,
        best_metric=best.metric if best else None,
        best_value=None if best is None or math.isnan(best.value) else best.value,
        best_step=best.step if best else None,
        last=json.dumps(dict(summary.last)) if summary.last else "",
        last_step=summary.last_step,
        began=summary.began,
        last_seen=summary.last_seen,
        sessions=summary.sessions,
        trained_s=summary.trained_s,
        size_bytes=summary.size_bytes,
        parent=json.dumps(summary.parent) if summary.parent else "",
    )


# -- the table ---------------------------------------------------------------------------------------------------------


VERSION = 1  # in the file's name: versions do not quarrel over one file
PATIENCE_S = 2.0  # for another process that writes; what it writes are milliseconds
NOT_OURS = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT}
COLUMNS = ", ".join(IndexRow._fields)
SCHEMA = (
    f"CREATE TABLE IF NOT EXISTS runs ({COLUMNS}, PRIMARY KEY (folder)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS configs (folder, signature, config, PRIMARY KEY (folder)) WITHOUT ROWID",
)


class RunIndex:
    """The table in a cache folder; without a folder it is empty and stays so."""

    def __init__(self, cache: Path | None, disk: Disk) -> None:
        self._path = cache / f"runs-{VERSION}.sqlite" if cache is not None else None
        self._disk = disk

    def rows(self, root: str) -> dict[str, IndexRow]:
        """The rows of a folder and all below it, by folder."""
        found = list(map(IndexRow._make, self._read(f"SELECT {COLUMNS} FROM runs", root)))
        columns = list(zip(*found))
        if not all(set(map(type, column)) <= allowed for column, allowed in zip(columns, TYPES)):
            self._remove()
            return {}
        return dict(zip(columns[0], found)) if found else {}

    def configs(self, root: str) -> dict[str, tuple[int, str]]:
        """Signature and config, as JSON text, by folder."""
        found = self._read("SELECT folder, signature, config FROM configs", root)
        return {row[0]: (row[1], row[2]) for row in found if tuple(map(type, row)) == (str, int, str)}

    def replace(self, rows: Iterable[IndexRow], *, gone: Iterable[str] = ()) -> None:
        """Put rows in place of what there was, and forget the folders that are gone."""
        self._write(
            f"REPLACE INTO runs VALUES ({', '.join('?' * len(IndexRow._fields))})",
            [row for row in rows if _fits(row)],
            [(folder,) for folder in gone if _fits((folder,))],
        )

    def replace_configs(self, configs: Mapping[str, tuple[int, str]]) -> None:
        """Put configs in place of what there was: by folder, signature and JSON text."""
        rows = [(folder, *found) for folder, found in configs.items()]
        self._write("REPLACE INTO configs VALUES (?, ?, ?)", [row for row in rows if _fits(row)], [])

    def _read(self, select: str, root: str) -> list[tuple[Any, ...]]:
        below = root.rstrip("/\\") + root[-1:] if root[-1:] in ("/", "\\") else f"{root}{_separator(root)}"
        first, after = below, below[:-1] + chr(ord(below[-1]) + 1)
        try:
            with closing(self._connected(writing=False)) as connection:
                query = f"{select} WHERE folder = ? OR (folder >= ? AND folder < ?)"
                return connection.execute(query, (root, first, after)).fetchall()
        except (sqlite3.Error, OSError, ValueError) as error:  # ValueError: a name that is not Unicode
            self._remove_if_damaged(error)
            return []

    def _write(self, statement: str, rows: Sequence[Sequence[object]], gone: Sequence[tuple[str]]) -> None:
        if not rows and not gone:
            return
        try:
            with closing(self._connected(writing=True)) as connection:
                connection.execute("BEGIN IMMEDIATE")
                for line in SCHEMA:
                    connection.execute(line)
                connection.executemany(statement, rows)
                for table in ("runs", "configs"):
                    connection.executemany(f"DELETE FROM {table} WHERE folder = ?", gone)
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError, ValueError, OverflowError) as error:
            self._remove_if_damaged(error)

    def _connected(self, *, writing: bool) -> sqlite3.Connection:
        if self._path is None:
            raise FileNotFoundError
        if writing:
            self._disk.make_folder(self._path.parent)
        elif not self._path.is_file():
            raise FileNotFoundError
        connection = sqlite3.connect(self._path, timeout=PATIENCE_S, isolation_level=None)
        connection.execute("PRAGMA synchronous = OFF")  # what a power cut spoils here is made again
        return connection

    def _remove_if_damaged(self, error: Exception) -> None:
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in NOT_OURS:
            self._remove()

    def _remove(self) -> None:
        if self._path is None:
            return
        for path in (self._path, self._path.with_name(f"{self._path.name}-journal")):
            with suppress(OSError):
                self._disk.remove(path)


def _separator(root: str) -> str:
    return "\\" if "\\" in root and "/" not in root else "/"


def _fits(row: Sequence[object]) -> bool:
    """Whether the table can hold it: a name that is not Unicode stays outside."""
    try:
        "".join(cell for cell in row if isinstance(cell, str)).encode()
    except UnicodeEncodeError:
        return False
    return True
