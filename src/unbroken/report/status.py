"""A run as it is at this moment: how far, how fast, how long still; made from its files, which are only read."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from unbroken.checkpoint.manifest import read_manifest
from unbroken.checkpoint.structure import read_structure
from unbroken.clock import Clock, local_moment
from unbroken.errors import UnbrokenError
from unbroken.fields import count_of, number_of, numbers_of
from unbroken.ids import LeadsOut, place
from unbroken.journal import Event, as_event, values_of
from unbroken.journal.events import Evaluated, FileSaved, Replayed, SessionBegan, Skipped, Unknown
from unbroken.jsonlines import parsed_line
from unbroken.run import layout_seen
from unbroken.run.history import how_it_ended
from unbroken.run.layout import manifests, own
from unbroken.storage import Disk, open_ordinary
from unbroken.storage.lock import is_held

BLOCK_BYTES = 1 << 20
TAIL_BYTES = 1 << 17


class Follower:
    """One file; where it is replaced or cut short, it is read again from its beginning."""

    def __init__(self, path: Path, *, whole: bool) -> None:
        self._path, self._whole = path, whole
        self._identity: tuple[int, int] | None = None
        self._at = 0

    def new(self) -> list[dict[str, Any]]:
        """The records that came since the last call; of a file seen for the first time, perhaps only the end."""
        try:
            with open_ordinary(self._path) as file:
                return self._new_in(file)
        except OSError:  # not there yet, or being replaced
            return []

    def _new_in(self, file: BinaryIO) -> list[dict[str, Any]]:
        status = os.fstat(file.fileno())
        if (status.st_dev, status.st_ino) != self._identity or not self._still_there(file, status.st_size):
            self._identity = status.st_dev, status.st_ino
            self._at = 0 if self._whole else _begin_of_tail(file, status.st_size)
        file.seek(self._at)
        records = []
        while block := file.read(BLOCK_BYTES):
            end = block.rfind(b"\n") + 1
            if not end:
                break
            self._at += end
            file.seek(self._at)
            records += [record for line in block[:end].splitlines(keepends=True) if (record := parsed_line(line))]
        return records

    def _still_there(self, file: BinaryIO, size: int) -> bool:
        """Whether what was read before is still in front of what follows."""
        if size < self._at:
            return False
        if self._at == 0:
            return True
        file.seek(self._at - 1)
        return file.read(1) == b"\n"


def _begin_of_tail(file: BinaryIO, size: int) -> int:
    """The first line that begins in the last part of a long file."""
    if size <= TAIL_BYTES:
        return 0
    file.seek(size - TAIL_BYTES)
    found = file.read(TAIL_BYTES).find(b"\n")
    return size - TAIL_BYTES + found + 1 if found >= 0 else size


# -- what is said of it ------------------------------------------------------------------------------------------------


RATE_OVER_S = 60.0


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """What there is to say about a run now; None where the files do not say it."""

    live: bool  # a process holds the run
    begun: bool  # a session is in the journal
    state: str  # "running", "beginning", or how the last session ended
    session: str
    command: str  # that goes on with the run
    step: int
    total: int | None
    epoch: int | None  # counted from 1
    values: Mapping[str, float]
    steps_per_s: float | None
    left_s: float | None
    deadline_left_s: float | None
    saved: str  # the last checkpoint, its step and how long ago it was written
    saved_step: int | None
    saved_ago_s: float | None
    save_every_s: float | None  # where the run finds by itself how often
    evaluated: Mapping[str, float]
    evaluated_step: int | None
    best: str
    free_bytes: int | None
    events: tuple[str, ...] = ()  # since it was asked before, in words


@dataclass
class Watch:
    """Asks for the status of a run again and again, and reads only what is new."""

    run: Path
    clock: Clock
    disk: Disk
    _events: list[Event] = field(default_factory=list)
    _last: Mapping[str, Any] = field(default_factory=dict)
    _seen: deque[tuple[float, int]] = field(default_factory=deque)
    _total: int | None = None
    _best: str = ""
    _looked_into: str = ""

    def __post_init__(self) -> None:
        self._journal = Follower(own(self.run) / "journal.jsonl", whole=True)
        self._metrics = Follower(own(self.run) / "metrics.jsonl", whole=False)

    def poll(self) -> RunStatus:
        """What is there now. The lock is asked first: what its owner wrote before letting go is then seen."""
        live = is_held(own(self.run))
        fresh = [event for line in self._journal.new() if (event := as_event(line)) is not None]
        self._events += fresh
        session = self._latest("session")
        name = str(session.get("session", ""))
        self._follow_steps(name)
        saved, evaluated = self._latest("saved", kind="checkpoint"), self._latest("evaluated")
        self._look_into(saved)
        step = self._step(session)
        rate = self._rate(name)
        total = self._total_of(session)
        epoch = self._last.get("epoch")
        ended = how_it_ended([event for event in self._events if event.get("session") == name])
        return RunStatus(
            live=live,
            begun=bool(session),
            state=("running" if self._last else "beginning") if live else ended if session else "not begun",
            session=name,
            command=str(session.get("command", "")),
            step=step,
            total=total,
            epoch=epoch + 1 if isinstance(epoch, int) else None,
            values=numbers_of(values_of(self._last)),
            steps_per_s=rate,
            left_s=max(total - step, 0) / rate if total is not None and rate else None,
            deadline_left_s=self._left_until(session.get("until")),
            saved=str(saved.get("file", "")),
            saved_step=count_of(saved.get("step")),
            saved_ago_s=self._ago(saved.get("time")),
            save_every_s=number_of(self._latest("timing", session=name).get("save_every_s")),
            evaluated=numbers_of(evaluated.get("metrics")),
            evaluated_step=count_of(evaluated.get("step")),
            best=self._best,
            free_bytes=self._free_bytes(),
            events=tuple(words for event in fresh if (words := told(event))),
        )

    # -- steps -------------------------------------------------------------------------------------------------------

    def _follow_steps(self, session: str) -> None:
        for record in self._metrics.new():
            if "evaluation" in record or not count_of(record.get("step")) is not None:
                continue
            if record.get("session") != self._last.get("session"):
                self._seen.clear()  # it may have begun at an earlier step
            self._last = record
        now_s = self.clock.monotonic_s()
        if session and self._last.get("session") != session:
            self._last = {}  # a new session has not done a step yet
        if self._last:
            self._seen.append((now_s, int(self._last["step"])))
        while len(self._seen) > 2 and now_s - self._seen[0][0] > RATE_OVER_S:
            self._seen.popleft()

    def _step(self, session: Mapping[str, Any]) -> int:
        if self._last:
            return int(self._last["step"])
        plan = session.get("plan")
        return (count_of(plan.get("step")) or 0) if isinstance(plan, Mapping) else 0

    def _rate(self, session: str) -> float | None:
        """Steps per second over the last minute; before that is known, by the times of this session's saves."""
        if self._seen and self._seen[-1][1] > self._seen[0][1]:
            (before_s, before), (now_s, now) = self._seen[0], self._seen[-1]
            return (now - before) / (now_s - before_s) if now_s > before_s else None
        noted = [
            (moment, event.step)
            for event in self._events
            if isinstance(event, FileSaved)
            and event.session == session
            and event.step is not None
            and (moment := local_moment(event.time)) is not None
        ]
        if len(noted) < 2 or noted[-1][1] <= noted[0][1]:
            return None
        took_s = (noted[-1][0] - noted[0][0]).total_seconds()
        return float(noted[-1][1] - noted[0][1]) / took_s if took_s > 0 else None

    # -- files -------------------------------------------------------------------------------------------------------

    def _look_into(self, saved: Mapping[str, Any]) -> None:
        """What the newest checkpoint says of the whole run; opened once, and again only when there is a newer one."""
        mark = f"{saved.get('time')} {saved.get('file')}"
        if not saved or mark == self._looked_into:
            return
        try:
            stamp = read_structure(place(layout_seen(self.run)[0].checkpoints(self.run), saved.get("file"))).stamp
        except (UnbrokenError, OSError, LeadsOut):  # removed, or replaced, in this moment
            return
        self._looked_into = mark
        self._total = count_of(stamp.get("total"))
        best = stamp.get("best")
        if isinstance(best, Mapping):
            self._note_best(best)
        self._best_by_manifest()

    def _best_by_manifest(self) -> None:
        """The best weights are written before the checkpoint that knows of them."""
        saved = self._latest("saved", kind="weights")
        manifest = read_manifest(manifests(self.run), str(saved.get("file"))) if saved else None
        if manifest is not None:
            self._note_best({"metric": manifest.metric, "value": manifest.value, "step": manifest.step})

    def _note_best(self, best: Mapping[str, Any]) -> None:
        value = best.get("value")
        if isinstance(value, int | float):
            self._best = f"{best.get('metric')} {value:.4g} after step {best.get('step')}"

    def _free_bytes(self) -> int | None:
        try:
            return self.disk.free_bytes(self.run)
        except OSError:
            return None

    # -- events ------------------------------------------------------------------------------------------------------

    def _latest(self, name: str, **wanted: str) -> Mapping[str, Any]:
        found = (
            event
            for event in reversed(self._events)
            if event.get("event") == name and all(event.get(key) == value for key, value in wanted.items())
        )
        return next(found, {})

    def _total_of(self, session: Mapping[str, Any]) -> int | None:
        return count_of(session.get("total")) or self._total

    def _ago(self, time: Any) -> float | None:
        moment = local_moment(time)
        return max((self.clock.now() - moment).total_seconds(), 0.0) if moment is not None else None

    def _left_until(self, time: Any) -> float | None:
        moment = local_moment(time)
        return max((moment - self.clock.now()).total_seconds(), 0.0) if moment is not None else None


def told(event: Event) -> str:
    """One event in words; nothing for those that a watcher need not know."""
    match event:
        case SessionBegan(plan=plan):
            plan = plan or {}
            after = f" after step {plan['step']}" if count_of(plan.get("step")) else ""
            return f"session {event.session}: {str(plan.get('verdict', '?')).lower()}{after}"
        case FileSaved(file=file, step=step):
            return f"saved {file} after step {step}"
        case Evaluated(step=step, metrics=metrics, best=best):
            numbers = numbers_of(metrics)
            words = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items() if "/" not in name)
            return f"evaluated after step {step}: {words}" + (" (the best so far)" if best else "")
        case Skipped(sample=sample, reason=reason):
            return f"skipped sample {sample}: {reason}"
        case Replayed(verdict=verdict):
            return verdict or ""
        case Unknown():
            return f"{event.name} (an event that this version does not know)"
    return ""
