"""Everything a launch needs to know about a run's folder, gathered by looking only; what is missing, what is damaged.

A file is *missing* when the records know of it and the folder does not have it: saves that are not here, links that
lead nowhere. What the run itself removed, set aside or replaced is not missing; nor is a state that lies here under
another name. A record is *damaged* when it does not hold what it should: to its readers it is one that is not there, so
no decision hangs on it; whoever asks for the health of a run is told the file, the line and the field.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from unbroken.checkpoint.removal import GOING_SUFFIX
from unbroken.checkpoint.sharded import head_of
from unbroken.clock import shown_time
from unbroken.errors import DamagedFile
from unbroken.fields import BadField
from unbroken.ids import is_name
from unbroken.journal import NO_SESSION, Event, read_events
from unbroken.journal.events import FileSaved, Removed, SessionBegan, SetAside
from unbroken.run.candidates import Candidate, kind_of_name, step_in_name, verified_down_to_first_good
from unbroken.run.folder import POINTERS, cut_off_saves, why_not_followed
from unbroken.run.history import seconds_of
from unbroken.run.layout import OWN_FOLDER, SUFFIXES, Layout
from unbroken.run.record import PINS, RECORD, RESTORING, Restoring, RunRecord
from unbroken.run.view import JOURNAL, METRICS, RunView, looked_at
from unbroken.storage import is_ordinary
from unbroken.storage.lock import HOLDER, Holder
from unbroken.storage.ordinary import ReadResult, read_result, require_ordinary
from unbroken.storage.stop_request import FILE as REQUEST
from unbroken.storage.stop_request import StopRequest
from unbroken.text import printable

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
        REQUEST: view.own_record(REQUEST, StopRequest).fault,
        RESTORING: view.own_record(RESTORING, Restoring).fault,
        PINS: view.pins_reading.fault,
        **{name: read_result(partial(require_ordinary, view.own / name)).fault for name in (JOURNAL, METRICS)},
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
    return read_result(partial(Layout.from_plain, record.layout)).fault if record is not None and record.layout else ""


def _of_config(found: ReadResult[Any]) -> str:
    is_object = found.error is not None or isinstance(found.value, Mapping)
    return found.fault if is_object else str(BadField("", "an object", found.value))


# -- what is missing ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class MissingFile:
    """One such file; `reason` says in what way it is missing, `known_by` which record knows of it."""

    name: str
    kind: str  # "checkpoint" or "weights"
    step: int | None
    reason: str
    known_by: str = ""  # "the journal", "its manifest", or nothing but the link
    saved_at: str = ""

    @property
    def resumable(self) -> bool:
        """Whether it held a full training state."""
        return self.kind == "checkpoint"

    @property
    def words(self) -> str:
        """In what way it is missing, and what says that it was there."""
        at = f" as saved at {shown_time(self.saved_at)}" if self.saved_at else ""
        return self.reason + (f", though {self.known_by} records it{at}" if self.known_by else "")

    def __str__(self) -> str:
        step = f" (step {self.step})" if self.step is not None else ""
        at = f" as saved at {shown_time(self.saved_at)}" if self.saved_at else ""
        known = f", which {self.known_by} records{at}," if self.known_by else ""
        return f"{self.name}{step}{known} {self.reason}"


def known_saves(events: Sequence[Event]) -> dict[str, FileSaved]:
    """The last save under each name that the journal has not seen go."""
    known: dict[str, FileSaved] = {}
    for event in events:
        match event:
            case FileSaved():
                known[event.file] = event
            case Removed(file=str(file)) | SetAside(file=str(file)):
                known.pop(file, None)
            case SessionBegan(plan=Mapping() as plan) if plan.get("copied_from"):
                known.clear()  # only what was needed came along
    return known


def missing_files(view: RunView, candidates: Sequence[Candidate]) -> tuple[MissingFile, ...]:
    """What is missing in a run's folder, the furthest step first; `candidates` are the files that are here."""
    found = tuple(_missing(view, candidates, view.events))
    if found:  # a live process may have removed a file since its journal was read, and has said so by now
        before = {item.name for item in found}
        later = _missing(view, candidates, read_events(view.own / JOURNAL))
        found = tuple(item for item in later if item.name in before)
    return tuple(sorted(found, key=lambda item: (-(item.step if item.step is not None else -1), item.name)))


def that_matter(missing: Sequence[MissingFile], candidates: Sequence[Candidate]) -> tuple[MissingFile, ...]:
    """Those without which the run is not what it was: a state beyond all that are here, and best weights.

    An older state that somebody removed by hand, or that was left out of a packed run, is no loss.
    """
    here = max((item.step for item in candidates if item.resumable and item.state != "damaged"), default=-1)
    return tuple(item for item in missing if not item.resumable or item.step is None or item.step > here)


def losses_of(view: RunView) -> tuple[MissingFile, ...]:
    """What matters of all that is missing in a run's folder, by a glance at its files: none is verified."""
    ours = [item for item in view.candidates if view.record is None or item.run == view.record.id]
    return that_matter(missing_files(view, ours), ours)


