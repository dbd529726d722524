"""Events of a run: written once, never changed, and read in one place, where each known field is checked.

Each kind of event is one frozen class, found by its name: it says what may stand in such a line. Whoever decides by
events gets those alone whose fields are what they should be. Any other line is *damaged*: it counts for nothing, for
all readers alike, and is said with its number where the health of a run is asked for. An event of a later version is
*unknown*: it is kept as it is, and shown as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, dataclass_transform

from unbroken.fields import (
    BadField,
    count,
    flag,
    list_of,
    mapping,
    mapping_of,
    maybe,
    number,
    seconds,
    some,
    text,
    typed,
    whole,
)
from unbroken.ids import is_name

NO_SESSION = ""  # who wrote an event that belongs to no session: what a person did between or beside them


def _session(value: Any, field: str) -> str:
    """A session's name, which names files; what a person did between sessions has none."""
    if value != NO_SESSION and not is_name(value):
        raise BadField(field, "the name of a session", value)
    return str(value)


# None is what an older version, or an editor, has left out; null stands only where `maybe` says so.
Text = Annotated[str | None, text]
Texts = Annotated[tuple[str, ...] | None, list_of(text)]
Count = Annotated[int | None, count]
CountOrNull = Annotated[int | None, maybe(count)]
Flag = Annotated[bool | None, flag]
Seconds = Annotated[float | None, seconds]
Facts = Annotated[Mapping[str, Any] | None, mapping({})]

_PLACE = mapping({"size": count, "epochs": count, "used": count})
_CHANGE = mapping({"key": text, "effect": text})
_PLAN = mapping(
    {
        "verdict": text,
        "file": text,
        "step": whole,  # -1 where a file of another program does not say it
        "written_by": text,
        "position": maybe(_PLACE),
        "changes": list_of(_CHANGE),
        "accepted": list_of(text),
        "copied_from": maybe(text),
    }
)
_BEST = mapping({"metric": text, "value": number, "step": count}, required=("metric", "value", "step"))


@dataclass_transform(kw_only_default=True, frozen_default=True, eq_default=False)
@dataclass(frozen=True, kw_only=True, eq=False)
class Event(Mapping[str, Any]):
    """What is known of any event: when it was, and in which session. It is the whole line too, as a mapping."""

    KINDS: ClassVar[dict[str, type[Event]]] = {}
    _line: ClassVar[Mapping[str, Any]] = {}

    time: Text = None
    session: Annotated[str, _session] = NO_SESSION

    def __init_subclass__(cls, *, name: str) -> None:
        Event.KINDS[name] = cls

    @classmethod
    def class_of(cls, name: str) -> type[Event]:
        """The class of a name, made a dataclass when it is read for the first time: few of the thirty ever are."""
        found = Event.KINDS.get(name, Unknown)
        if "__dataclass_fields__" not in vars(found):
            dataclass(frozen=True, kw_only=True, eq=False)(found)
        return found

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> Event:
        """The event of a line; BadField for one that is none, or has a field that is not what it should be."""
        event = typed(Event.class_of(text(line.get("event"), "event")), line)
        object.__setattr__(event, "_line", line)
        return event

    @property
    def name(self) -> str:
        """What kind of event it is, as the line says it."""
        return str(self._line.get("event", ""))

    def __getitem__(self, key: str) -> Any:
        return self._line[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._line)

    def __len__(self) -> int:
        return len(self._line)


class Unknown(Event, name="unknown"):
    """An event of a later version."""


class SessionBegan(Event, name="session"):
    """A session began: by which plan, command and program, and until when it may go on."""

    plan: Annotated[Mapping[str, Any] | None, _PLAN] = None
    command: Text = None
    total: CountOrNull = None
    best: Annotated[Mapping[str, Any] | None, maybe(_BEST)] = None
    until: Annotated[str | None, maybe(text)] = None
    environment: Facts = None
    program: Facts = None


class FilesLoaded(Event, name="loaded"):
    """The program loaded more files, here with their digests."""

    files: Annotated[Mapping[str, str] | None, mapping_of(text)] = None


class Weights(Event, name="weights"):
    """The weights of another file were taken; the rest of the line says which of them."""

    file: Text = None
    beside: Texts = None


class FileSaved(Event, name="saved"):
    """A checkpoint or a weights file (`kind`) is on disk, with its manifest."""

    file: Annotated[str, text]
    step: Count = None
    kind: Text = None
    digest: Text = None
    sha256: Text = None  # its digest, before 0.2


class SaveRefused(Event, name="save failed"):
    """The disk refused a checkpoint."""

    step: Count = None
    error: Text = None
    last_good_step: Count = None
    removed: Texts = None


