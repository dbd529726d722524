"""`run.json`: which run this is, and under which numerical conditions it began.

Written once; only before the first save can a launch that begins from another file replace the parent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from unbroken.errors import DamagedFile
from unbroken.fields import BadField, whole
from unbroken.ids import LeadsOut
from unbroken.run.layout import Layout, layout_by_files, own
from unbroken.storage import Disk, read_typed, write_json

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
