"""What a run's records know of and its folder does not have: saves that are not here, links that lead nowhere.

What the run itself removed, set aside or replaced is not missing; nor is a state that lies here under another name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unbroken.checkpoint.removal import GOING_SUFFIX
from unbroken.clock import shown_time
from unbroken.fields import count_of
from unbroken.ids import is_name
from unbroken.journal import Event, read_events
from unbroken.run.candidates import Candidate, kind_of_name, step_in_name
from unbroken.run.history import seconds_of
from unbroken.run.links import POINTERS, why_not_followed
from unbroken.run.view import JOURNAL, RunView
from unbroken.storage import is_ordinary
from unbroken.text import printable


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


def known_saves(events: Sequence[Event]) -> dict[str, Event]:
    """The last save under each name that the journal has not seen go."""
    known: dict[str, Event] = {}
    for event in events:
        file, plan = str(event.get("file")), event.get("plan")
        match event.get("event"):
            case "saved":
                known[file] = event
            case "removed" | "set aside":
                known.pop(file, None)
            case "session" if isinstance(plan, Mapping) and plan.get("copied_from"):
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
    saves = known_saves(events)
    ever_saved = {str(event.get("file")) for event in events if event.get("event") == "saved"}
    facts: dict[str, tuple[str, int | None, str, object]] = {}  # name -> kind, step, what knows of it, since when
    for name, event in saves.items():
        facts[name] = str(event.get("kind")), count_of(event.get("step")), "the journal", event.get("time")
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
                saved_at=str(time) if seconds_of(str(time)) is not None else "",
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
    return is_ordinary(path) and not path.is_symlink() and all(item.name != path.name for item in candidates)


def _why(name: str, candidates: Sequence[Candidate]) -> str:
    older = next((item for item in candidates if item.name == name), None)
    return "is not here" if older is None else f"is not here: the file of that name is of step {older.step}"


def _is_going(folder: Path, name: str) -> bool:
    return (folder / (name + GOING_SUFFIX)).exists()


def _dead_links(directory: Path, folder: Path) -> dict[str, str]:
    """The links under names of checkpoints that are not followed, and why."""
    found = {}
    for path in sorted(folder.glob("*.pth")):
        if path.is_symlink() and path.name not in POINTERS:
            why = why_not_followed(str(path), str(directory)) or ("" if is_ordinary(path) else "is not a file")
            if why:
                found[path.name] = f"is a link to {printable(str(path.readlink()))}, which {why}"
    return found
