"""What a backup holds, as it was when it was read back: `unbroken/backup.json` in the mirror.

The list only saves reading: where it is missing, garbled or does not fit a file any more, the bytes themselves are
compared again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbroken.fields import Kind, anything, count, list_of, mapping, mapping_of, text, whole
from unbroken.run.layout import own
from unbroken.run.names import BACKUP_LIST
from unbroken.storage import Disk, read_json, write_json

FORMAT = 1
SCHEMA: Mapping[str, Kind] = {"format": count, "run": text, "source": text, "files": mapping_of(list_of(anything))}


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What a file looks like from outside; a save always makes a new one."""

    size_bytes: int
    changed_ns: int


@dataclass(frozen=True, kw_only=True)
class Held:
    """A file of the mirror: its digest, and what both sides looked like when that was found out."""

    sha256: str
    source: Stamp
    copy: Stamp


@dataclass(frozen=True, kw_only=True)
class BackupList:
    """Whose mirror it is (`run` is empty for a run of another program), and its files."""

    run: str
    source: str
    files: Mapping[str, Held] = field(default_factory=dict)


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of an ordinary file; None where there is none, or something else has the name."""
    try:
        facts = path.lstat()
    except OSError:
        return None
    if path.is_symlink() or not path.is_file():
        return None
    return Stamp(size_bytes=facts.st_size, changed_ns=facts.st_mtime_ns)


def read_list(mirror: Path) -> BackupList | None:
    """The list of a mirror, if there is a readable one of a known format."""
    try:
        data = mapping(SCHEMA, required=SCHEMA)(read_json(own(mirror) / BACKUP_LIST), "")
        if data["format"] != FORMAT:
            return None
        files = {name: _held(*facts) for name, facts in data["files"].items()}
        return BackupList(run=data["run"], source=data["source"], files=files)
    except (OSError, ValueError, TypeError):
        return None


def write_list(disk: Disk, mirror: Path, listed: BackupList) -> None:
    """Write the list durably."""
    files = {name: _plain(held) for name, held in sorted(listed.files.items())}
    data = {"format": FORMAT, "run": listed.run, "source": listed.source, "files": files}
    write_json(disk, own(mirror) / BACKUP_LIST, data)


def _held(sha256: Any, source: Any, copy: Any) -> Held:
    return Held(sha256=text(sha256, "files"), source=_stamp(*source), copy=_stamp(*copy))


def _stamp(size_bytes: Any, changed_ns: Any) -> Stamp:
    return Stamp(size_bytes=count(size_bytes, "files"), changed_ns=whole(changed_ns, "files"))


def _plain(held: Held) -> list[Any]:
    return [
        held.sha256,
        [held.source.size_bytes, held.source.changed_ns],
        [held.copy.size_bytes, held.copy.changed_ns],
    ]
