"""Files that a person wants kept whatever the policy says: `unbroken/pins.json`, read anew at every retention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unbroken.clock import Clock, utc_text
from unbroken.errors import DamagedFile, UsageError
from unbroken.fields import BadField
from unbroken.journal import NO_SESSION, Journal
from unbroken.run.bounds import require_inside
from unbroken.run.layout import own
from unbroken.run.record import layout_of
from unbroken.storage import Disk, durable_folder, explained, is_ordinary, read_json, write_json
from unbroken.storage.records import Reading, reading
from unbroken.storage.turn import turn_at

PINS = "pins.json"  # in the run's own folder
PATIENCE_S = 20.0  # another process changes the pins in milliseconds


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A file that stays, since when and why."""

    note: str = ""
    time: str = ""


def read_pins(run: Path) -> dict[str, Pin]:
    """What is pinned in a run, by file name; DamagedFile where that cannot be known, so that nothing goes meanwhile."""
    return require_pins(own(run) / PINS, reading(lambda: load_pins(run)))


def require_pins(file: Path, found: Reading[dict[str, Pin]]) -> dict[str, Pin]:
    """The same, of pins that were read."""
    if found.error is None or isinstance(found.error, FileNotFoundError):
        return found.value or {}
    raise DamagedFile(
        file,
        "what is pinned cannot be read, so nothing is removed",
        expected="an object of file names",
        found=found.error,
        do="Correct the file, or remove it and pin anew.",
    ) from None


def load_pins(run: Path) -> dict[str, Pin]:
    """The same; OSError where it is not there or cannot be read, ValueError where it is damaged."""
    data = read_json(own(run) / PINS)
    if not isinstance(data, Mapping):
        raise BadField("", "an object of file names", data)
    return {name: _pin(value) for name, value in data.items()}


def pin(run: Path, names: Mapping[str, str], *, disk: Disk, clock: Clock) -> None:
    """Pin files, each with a note; a note that was there stays where the new one is empty.

    Raises UsageError where one of them is not there (any more), and then pins none.
    """
    now = utc_text(clock.now())
    events = [{"event": "pinned", "file": name, "note": note} for name, note in names.items()]
    with _open(run, events, disk, clock) as pins:
        require_there(run, names)
        for name, note in names.items():
            pins[name] = Pin(note=note or pins.get(name, Pin()).note, time=now)


def require_there(run: Path, names: Iterable[str]) -> None:
    """Raise UsageError for files that are gone: retention of a live training may have been at work this moment."""
    folder = layout_of(run).checkpoints(run)
    if gone := [name for name in names if not is_ordinary(folder / name)]:
        raise UsageError(folder, f"{', '.join(gone)} was removed or moved away just before it was pinned")


def unpin(run: Path, names: list[str], *, disk: Disk, clock: Clock) -> None:
    """Let the policy decide about these files again."""
    with _open(run, [{"event": "unpinned", "file": name} for name in names], disk, clock) as pins:
        for name in names:
            pins.pop(name, None)


@contextmanager
def _open(run: Path, events: list[dict[str, str]], disk: Disk, clock: Clock) -> Iterator[dict[str, Pin]]:
    """The pins to change, while no other process changes them or moves the history that they are of.

    What they are then is written durably, and `events` into the journal.
    """
    require_inside(run)
    with explained(disk, own(run), "the pins could not be written"):
        durable_folder(disk, own(run))
        with turn_at(own(run) / PINS, clock, wait_s=PATIENCE_S):
            pins = read_pins(run)
            yield pins
            write_json(disk, own(run) / PINS, {name: asdict(pin) for name, pin in sorted(pins.items())})
            _record(run, events, disk, clock)


def _record(run: Path, events: list[dict[str, str]], disk: Disk, clock: Clock) -> None:
    journal = Journal(disk, own(run) / "journal.jsonl", clock=clock, session=NO_SESSION)
    for facts in events:
        journal.write(**facts)
    journal.close()


def _pin(value: Any) -> Pin:
    """A pin as it was written; what somebody edited into it by hand is still a pin."""
    facts = value if isinstance(value, Mapping) else {}
    return Pin(note=str(facts.get("note", "")), time=str(facts.get("time", "")))
