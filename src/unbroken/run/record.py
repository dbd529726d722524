"""The small records of a run that are one JSON file each: who it is, that a restore is under way, what stays.

`run.json` says which run this is, and under which numerical conditions it began. It is written once; only before the
first save can a launch that begins from another file replace the parent. While a history is being brought back a mark
lies beside it: half of two histories lie here meanwhile. `pins.json` names what a person wants kept whatever the
policy, and is read anew at every retention.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from unbroken.checkpoint.sharded import head_of
from unbroken.clock import Clock, utc_text
from unbroken.errors import DamagedFile, UsageError
from unbroken.fields import BadField, whole
from unbroken.ids import LeadsOut
from unbroken.journal import NO_SESSION, Journal
from unbroken.run.folder import require_inside
from unbroken.run.layout import Layout, layout_by_files, own
from unbroken.storage import Disk, durable_folder, explained, is_ordinary, read_json, read_typed, write_json
from unbroken.storage.file_lock import turn_at
from unbroken.storage.ordinary import ReadResult, read_result

RECORD = "run.json"  # in the run's own folder


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Identity of a run; `conditions` (threads, CPU capability, torch build) are what exactness depends on."""

    id: str
    recipe: str
    tag: str
    created: str
    seed: Annotated[int, whole]
    conditions: Mapping[str, Any] = field(default_factory=dict)
    parent: Mapping[str, Any] | None = None  # the file that the run began from, with its digest
    layout: Mapping[str, Any] | None = None  # the names of its files


def read_record(run: Path) -> RunRecord | None:
    """The record of the run in a folder, if there is a readable one."""
    return read_typed(own(run) / RECORD, RunRecord)


def layout_of(run: Path) -> Layout:
    """The names of the files in a run's folder: as its record says, or as they look.

    Raises DamagedFile where the record names something that does not lie inside the folder.
    """
    return require_layout(run, *layout_seen(run))


def require_layout(run: Path, layout: Layout, damage: str) -> Layout:
    """The layout that was seen; DamagedFile where that is not what the record says."""
    if damage:
        raise DamagedFile(
            own(run) / RECORD,
            damage,
            expected="names inside the run's folder",
            do="This was not written by unbroken: nothing is done by it. Copy the run again, or remove the entry.",
        )
    return layout


def layout_seen(run: Path) -> tuple[Layout, str]:
    """The same for who only looks: where the record cannot be followed, as the files look, and what is wrong."""
    return layout_in(run, read_record(run))


def layout_in(run: Path, record: RunRecord | None) -> tuple[Layout, str]:
    """The same, of a record that was read."""
    try:
        return (Layout.from_plain(record.layout) if record is not None and record.layout else layout_by_files(run)), ""
    except LeadsOut as error:
        return layout_by_files(run), str(error)
    except BadField:  # a record of another version
        return layout_by_files(run), ""


def write_record(disk: Disk, run: Path, record: RunRecord) -> None:
    """Write the record durably."""
    write_json(disk, own(run) / RECORD, asdict(record))


# -- a restore that is under way ---------------------------------------------------------------------------------------


RESTORING = "restoring.json"


@dataclass(frozen=True, kw_only=True)
class Restoring:
    """A restore that is under way: which history comes back, and under which name the present one moves aside."""

    name: str  # "" where the mark is damaged: that a restore was cut off is all that is known
    aside: str
    moved_aside: bool

    def as_plain(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def read_restoring(run: Path) -> Restoring | None:
    """The restore that was cut off, if one was."""
    path = own(run) / RESTORING
    if not path.exists():
        return None
    return read_typed(path, Restoring) or Restoring(name="", aside="", moved_aside=False)


# -- pins --------------------------------------------------------------------------------------------------------------


PINS = "pins.json"  # in the run's own folder
PATIENCE_S = 20.0  # another process changes the pins in milliseconds


@dataclass(frozen=True, kw_only=True)
class Pin:
    """A file that stays, since when and why."""

    note: str = ""
    time: str = ""


def read_pins(run: Path) -> dict[str, Pin]:
    """What is pinned in a run, by file name; DamagedFile where that cannot be known, so that nothing goes meanwhile."""
    return require_pins(own(run) / PINS, read_result(lambda: load_pins(run)))


def require_pins(file: Path, found: ReadResult[dict[str, Pin]]) -> dict[str, Pin]:
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
    if gone := [name for name in names if not is_ordinary(head_of(folder / name))]:
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
