"""Everything a launch needs to know about a run's folder, gathered by looking only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbroken.journal import read_events
from unbroken.run.candidates import Candidate, confirm, list_candidates
from unbroken.run.layout import Layout, manifests, own
from unbroken.run.record import RunRecord, read_record
from unbroken.storage import PARTIAL_SUFFIX
from unbroken.storage.lock import Holder, is_held, read_holder


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The facts about one folder, as they were found."""

    directory: Path
    exists: bool
    record: RunRecord | None = None
    candidates: tuple[Candidate, ...] = ()  # furthest step first; verified down to the first good one
    partials: tuple[str, ...] = ()  # files of saves that were cut off
    saves_ever: int = 0  # checkpoints that the journal says were written and not removed or set aside
    sessions: tuple[str, ...] = ()
    finished_at: int | None = None
    held: bool = False
    holder: Holder | None = None
    events: Sequence[Mapping[str, Any]] = field(default=(), repr=False)

    @property
    def newest_good(self) -> Candidate | None:
        """The checkpoint with the furthest recorded step among the sound ones."""
        return next((item for item in self.candidates if item.resumable and item.state == "good"), None)

    @property
    def has_history(self) -> bool:
        """Whether something was trained and saved here."""
        return self.saves_ever > 0 or any(item.resumable for item in self.candidates)


def survey(directory: Path, layout: Layout) -> Survey:
    """Look at a run's folder without changing anything."""
    if not directory.is_dir():
        return Survey(directory=directory, exists=False)
    folder = layout.checkpoints(directory)
    events = read_events(own(directory) / "journal.jsonl")
    record, saves = read_record(directory), _saves(events)
    return Survey(
        directory=directory,
        exists=True,
        record=record,
        candidates=tuple(_verified_down_to_first_good(folder, directory, record, saves_ever=saves)),
        partials=tuple(sorted(path.name for path in folder.glob(f"*.pth{PARTIAL_SUFFIX}"))),
        saves_ever=saves,
        sessions=tuple(dict.fromkeys(str(event.get("session")) for event in events)),
        finished_at=_finished_at(events),
        held=is_held(own(directory)),
        holder=read_holder(own(directory)),
        events=events,
    )


def _verified_down_to_first_good(
    folder: Path, directory: Path, record: RunRecord | None, *, saves_ever: int
) -> list[Candidate]:
    found: list[Candidate] = []
    satisfied = False
    for candidate in list_candidates(folder, manifests(directory)):
        wanted = candidate.resumable and not satisfied and _belongs(candidate, record, saves_ever)
        seen = confirm(candidate, manifests(directory)) if wanted else candidate
        satisfied = satisfied or (seen.resumable and seen.state == "good")
        found.append(seen)
    # A file whose recorded step differs from its manifest's belongs at another place in the order.
    return sorted(found, key=lambda item: -item.step)


def _belongs(candidate: Candidate, record: RunRecord | None, saves_ever: int) -> bool:
    """A file of another run is never resumed; one of another program only until this run has saves of its own."""
    if record is None or candidate.run == record.id:
        return True
    return candidate.kind == "foreign checkpoint" and saves_ever == 0


def _saves(events: Sequence[Mapping[str, Any]]) -> int:
    """Checkpoints the journal knows of; those removed by retention had two newer ones."""
    known: set[str] = set()
    for event in events:
        match event.get("event"):
            case "saved" if event.get("kind") == "checkpoint":
                known.add(str(event.get("file")))
            case "removed" | "set aside":
                known.discard(str(event.get("file")))
            case "archived":
                known.clear()
    return len(known)


def _finished_at(events: Sequence[Mapping[str, Any]]) -> int | None:
    """The step at which the run was completed, if nothing was trained since."""
    for event in reversed(events):
        match event.get("event"):
            case "finished":
                return int(event["step"])
            case "saved" if event.get("kind") == "checkpoint":
                return None
    return None
