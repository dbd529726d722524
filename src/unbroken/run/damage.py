"""The records of a run that do not hold what they should: each with its file, its line, its field, for people.

No decision hangs on what stands here: to its readers a damaged record is one that is not there. Whoever asks for the
health of a run is told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from unbroken.fields import BadField
from unbroken.run.layout import OWN_FOLDER, Layout
from unbroken.run.pins import PINS
from unbroken.run.record import RECORD
from unbroken.run.restore_mark import RESTORING, Restoring
from unbroken.run.view import JOURNAL, METRICS, RunView
from unbroken.storage.lock import HOLDER, Holder
from unbroken.storage.ordinary import require_ordinary
from unbroken.storage.records import Reading, reading
from unbroken.storage.request import FILE as REQUEST

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


def damaged_records(view: RunView, *, with_lines: bool = True) -> tuple[Damage, ...]:
    """Every damaged record of a run and each damaged line of its journal; of the configs only the last one."""
    faults = {
        RECORD: view.record_reading.fault or _of_layout(view),
        HOLDER: view.own_record(HOLDER, Holder).fault,
        REQUEST: view.request.fault,
        RESTORING: view.own_record(RESTORING, Restoring).fault,
        PINS: view.pins_reading.fault,
        **{name: reading(partial(require_ordinary, view.own / name)).fault for name in (JOURNAL, METRICS)},
        **{f"manifests/{name}.json": view.manifest_reading(name).fault for name in view.manifest_names},
        **{f"configs/{name}": _of_config(view.config_reading(name)) for name in view.config_names[-1:]},
    }
    found = [Damage(file=f"{OWN_FOLDER}/{name}", words=words) for name, words in faults.items() if words]
    lines = view.told.damaged if with_lines else ()
    return (*found, *(Damage(file=f"{OWN_FOLDER}/{JOURNAL}", line=item.line, words=item.words) for item in lines))


def damage_in_words(found: Sequence[Damage]) -> list[str]:
    """A line each; of many, the first ones."""
    more = len(found) - MOST_SAID
    return [*map(str, found[:MOST_SAID]), *([f"and {more} more damaged records or lines"] if more > 0 else [])]


def _of_layout(view: RunView) -> str:
    """What is wrong with the layout in a record that is sound otherwise."""
    record = view.record
    return reading(partial(Layout.from_plain, record.layout)).fault if record is not None and record.layout else ""


def _of_config(found: Reading[Any]) -> str:
    is_object = found.error is not None or isinstance(found.value, Mapping)
    return found.fault if is_object else str(BadField("", "an object", found.value))
