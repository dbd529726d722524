"""Events of a run: written once, never changed, and read in one place, where each known field is checked.

Whoever decides by events gets those alone whose fields are what they should be. Any other line is *damaged*: it counts
for nothing, for all readers alike, and is said with its number where the health of a run is asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unbroken.clock import Clock, utc_text
from unbroken.fields import (
    BadField,
    Kind,
    check,
    count,
    flag,
    list_of,
    mapping,
    mapping_of,
    maybe,
    number,
    seconds,
    some,
    text,
    whole,
)
from unbroken.ids import is_name
from unbroken.journal.file import LineFile, read_lines_backwards
from unbroken.jsonlines import finite, lines_of, parsed_json, parsed_line
from unbroken.storage import Disk, NotOrdinary, open_ordinary

Event = Mapping[str, Any]  # one whose known fields are what they should be
NO_SESSION = ""  # who wrote an event that belongs to no session: what a person did between or beside them


class Journal:
    """The open journal of one session."""

    def __init__(self, disk: Disk, path: Path, *, clock: Clock, session: str) -> None:
        self._clock, self._session = clock, session
        self._lines = LineFile(disk, path)

    def write(self, event: str, **facts: Any) -> None:
        """Record one event, durably."""
        moment = utc_text(self._clock.now(), timespec="milliseconds")
        record = {"time": moment, "session": self._session, "event": event, **facts}
        self._lines.append(finite(record), durable=True)

    @property
    def lines(self) -> LineFile:
        """The file behind it."""
        return self._lines

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


# -- reading ---------------------------------------------------------------------------------------------------------


def _session(value: Any, field: str) -> str:
    """A session's name, which names files; what a person did between sessions has none."""
    if value != NO_SESSION and not is_name(value):
        raise BadField(field, "the name of a session", value)
    return str(value)


_AT = {"step": count}
_FILE = {"file": text}
_PLACE = mapping({"size": count, "epochs": count, "used": count})
_CHANGE = mapping({"key": text, "effect": text})
_PLAN = mapping(
    {
        "verdict": text,
        "file": text,
        "step": whole,  # -1 where a file of another program does not say it
        "written_by": text,
        "position": maybe(_PLACE),
        "changes": list_of(_CHANGE),
        "accepted": list_of(text),
        "copied_from": maybe(text),
    }
)
_BEST = mapping({"metric": text, "value": number, "step": count}, required=("metric", "value", "step"))
_OF_ALL: Mapping[str, Kind] = {"time": text, "session": _session, "event": text}
KINDS: Mapping[str, Mapping[str, Kind]] = {
    "archiving": {"to": text},
    "epoch cut": {"epoch": count},
    "evaluated": {**_AT, "metrics": mapping({}), "metric": maybe(text), "best": flag},
    "failed": {**_AT, "error": text},
    "finished": {**_AT, "early": text},
    "kept a copy": {**_FILE, "to": text},
    "loaded": {"files": mapping_of(text)},
    "not finite": {**_AT, "what": text, "found": text},
    "oom": {**_AT, "before": count, "after": some, "recompute": flag},
    "pinned": {**_FILE, "note": text},
    "removed": {**_FILE, "reason": text},
    "replayed": {**_AT, "verdict": text},
    "restored": {**_FILE, "aside": text},
    "rollback": {**_AT, "samples": list_of(list_of(count))},
    "save failed": {**_AT, "error": text, "last_good_step": count, "removed": list_of(text)},
    "saved": {**_FILE, **_AT, "kind": text, "sha256": text},
    "session": {
        "plan": _PLAN,
        "command": text,
        "total": maybe(count),
        "best": maybe(_BEST),
        "until": maybe(text),
        "environment": mapping({}),
        "program": mapping({}),
    },
    "set aside": {**_FILE, "to": text, "reason": text},
    "skipped": {"epoch": count, "sample": whole, "reason": text},
    "stopped": {**_AT, "reason": text},
    "timing": {
        "total": maybe(count),
        "steps": count,
        "seconds": seconds,
        "startup_s": seconds,
        "left_s": maybe(number),
        "longest_s": mapping_of(seconds),
    },
    "unpinned": _FILE,
}
REQUIRED: Mapping[str, tuple[str, ...]] = {  # what an event is nothing without
    "finished": ("step",),
    "oom": ("step", "after"),
    "saved": ("file",),
}
_CHECKS = {event: {**_OF_ALL, **kinds} for event, kinds in KINDS.items()}


@dataclass(frozen=True, kw_only=True)
class DamagedLine:
    """A line of a journal that is no event: where, of which event as far as it says so, and what is wrong."""

    line: int
    event: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """What a journal holds: the events, oldest first, and the lines that count for nothing.

    Half of a line is what a kill leaves: it is *torn*, no event, and no damage either.
    """

    events: tuple[Event, ...] = ()
    damaged: tuple[DamagedLine, ...] = ()
    torn: tuple[int, ...] = ()  # line numbers; the last line without its end is not one of them


def read_journal(path: Path) -> Told:
    """All of a journal; nothing where there is none."""
    events, damaged, torn = list[Event](), list[DamagedLine](), list[int]()
    try:
        file = open_ordinary(path)
    except (FileNotFoundError, NotOrdinary):
        return Told()
    with file:
        for place, line in enumerate(lines_of(file), start=1):
            record = parsed_line(line)
            if record is None:
                if words := _damage(line):
                    damaged.append(DamagedLine(line=place, event="", words=words))
                elif line.endswith(b"\n"):
                    torn.append(place)
            elif words := fault_of_event(record):
                damaged.append(DamagedLine(line=place, event=str(record.get("event", ""))[:40], words=words))
            else:
                events.append(record)
    return Told(events=tuple(events), damaged=tuple(damaged), torn=tuple(torn))


def read_events(path: Path) -> tuple[Event, ...]:
    """The events of a run, oldest first; none when there is no journal."""
    return read_journal(path).events


def read_events_backwards(path: Path) -> Iterator[Event]:
    """The same, newest first, reading only as much of the end as is asked for."""
    return (record for record in read_lines_backwards(path) if not fault_of_event(record))


def fault_of_event(record: Mapping[str, Any]) -> str:
    """What keeps a record from being an event that can be believed, in words; "" where nothing does."""
    try:
        event = text(record.get("event"), "event")
        check(record, _CHECKS.get(event, _OF_ALL), required=REQUIRED.get(event, ()))
    except ValueError as error:
        return str(error)
    return ""


def _damage(line: bytes) -> str:
    """What is wrong with a line that is no record; "" for half of one, and for an empty one."""
    if not line.endswith(b"\n") or not line.strip():
        return ""
    try:
        parsed_json(line)
    except ValueError as error:
        is_half = line.startswith(b"{") and isinstance(error, json.JSONDecodeError | UnicodeDecodeError)
        twice = str(error) if "twice" in str(error) else ""
        return "" if is_half else twice or "this is no record"
    return "expected an object"
