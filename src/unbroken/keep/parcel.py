"""What of a run goes into one file that travels: a pure choice among its files, each with the reason it stays behind.

The *minimum* is what a run can be continued from without losing its history: the newest verified checkpoint, the best
weights, the records, and the curves of all sessions. When a parcel is too large, what is least needed goes first:
older checkpoints (the oldest first), then pictures and results, then logs and files of sessions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from unbroken.text import as_bytes

ENTRY_BYTES = 400  # most that a file costs besides its bytes and its name: two zip headers and its line in the list
NAME_COPIES = 4  # its name stands in both headers and, perhaps with escapes, in the list
HEAD_BYTES = 4096  # of the list itself


class Need(IntEnum):
    """How much a file is needed, the most needed first; OLDER is dropped before RESULTS before SESSION."""

    NEWEST = 0
    RECORD = 1
    BEST = 2
    CURVE = 3
    SESSION = 4
    RESULT = 5
    OLDER = 6
    ARCHIVE = 7
    UNSOUND = 8
    LINK = 9


MINIMUM = (Need.NEWEST, Need.RECORD, Need.BEST, Need.CURVE)
WORDS = {
    Need.NEWEST: "the newest verified checkpoint",
    Need.RECORD: "records",
    Need.BEST: "best weights",
    Need.CURVE: "scalars and curves",
    Need.SESSION: "logs and files of sessions",
    Need.RESULT: "pictures and results",
    Need.OLDER: "older checkpoints",
    Need.ARCHIVE: "the archive",
    Need.UNSOUND: "files that are damaged, changed while they were read, or of another run",
    Need.LINK: "links",
}


@dataclass(frozen=True, kw_only=True)
class Item:
    """A file of the run, by its path below the run's folder with `/`; `step` orders the checkpoints."""

    name: str
    size_bytes: int
    need: Need
    step: int = 0
    reason: str = ""  # why it is unsound, or a link


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file that stays behind, and why."""

    item: Item
    reason: str


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """The choice; it `fits` unless even the minimum is larger than what was allowed."""

    taken: tuple[Item, ...]
    left_out: tuple[LeftOut, ...]
    fits: bool

    @property
    def size_bytes(self) -> int:
        """At most so large will the file be."""
        return parcel_bytes(self.taken)


def choose(items: Sequence[Item], *, minimal: bool, most_bytes: int | None) -> Parcel:
    """Choose what goes in; golden-simple: by need, and then while it is too large, the least needed first."""
    wanted, left_out = [], []
    for item in sorted(items, key=lambda item: (item.need, -item.step, item.name)):
        if reason := _never(item, minimal=minimal):
            left_out.append(LeftOut(item=item, reason=reason))
        else:
            wanted.append(item)
    while most_bytes is not None and wanted and parcel_bytes(wanted) > most_bytes and wanted[-1].need not in MINIMUM:
        left_out.append(LeftOut(item=wanted.pop(), reason="for want of room"))
    fits = most_bytes is None or parcel_bytes(wanted) <= most_bytes
    return Parcel(taken=tuple(wanted), left_out=tuple(left_out), fits=fits)


def _never(item: Item, *, minimal: bool) -> str:
    if item.need in (Need.UNSOUND, Need.LINK):
        return item.reason
    if item.need is Need.ARCHIVE:
        return "the archive stays behind"
    return "not of the minimum" if minimal and item.need not in MINIMUM else ""


def parcel_bytes(items: Sequence[Item]) -> int:
    """The most bytes that a file with these items can have."""
    return HEAD_BYTES + sum(item.size_bytes + ENTRY_BYTES + NAME_COPIES * len(as_bytes(item.name)) for item in items)


def by_need(items: Sequence[Item]) -> dict[Need, tuple[int, int]]:
    """How many files of each need there are, and their bytes."""
    found: dict[Need, tuple[int, int]] = {}
    for item in sorted(items, key=lambda item: item.need):
        count, size_bytes = found.get(item.need, (0, 0))
        found[item.need] = (count + 1, size_bytes + item.size_bytes)
    return found
