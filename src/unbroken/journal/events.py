"""Events of a run: written once, never changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unbroken.journal.lines import LineFile, finite, read_lines
from unbroken.storage import Disk
from unbroken.values import Clock

NO_SESSION = ""  # who wrote an event that belongs to no session: what a person did between or beside them


class Journal:
    """The open journal of one session."""

    def __init__(self, disk: Disk, path: Path, *, clock: Clock, session: str) -> None:
        self._clock, self._session = clock, session
        self._lines = LineFile(disk, path)

    def write(self, event: str, **facts: Any) -> None:
        """Record one event, durably."""
        moment = self._clock.now().isoformat(timespec="milliseconds")
        record = {"time": moment, "session": self._session, "event": event, **facts}
        self._lines.append(finite(record), durable=True)

    @property
    def lines(self) -> LineFile:
        """The file behind it."""
        return self._lines

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def read_events(path: Path) -> list[dict[str, Any]]:
    """All events of a run, oldest first; an empty list when there is no journal."""
    return list(read_lines(path))
