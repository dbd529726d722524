"""The scalars of all sessions as one curve: what was lost in a kill and is done again stands in it once."""

from __future__ import annotations

from pathlib import Path

from unbroken.fields import count_of
from unbroken.jsonlines import lines_of, parsed_line
from unbroken.storage import Disk, open_ordinary, write_whole


def rewind(disk: Disk, path: Path, *, step: int) -> None:
    """Drop the lines of a scalars file that are later than `step`: these steps are done again from here."""
    try:
        with open_ordinary(path) as file:
            lines = list(lines_of(file))
    except FileNotFoundError:
        return
    kept = [line for line in lines if line.endswith(b"\n") and _step(line) <= step]
    if kept != lines:
        write_whole(disk, path, b"".join(kept))


def _step(line: bytes) -> int:
    """The step of a line; one that says none stays, whatever it is."""
    record = parsed_line(line)
    return (count_of(record.get("step")) or 0) if record is not None else 0