class DiskNearlyFull(Event, name="disk nearly full"):
    """There is no room for two more checkpoints."""

    free_bytes: Count = None
    needed_bytes: Count = None
    removed: Texts = None


class BestKept(Event, name="best kept"):
    """The weights were not better than those of a file that is there."""

    file: Text = None
    value: Annotated[float | None, number] = None
    not_replaced_by: Annotated[float | None, number] = None


class Removed(Event, name="removed"):
    """A file was removed, by retention or as what a kill had left."""

    file: Text = None
    reason: Text = None


class NothingRemoved(Event, name="nothing removed"):
    """Retention removed nothing, because what is pinned could not be read."""

    reason: Text = None


class Pinned(Event, name="pinned"):
    """A person wants a file kept."""

    file: Text = None
    note: Text = None


class Unpinned(Event, name="unpinned"):
    """A file is kept no longer than the policy keeps it."""

    file: Text = None


class KeptCopy(Event, name="kept a copy"):
    """A rolling save stayed under another name, because the run goes on from it."""

    file: Text = None
    to: Text = None


class SetAside(Event, name="set aside"):
    """A file went to the archive, because it is damaged or superseded."""

    file: Text = None
    to: Text = None
    reason: Text = None


class Archiving(Event, name="archiving"):
    """The history moves into the archive: nothing follows in this journal, unless a kill cut that off."""

    to: Text = None


class HistoryRestored(Event, name="restored"):
    """An archived history is the run's own again, and what was here is in the archive."""

    file: Text = None
    aside: Text = None


class BroughtBack(Event, name="brought back"):
    """What was missing came back from a backup."""

    source: Text = None
    files: Texts = None


class BackupFailed(Event, name="backup failed"):
    """The backup beside the training failed, for the first time since it worked."""

    to: Text = None
    error: Text = None


class BackupWorks(Event, name="backup works again"):
    """The backup beside the training reached a step again."""

    to: Text = None
    step: Count = None


class Evaluated(Event, name="evaluated"):
    """The weights after a step were evaluated; `best` by `metric` so far."""

    step: Count = None
    metrics: Facts = None
    metric: Annotated[str | None, maybe(text)] = None
    best: Flag = None


class Replayed(Event, name="replayed"):
    """Steps that a killed session had done were done again, and compared."""

    step: Count = None
    verdict: Text = None


class Skipped(Event, name="skipped"):
    """A sample was left out of its epoch."""

    epoch: Count = None
    sample: Annotated[int | None, whole] = None
    reason: Text = None


class EpochCut(Event, name="epoch cut"):
    """The loop ended an epoch before its samples were used up."""

    epoch: Count = None


class WorkerLost(Event, name="worker lost"):
    """A loader worker died, and its samples are read again."""

    how: Text = None
    samples: Any = None


class OutOfMemory(Event, name="oom"):
    """Memory ran out in a step, which is done again in smaller parts."""

    step: Annotated[int, count]
    before: Count = None
    after: Annotated[int, some]
    recompute: Flag = None
    error: Text = None


class NotFinite(Event, name="not finite"):
    """A value of a step was no number, and the run went on."""

    step: Count = None
    what: Text = None
    found: Text = None


class Rollback(Event, name="rollback"):
    """The run went back to the last checkpoint and left the samples of a step out."""

    step: Count = None
    what: Text = None
    samples: Annotated[tuple[tuple[int, ...], ...] | None, list_of(list_of(count))] = None
    names: Texts = None
    found: Text = None


class Timing(Event, name="timing"):
    """What later sessions learn of this one: how long its steps, its beginning and each kind of pause took."""

    total: CountOrNull = None
    steps: Count = None
    seconds: Seconds = None
    startup_s: Seconds = None
    left_s: Annotated[float | None, maybe(number)] = None
    save_cost_s: Seconds = None
    save_every_s: Seconds = None
    longest_s: Annotated[Mapping[str, float] | None, mapping_of(seconds)] = None
    start: Annotated[Mapping[str, float] | None, mapping_of(seconds)] = None


class TrainingFinished(Event, name="finished"):
    """The training reached its end, or `early` says what ended it before."""

    step: Annotated[int, count]
    early: Text = None


class Stopped(Event, name="stopped"):
    """The session was stopped after a step."""

    step: Count = None
    reason: Text = None


class Failed(Event, name="failed"):
    """The session ended with an error."""

    step: Count = None
    error: Text = None


def saved_digest(event: Mapping[str, Any]) -> str:
    """The digest of the file that was saved, with its kind; "" where the event has none."""
    sha256 = event.get("sha256")
    return str(event.get("digest") or (f"sha256:{sha256}" if sha256 else ""))


def as_event(record: Mapping[str, Any]) -> Event | None:
    """The event that a line holds; None where it is none that can be believed."""
    try:
        return Event.of(record)
    except BadField:
        return None
