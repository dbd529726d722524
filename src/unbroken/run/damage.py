"""The records of a run that do not hold what they should: each with its file, its line, its field, for people.

No decision hangs on what stands here: to its readers a damaged record is one that is not there. Whoever asks for the
health of a run is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from unbroken.checkpoint.manifest import Manifest
from unbroken.fields import BadField
from unbroken.journal import DamagedLine, read_journal
from unbroken.run.folder import entries
from unbroken.run.layout import Layout, manifests, own
from unbroken.run.pins import PINS, load_pins
from unbroken.run.record import RECORD, load_record
from unbroken.run.restore_mark import RESTORING, Restoring
from unbroken.storage import open_ordinary, read_json
from unbroken.storage.lock import HOLDER, Holder
from unbroken.storage.records import fault_of, load_typed
from unbroken.storage.request import FILE as REQUEST
from unbroken.storage.request import StopRequest

JOURNAL, METRICS = "journal.jsonl", "metrics.jsonl"
MOST_SAID = 8


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One record, or one line of it, that cannot be used; `file` is its path below the run's folder."""

    file: str
    words: str
    line: int | None = None

    @property
    def where(self) -> str:
        """The line, before the words."""
        return "" if self.line is None else f"line {self.line}: "

    def __str__(self) -> str:
        return f"{self.file}{'' if self.line is None else f' line {self.line}'}: {self.words}"


def damaged_records(run: Path, lines: Sequence[DamagedLine] | None = None) -> tuple[Damage, ...]:
    """Every damaged record of a run; `lines` are those of its journal, where that was read already."""
    journal = own(run) / JOURNAL
    lines = read_journal(journal).damaged if lines is None else lines
    faults = ((path, fault_of(load, path)) for path, load in _records(run))
    found = [Damage(file=_name(run, path), words=words) for path, words in faults if words]
    return (*found, *(Damage(file=_name(run, journal), line=item.line, words=item.words) for item in lines))


def damage_in_words(found: Sequence[Damage]) -> list[str]:
    """A line each; of many, the first ones."""
    more = len(found) - MOST_SAID
    return [*map(str, found[:MOST_SAID]), *([f"and {more} more damaged records or lines"] if more > 0 else [])]


def _records(run: Path) -> Iterator[tuple[Path, Callable[[Path], object]]]:
    """Every record that may be there, with the function that reads it strictly; of the configs only the last."""
    folder = own(run)
    yield folder / RECORD, lambda _: _load_record(run)
    yield folder / HOLDER, partial(load_typed, record=Holder)
    yield folder / REQUEST, partial(load_typed, record=StopRequest)
    yield folder / RESTORING, partial(load_typed, record=Restoring)
    yield folder / PINS, lambda _: load_pins(run)
    for name in (JOURNAL, METRICS):
        yield folder / name, lambda path: open_ordinary(path).close()
    for name in sorted(entry.name for entry in entries(str(manifests(run))) if entry.name.endswith(".json")):
        yield manifests(run) / name, partial(load_typed, record=Manifest)
    for name in sorted(entry.name for entry in entries(str(folder / "configs")) if entry.name.endswith(".json"))[-1:]:
        yield folder / "configs" / name, _load_config


def _load_record(run: Path) -> None:
    record = load_record(run)
    if record.layout:
        Layout.from_plain(record.layout)


def _load_config(path: Path) -> None:
    found = read_json(path)
    if not isinstance(found, Mapping):
        raise BadField("", "an object", found)


def _name(run: Path, path: Path) -> str:
    return path.relative_to(run).as_posix()
