"""The mark in a run's own folder while a history is being brought back: half of two histories lie here meanwhile."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unbroken.run.layout import own
from unbroken.storage import read_typed

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