def _missing(view: RunView, candidates: Sequence[Candidate], events: Sequence[Event]) -> Iterator[MissingFile]:
    folder = view.checkpoints
    links = _dead_links(view.directory, folder)
    ever_saved = {event.file for event in events if isinstance(event, FileSaved)}
    facts: dict[str, tuple[str, int | None, str, str | None]] = {}  # name -> kind, step, what knows of it, since when
    for name, event in known_saves(events).items():
        facts[name] = str(event.kind), event.step, "the journal", event.time
    for name in view.manifest_names:
        manifest = view.manifest(name) if name not in ever_saved else None
        if manifest is not None:
            facts[name] = manifest.kind, manifest.step, "its manifest", manifest.time
    for name in links:
        by_steps = "{step}" in view.layout.checkpoint_name
        step = step_in_name(Path(name)) if by_steps else None
        facts.setdefault(name, (kind_of_name(Path(name)), step, "", ""))
    for name, (kind, step, known_by, time) in facts.items():
        gone = is_name(name) and not _is_here(name, kind, step, candidates) and not _is_going(folder, name)
        if gone and not _is_newer(folder / name, candidates):
            yield MissingFile(
                name=name,
                kind=kind,
                step=step,
                reason=links.get(name) or _why(name, candidates),
                known_by=known_by,
                saved_at=time if time is not None and seconds_of(time) is not None else "",
            )


def _is_here(name: str, kind: str, step: int | None, candidates: Sequence[Candidate]) -> bool:
    """Whether the file is here, or another one of its step: renamed, or what a later save under its name replaced."""
    for item in candidates:
        same_kind = item.resumable == (kind == "checkpoint")
        if item.name == name and (item.state == "damaged" or step is None or item.step >= step or not same_kind):
            return True
        if same_kind and step is not None and item.step == step:
            return True
    return False


def _is_newer(path: Path, candidates: Sequence[Candidate]) -> bool:
    """Whether a file that a look did not find is there by now: a live process has saved it since."""
    return is_ordinary(head_of(path)) and not path.is_symlink() and all(item.name != path.name for item in candidates)


def _why(name: str, candidates: Sequence[Candidate]) -> str:
    older = next((item for item in candidates if item.name == name), None)
    return "is not here" if older is None else f"is not here: the file of that name is of step {older.step}"


def _is_going(folder: Path, name: str) -> bool:
    return (folder / (name + GOING_SUFFIX)).exists()


def _dead_links(directory: Path, folder: Path) -> dict[str, str]:
    """The links under names of checkpoints that are not followed, and why."""
    found = {}
    for path in sorted(path for suffix in SUFFIXES for path in folder.glob(f"*{suffix}")):
        if path.is_symlink() and path.name not in POINTERS:
            why = why_not_followed(str(path), str(directory)) or ("" if is_ordinary(head_of(path)) else "is not a file")
            if why:
                found[path.name] = f"is a link to {printable(str(path.readlink()))}, which {why}"
    return found


# -- all of it ---------------------------------------------------------------------------------------------------------


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
    def shut(self) -> Candidate | None:
        """A checkpoint beyond all sound ones that this user may not read: it may be whole."""
        good = self.newest_good
        return next(
            (
                item
                for item in self.candidates
                if item.shut and item.resumable and (self.owns(item) or not item.run)
                if good is None or item.step > good.step
            ),
            None,
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
        """Whether a file is this run's to resume from.

        Never is one of another run; one of another program is, until this run has saves of its own.
        """
        if self.record is None or item.run == self.record.id:
            return True
        saves = self.saves_ever > 0 or any(it.resumable and it.run == self.record.id for it in self.candidates)
        return item.kind == "foreign checkpoint" and not saves


def survey(directory: Path, layout: Layout, *, is_copy: bool = False) -> Survey:
    """Look at a run's folder without changing anything; in a copy of a run, nobody's lock is tried either."""
    return looked_at(directory, survey_of, layout, is_copy=is_copy)


def survey_of(view: RunView) -> Survey:
    """The same in a view of it; Moved where a file that it needs goes meanwhile."""
    lacking = view.unreachable
    if not view.directory.is_dir():
        return Survey(directory=view.directory, exists=False, unreachable=lacking, view=view)
    events, history = view.events, view.history
    # A save whose line is damaged was one all the same: a run that may have lost something is never begun anew.
    # What was set aside counts too: a run that has only an archive left is not a run that never was.
    saves = len(history.saved) + sum(line.event == "saved" for line in view.told.damaged)
    seen = Survey(
        directory=view.directory,
        exists=True,
        unreachable=lacking,
        record=view.record,
        candidates=view.candidates,
        partials=tuple(sorted(path.name for path in cut_off_saves(view.checkpoints))),
        saves_ever=saves,
        sessions=tuple(dict.fromkeys(event.session for event in events if event.session != NO_SESSION)),
        finished_at=history.finished_at,
        finished_early=(history.finished.early or "") if history.finished is not None else "",
        archiving=history.archiving,
        restoring=view.restoring,
        held=view.held,
        holder=view.holder,
        held_here=view.held and view.holder is not None and view.holder.is_this_process,
        held_without_locks=view.held_without_locks,
        events=events,
        damage=() if view.is_copy else damaged_records(view),
        view=view,
    )
    candidates = tuple(verified_down_to_first_good(view.candidates, view.layout, belongs=seen.owns))
    return replace(seen, candidates=candidates, missing=() if lacking else missing_files(view, candidates))


def require_reachable(directory: Path, trouble: str) -> None:
    """Raise DamagedFile where part of the run lies behind a link that leads to nothing."""
    if trouble:
        raise DamagedFile(directory, trouble, do="Is the disk mounted? Then run the same command again.")
