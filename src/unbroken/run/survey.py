"""Everything a launch needs to know about a run's folder, gathered by looking only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unbroken.errors import DamagedFile
from unbroken.journal import NO_SESSION, Event
from unbroken.run.candidates import Candidate, verified_down_to_first_good
from unbroken.run.damage import Damage, damaged_records
from unbroken.run.layout import Layout
from unbroken.run.missing import MissingFile, missing_files, that_matter
from unbroken.run.record import RunRecord
from unbroken.run.restore_mark import RESTORING as RESTORING
from unbroken.run.restore_mark import Restoring as Restoring
from unbroken.run.view import RunView, looked_at
from unbroken.storage import PARTIAL_SUFFIX
from unbroken.storage.lock import Holder


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The facts about one folder, as they were found."""

    directory: Path
    exists: bool
    unreachable: str = ""  # which of its folders is on a disk that is not there, as a sentence
    record: RunRecord | None = None
    candidates: tuple[Candidate, ...] = ()  # furthest step first; verified down to the first good one
    partials: tuple[str, ...] = ()  # files of saves that were cut off
    saves_ever: int = 0  # checkpoints that the journal says were written, less those removed by retention
    sessions: tuple[str, ...] = ()
    finished_at: int | None = None
    finished_early: str = ""  # why its loop ended it before what was asked for was done
    archiving: bool = False  # a --fresh was cut off while it moved the old history into the archive
    restoring: Restoring | None = None  # a restore was cut off
    held: bool = False
    holder: Holder | None = None
    held_here: bool = False  # by the very process that looks
    missing: tuple[MissingFile, ...] = ()  # that the records know of; furthest step first
    held_without_locks: str = ""  # what stands in for the lock, on a file system that has none
    events: Sequence[Event] = field(default=(), repr=False)
    damage: tuple[Damage, ...] = ()  # records that cannot be used; of a copy they are not looked for
    view: RunView | None = field(default=None, compare=False, repr=False)  # in which this was found

    @property
    def newest_good(self) -> Candidate | None:
        """The checkpoint with the furthest recorded step among the sound ones."""
        return next(
            (item for item in self.candidates if item.resumable and item.state == "good" and self.owns(item)), None
        )

    @property
    def has_history(self) -> bool:
        """Whether something of this run was saved here (a file that cannot be read any more may have been)."""
        return (
            self.saves_ever > 0
            or any(item.resumable for item in self.missing)
            or any(
                item.resumable and (self.owns(item) or (item.state == "damaged" and not item.run))
                for item in self.candidates
            )
        )

    @property
    def losses(self) -> tuple[MissingFile, ...]:
        """What is missing and matters: a state beyond all that are here, and best weights."""
        return that_matter(self.missing, [item for item in self.candidates if self.owns(item)])

    def owns(self, item: Candidate) -> bool:
        """Whether a file is this run's to resume from."""
        return _belongs(item, self.record, foreign=self.saves_ever == 0 and not _own_ones(self.candidates, self.record))


def survey(directory: Path, layout: Layout, *, is_copy: bool = False) -> Survey:
    """Look at a run's folder without changing anything; in a copy of a run, nobody's lock is tried either."""
    return looked_at(directory, survey_of, layout, is_copy=is_copy)


def survey_of(view: RunView) -> Survey:
    """The same in a view of it; Moved where a file that it needs goes meanwhile."""
    lacking = view.unreachable
    if not view.directory.is_dir():
        return Survey(directory=view.directory, exists=False, unreachable=lacking, view=view)
    events, record = view.events, view.record
    # A save whose line is damaged was one all the same: a run that may have lost something is never begun anew.
    saves = _saves(events) + sum(line.event == "saved" for line in view.told.damaged)
    foreign = saves == 0 and not _own_ones(view.candidates, record)
    candidates = verified_down_to_first_good(
        view.candidates, view.layout, belongs=lambda item: _belongs(item, record, foreign=foreign)
    )
    finished = _finished(events)
    return Survey(
        directory=view.directory,
        exists=True,
        unreachable=lacking,
        record=record,
        candidates=tuple(candidates),
        partials=tuple(sorted(path.name for path in view.checkpoints.glob(f"*.pth{PARTIAL_SUFFIX}"))),
        saves_ever=saves,
        sessions=tuple(dict.fromkeys(str(e.get("session")) for e in events if e.get("session") != NO_SESSION)),
        finished_at=finished["step"] if finished else None,
        finished_early=finished.get("early", "") if finished else "",
        archiving=is_archiving(events),
        restoring=view.restoring,
        held=view.held,
        holder=view.holder,
        held_here=view.held and view.holder is not None and view.holder.is_this_process,
        missing=() if lacking else missing_files(view, candidates),
        held_without_locks=view.held_without_locks,
        events=events,
        damage=() if view.is_copy else damaged_records(view),
        view=view,
    )


def require_reachable(directory: Path, trouble: str) -> None:
    """Raise DamagedFile where part of the run lies behind a link that leads to nothing."""
    if trouble:
        raise DamagedFile(directory, trouble, do="Is the disk mounted? Then run the same command again.")


def _own_ones(candidates: Sequence[Candidate], record: RunRecord | None) -> bool:
    return record is not None and any(item.resumable and item.run == record.id for item in candidates)


def _belongs(candidate: Candidate, record: RunRecord | None, *, foreign: bool) -> bool:
    """A file of another run is never resumed; one of another program only until this run has saves of its own."""
    if record is None or candidate.run == record.id:
        return True
    return foreign and candidate.kind == "foreign checkpoint"


def _saves(events: Sequence[Event]) -> int:
    """Checkpoints the journal knows of; those removed by retention had two newer ones.

    What was set aside still counts: a run that has only an archive left is not a run that never was.
    """
    known: set[str] = set()
    for event in events:
        match event.get("event"):
            case "saved" if event.get("kind") == "checkpoint":
                known.add(str(event.get("file")))
            case "removed":
                known.discard(str(event.get("file")))
    return len(known)


def is_archiving(events: Sequence[Event]) -> bool:
    """Whether the last thing that was begun here is the move of this journal itself into the archive.

    Where the line that says what was begun after it is damaged, the lines that follow it still say that something was.
    """
    done = [event["event"] for event in events if event.get("session") != NO_SESSION]
    return done[-1:] == ["archiving"]


def _finished(events: Sequence[Event]) -> Event | None:
    """The event that says that the run was completed, if nothing was trained since."""
    for event in reversed(events):
        match event.get("event"):
            case "finished":
                return event
            case "session":  # it was taken up again: to go further, or from an earlier step
                return None
            case "saved" if event.get("kind") == "checkpoint":
                return None
    return None
