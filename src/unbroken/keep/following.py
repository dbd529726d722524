"""How a backup follows what became of files at its source: pure decisions from the source's journal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbroken.checkpoint.retention import NEVER_FEWER_THAN
from unbroken.ids import why_unsafe
from unbroken.journal import NO_SESSION
from unbroken.jsonlines import parsed_line
from unbroken.run.layout import ARCHIVE_FOLDER
from unbroken.storage import read_whole

MOST_JOURNAL_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Mirrored:
    """A checkpoint or a weights file in the mirror; `verified` since it was last written."""

    name: str
    kind: str
    step: int
    metric: str
    sha256: str
    verified: bool


def removed_saves(events: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The names of the files that retention removed and nothing was saved under since, each with its digest."""
    saved: dict[str, str] = {}
    removed: dict[str, str] = {}
    for event in events:
        name = str(event.get("file"))
        match event.get("event"):
            case "saved":
                saved[name] = str(event.get("sha256"))
                removed.pop(name, None)
            case "removed" if name in saved:
                removed[name] = saved[name]
    return removed


def leaving(
    mirrored: Sequence[Mirrored], *, at_source: Collection[str], removed: Mapping[str, str]
) -> tuple[Mirrored, ...]:
    """What may leave the mirror, the oldest first: what retention removed at the source, with two newer verified here.

    Of weights, one newer verified file by their metric is enough, and two verified states. What is gone at the source
    without a word in its journal was removed by hand and stays.
    """
    going = [item for item in mirrored if item.name not in at_source and removed.get(item.name) == item.sha256]
    return tuple(item for item in sorted(going, key=lambda item: item.step) if _is_replaced(item, mirrored))


def _is_replaced(item: Mirrored, mirrored: Sequence[Mirrored]) -> bool:
    states = [other for other in mirrored if other.verified and other.kind == "checkpoint"]
    if item.kind == "checkpoint":
        return sum(other.step > item.step for other in states) >= NEVER_FEWER_THAN
    better = [other for other in mirrored if other.kind == item.kind and other.metric == item.metric]
    newer = any(other.verified and other.step > item.step for other in better)
    return newer and len(states) >= NEVER_FEWER_THAN


def set_aside(events: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """The files that launches moved into the archive, each with its new path below the run's folder, oldest first."""
    found = []
    for event in events:
        name, to = str(event.get("file")), str(event.get("to")).replace("\\", "/")
        inside = to.startswith(f"{ARCHIVE_FOLDER}/") and not why_unsafe(f"{to}/{name}") and "/" not in name
        if event.get("event") == "set aside" and inside:
            found.append((name, f"{to}/{name}"))
    return found


@dataclass(frozen=True, kw_only=True)
class Parting:
    """Two records of one run: whether the one is the beginning of the other, and what only one of them knows."""

    is_beginning: bool
    only_here: Collection[str]  # sessions with lines that the other one has not; "" if those are of none
    only_there: Collection[str]


def parting(here: Path, there: Path) -> Parting:
    """Compare two journals; one that is missing is the beginning of any."""
    mine, other = _content(here), _content(there)
    lines, others = mine.splitlines(keepends=True), other.splitlines(keepends=True)
    return Parting(
        is_beginning=other.startswith(mine),
        only_here=_sessions(set(lines) - set(others)),
        only_there=_sessions(set(others) - set(lines)),
    )


def _sessions(lines: Iterable[bytes]) -> set[str]:
    found = set()
    for line in lines:
        if (record := parsed_line(line)) is not None:
            session = record.get("session")
            found.add(session if isinstance(session, str) else NO_SESSION)
    return found


def _content(path: Path) -> bytes:
    try:
        return read_whole(path, most_bytes=MOST_JOURNAL_BYTES)
    except FileNotFoundError:
        return b""
