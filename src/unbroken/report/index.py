"""A derived table of runs, so that ten thousand of them list at once: everything in it stands in the runs' own files.

It may be deleted at any time. Where it cannot be used (damaged, written by another version, on a read-only or full
disk, held by another process for too long) the runs are read as if it were not there; that is never an error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from unbroken.report.rows import TYPES, Row
from unbroken.storage import Disk

VERSION = 1  # in the file's name: versions do not quarrel over one file
PATIENCE_S = 2.0  # for another process that writes; what it writes are milliseconds
LARGE = 1 << 20
NOT_OURS = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT}
COLUMNS = ", ".join(Row._fields)
SCHEMA = (
    f"CREATE TABLE IF NOT EXISTS runs ({COLUMNS}, PRIMARY KEY (folder)) WITHOUT ROWID",
    "CREATE TABLE IF NOT EXISTS configs (folder, signature, config, PRIMARY KEY (folder)) WITHOUT ROWID",
)


class RunIndex:
    """The table in a cache folder; without a folder it is empty and stays so."""

    def __init__(self, cache: Path | None, disk: Disk) -> None:
        self._path = cache / f"runs-{VERSION}.sqlite" if cache is not None else None
        self._disk = disk

    def rows(self, root: str) -> dict[str, Row]:
        """The rows of a folder and all below it, by folder."""
        found = list(map(Row._make, self._read(f"SELECT {COLUMNS} FROM runs", root)))
        columns = list(zip(*found))
        if not all(set(map(type, column)) <= allowed for column, allowed in zip(columns, TYPES)):
            self._remove()
            return {}
        return dict(zip(columns[0], found)) if found else {}

    def configs(self, root: str) -> dict[str, tuple[int, str]]:
        """Signature and config, as JSON text, by folder."""
        found = self._read("SELECT folder, signature, config FROM configs", root)
        return {row[0]: (row[1], row[2]) for row in found if tuple(map(type, row)) == (str, int, str)}

    def replace(self, rows: Iterable[Row], *, gone: Iterable[str] = ()) -> None:
        """Put rows in place of what there was, and forget the folders that are gone."""
        self._write(
            f"REPLACE INTO runs VALUES ({', '.join('?' * len(Row._fields))})",
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
