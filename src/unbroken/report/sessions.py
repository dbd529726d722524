"""The sessions of a run as its journal tells them, and the line of them that the final history is made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from unbroken.config import Effect, differences
from unbroken.fields import count_of
from unbroken.ids import is_name
from unbroken.journal import Event
from unbroken.journal.events import FileSaved, KeptCopy, Removed, SessionBegan, SetAside
from unbroken.run.history import how_it_ended
from unbroken.run.layout import ARCHIVE_FOLDER
from unbroken.run.view import RunView

UNCHANGING = (Effect.FREE, Effect.IGNORED)
BEGINS = ("Fresh", "FineTune")


@dataclass(frozen=True, kw_only=True)
class SessionRecord:
    """One session: from which step of which other one it went on, and how it ended."""

    name: str
    verdict: str
    base: int = 0  # the step it went on after
    parent: str | None = None  # the session whose save it went on from; None: a history begins here
    position: int | None = None  # samples used at its beginning, where its plan says so
    size: int | None = None  # samples of the data set at its beginning, the same
    written_by: str = ""  # the program whose file a history begins with, when that is not ours
    generation: int = 0  # sessions of one generation compute the same
    changes: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    ended: str = "killed"
    listed: bool = True  # in the journal

    @property
    def begins(self) -> bool:
        """Whether a history begins with this session."""
        return self.parent is None


def sessions_of(view: RunView) -> list[SessionRecord]:
    """The sessions in the order in which they began."""
    found = list(_began(view))
    if not found:
        return []
    own: dict[str, list[Event]] = {}
    for event in view.events:
        own.setdefault(str(event.get("session")), []).append(event)
    found = [replace(session, ended=how_it_ended(own[session.name])) for session in found]
    if view.held and found[-1].ended == "killed":
        found[-1] = replace(found[-1], ended="running")
    return found


def _began(view: RunView) -> Iterator[SessionRecord]:
    """Follow every saved file through the journal: its name, and where it was moved to, lead to who wrote it."""
    writers: dict[str, tuple[str, int]] = {}
    begun: list[SessionRecord] = []
    for event in view.events:
        match event:
            case FileSaved(kind="checkpoint", file=file, step=int(step)):
                writers[file] = event.session, step
            case Removed(file=str(file)):
                writers.pop(file, None)
            case SetAside(file=str(file), to=to) if file in writers:
                writers[f"{to}/{file}"] = writers.pop(file)
            case KeptCopy(file=str(file), to=to) if file in writers:
                writers[f"{to}/{file}"] = writers[file]
            case SessionBegan():
                begun.append(_session(event, begun, writers, view))
                yield begun[-1]


def _session(
    event: SessionBegan, earlier: Sequence[SessionRecord], writers: Mapping[str, tuple[str, int]], view: RunView
) -> SessionRecord:
    plan = event.plan or {}
    name, verdict = event.session, str(plan.get("verdict", "?"))
    before = earlier[-1] if earlier else None
    generation = before.generation if before else 0
    if verdict in BEGINS:
        changed = before is not None and (
            verdict == "FineTune" or bool(differences([_config(view, name), _config(view, before.name)]))
        )
        return SessionRecord(name=name, verdict=verdict, generation=generation + changed)
    base, place = count_of(plan.get("step")) or 0, plan.get("position")
    place = place if isinstance(place, Mapping) else {}
    size, epochs, used = (count_of(place.get(key)) for key in ("size", "epochs", "used"))
    known = size is not None and epochs is not None and used is not None
    changes = [change for change in plan.get("changes") or () if isinstance(change, Mapping)]
    other = str(plan.get("written_by", ""))
    foreign = bool(other) and not other.startswith("unbroken")
    return SessionRecord(
        name=name,
        verdict=verdict,
        base=base,
        parent=None if foreign else _writer(str(plan.get("file", "")), base, earlier, writers),
        position=epochs * size + used if known and size and epochs is not None and used is not None else None,
        size=size,
        written_by=other.rpartition(" ")[0] if foreign else "",
        generation=generation + (foreign or any(change.get("effect") not in UNCHANGING for change in changes)),
        changes=tuple(
            f"{change.get('key')}: {change.get('old')} -> {change.get('new')} ({change.get('effect')})"
            for change in changes
        ),
        accepted=tuple(map(str, plan.get("accepted") or ())),
    )


def _writer(
    file: str, step: int, earlier: Sequence[SessionRecord], writers: Mapping[str, tuple[str, int]]
) -> str | None:
    """The session that wrote the file; where a kill came before the journal's line, the last one that can have."""
    parts = PurePath(file.replace("\\", "/")).parts
    key = "/".join(parts[parts.index(ARCHIVE_FOLDER) :]) if ARCHIVE_FOLDER in parts else "".join(parts[-1:])
    name, saved = writers.get(key) or writers.get("".join(parts[-1:])) or ("", -1)
    if saved == step and any(session.name == name for session in earlier):
        return name
    able = (session.name for session in reversed(earlier) if session.base <= step)
    return next(able, None)


def surviving(sessions: Sequence[SessionRecord]) -> dict[str, int | None]:
    """Up to which step each session is part of the final history (None: to its end); the others have no part in it."""
    by_name = {session.name: session for session in sessions}
    kept: dict[str, int | None] = {}
    session, limit = (sessions[-1] if sessions else None), None
    while session is not None and session.name not in kept:
        kept[session.name] = limit
        limit = session.base
        session = by_name.get(session.parent) if session.parent is not None else None
    return kept


def _config(view: RunView, session: str) -> Mapping[str, Any]:
    found = view.config_reading(f"{session}.json").value if is_name(f"{session}.json") else None
    return found if isinstance(found, Mapping) else {}
