"""The fold over `metrics.jsonl`: which steps the final history has, in which order, and what stands between them.

Steps that were lost and done again must have come out the same: in their samples and recorded values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from unbroken.journal import Samples, compare_steps, is_samples, packed
from unbroken.journal.file import numbered_lines
from unbroken.report.epochs import EpochFold
from unbroken.report.findings import Findings, span
from unbroken.report.sessions import SessionRecord, surviving
from unbroken.run.view import METRICS
from unbroken.text import as_bytes


@dataclass(frozen=True)
class _Done:
    session: SessionRecord
    line: int
    record: Mapping[str, Any]


class Repeats:
    """Remembers the lost steps, and only them, until they come again."""

    def __init__(self, findings: Findings, *, exact: bool, sizes: Mapping[str, int]) -> None:
        self._findings, self._exact, self._sizes = findings, exact, sizes  # of the data set, by session
        self._lost: dict[int, _Done] = {}
        self._repeated: set[int] = set()
        self._streams: dict[str, bytearray] = {}  # session -> the samples of its lost steps, one after the other
        self._reached: dict[str, int] = {}  # session -> how far into that the final history is
        self.lost = self.compared = self.identical = self.changed = self.resized = 0
        self.other_order: int | None = None  # the first step that brings other samples under a changed config

    def lose(self, session: SessionRecord, line: int, step: int, record: Mapping[str, Any]) -> None:
        """A step that is not part of the final history."""
        self.lost += 1
        self.meet(session, line, step, record)
        ids = _packed(record["samples"])
        self._lost[step] = _Done(session, line, {**record, "samples": ids})
        if isinstance(ids, bytes):
            self._streams.setdefault(session.name, bytearray()).extend(ids)

    def meet(self, session: SessionRecord, line: int, step: int, record: Mapping[str, Any]) -> None:
        """A step that may have been done before: compare it with what was recorded then."""
        before = self._lost.get(step)
        if before is None or before.session.name == session.name:
            return
        self._repeated.add(step)
        ids = _packed(record["samples"])
        if len({size for each in (before.session, session) if (size := self._sizes.get(each.name))}) > 1:
            self.resized += 1
            return
        if before.session.generation != session.generation:
            self.changed += 1
            if isinstance(ids, bytes) and before.session.name in self._streams:
                self._follow(before.session.name, step, ids)
            return
        self.compared += 1
        found = compare_steps(before.record, {**record, "samples": ids})
        if found.difference:
            wrong = found.samples_differ or self._exact
            self._differs(before, session, line, step, found.difference, wrong=wrong)
        else:
            self.identical += 1

    @property
    def repeated(self) -> int:
        """How many steps were done more than once."""
        return len(self._repeated)

    def _follow(self, lost_by: str, step: int, samples: bytes) -> None:
        """A changed batch size makes other steps of the same sequence of samples."""
        at = self._reached.get(lost_by, 0)
        expected = self._streams[lost_by][at : at + len(samples)]
        self._reached[lost_by] = at + len(samples)
        if self.other_order is None and not samples.startswith(bytes(expected)):
            self.other_order = step

    def _differs(self, before: _Done, session: SessionRecord, line: int, step: int, words: str, *, wrong: bool) -> None:
        told = f"step {step} was done again by session {session.name} and differs from line {before.line}: {words}"
        if wrong:
            self._findings.add(METRICS, told, line=line, step=step)
        else:
            self._findings.note(f"{told} (on a device whose arithmetic may differ)")


def _packed(samples: Sequence[int] | Mapping[str, int]) -> bytes | Mapping[str, int]:
    """Sample ids in eight bytes each: what is lost is kept until it comes again, and may be long."""
    if isinstance(samples, Mapping):
        return samples
    try:
        return packed(samples)
    except OverflowError:  # an edited file
        return as_bytes(repr(samples))


# -- the fold ----------------------------------------------------------------------------------------------------------


HELD_BACK = 64  # steps that may come too early before those in front of them count as missing


@dataclass
class Span:
    """The steps that one session recorded."""

    first: int = 0
    last: int = 0
    kept: int = 0  # of its steps, those in the final history


class _Step(NamedTuple):
    line: int
    step: int
    epoch: int
    samples: Samples
    record: Mapping[str, Any]
    session: SessionRecord


@dataclass
class StepFold:
    """Reads the records once, in the order in which they were written."""

    sessions: Sequence[SessionRecord]
    findings: Findings
    epochs: EpochFold
    repeats: Repeats
    sizes: Mapping[str, int]  # of the data set, by session
    spans: dict[str, Span] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)  # sessions that the journal does not know: step before theirs
    evaluations: set[int] = field(default_factory=set)  # steps of the final history that were evaluated
    evaluated: set[tuple[str, int]] = field(default_factory=set)
    steps: int = 0
    missing: list[tuple[int, int]] = field(default_factory=list)
    used_after: dict[int, int] = field(default_factory=dict)  # samples recorded up to the steps asked for
    unreadable: int = 0

    def __post_init__(self) -> None:
        self._by_name = {session.name: session for session in self.sessions}
        self._kept = surviving(self.sessions)
        chain = [session for session in self.sessions if session.name in self._kept]
        self.first = self.last = chain[0].base if chain else 0
        self._entered: SessionRecord | None = None
        self._early: dict[int, _Step] = {}

    def read(self, path: Path) -> None:
        """Fold the whole file."""
        for line, record in numbered_lines(path):
            if record is None:
                self.unreadable += 1
                self.findings.note(f"{METRICS} line {line} is not a record (a kill can leave half a line)")
            else:
                self._take(line, record)
        self._give_up_waiting()
        wanted = max((limit for limit in self._kept.values() if limit is not None), default=0)
        if wanted > self.last:  # the step from which the last session went on
            self._miss(wanted)
        self.epochs.finish()

    # -- one record --------------------------------------------------------------------------------------------------

    def _take(self, line: int, record: dict[str, Any]) -> None:
        step, name = record.get("step"), record.get("session")
        if "rewound" in record:
            self._rewind(line, record["rewound"], name)
            return
        if type(step) is not int or step < 0 or not isinstance(name, str):
            self.findings.add(METRICS, "this record names no step and session", line=line)
            return
        session = self._by_name.get(name)
        if session is None:
            if name not in self.unknown:
                self.findings.add(METRICS, f"session {name} is not in the journal", line=line, step=step)
            self.unknown.setdefault(name, max(step - 1, 0))
            return
        limit = self._kept.get(name, -1)
        survives = limit is None or step <= limit
        if "evaluation" in record:
            self.evaluated.add((name, step))
            if survives:
                self.evaluations.add(step)
            return
        epoch, samples = record.get("epoch"), record.get("samples")
        if type(epoch) is not int or not is_samples(samples):
            self.findings.add(METRICS, f"step {step} is recorded without its epoch or samples", line=line, step=step)
            return
        self._spanned(session, step)
        done = _Step(line, step, epoch, samples, record, session)
        if survives:
            self._arrive(done)
        else:
            self.repeats.lose(session, line, step, record)

    def _rewind(self, line: int, rewound: Any, name: Any) -> None:
        """Where the history goes on: what the record says of it, the journal has to say as well."""
        to = rewound.get("to") if isinstance(rewound, Mapping) else None
        session = self._by_name.get(name) if isinstance(name, str) else None
        if type(to) is not int or session is None:
            self.findings.add(METRICS, "this rewind names no step, or no session of the journal", line=line)
        elif to != session.base:
            words = f"session {session.name} rewound to step {to}, but by the journal it went on after {session.base}"
            self.findings.add(METRICS, words, line=line, step=to)

    def _spanned(self, session: SessionRecord, step: int) -> None:
        known = self.spans.get(session.name)
        if known is None:
            known = self.spans[session.name] = Span(first=step, last=step)
        elif step > known.last:
            known.last = step
        elif step < known.first:
            known.first = step

    # -- the order of steps ------------------------------------------------------------------------------------------

    def _arrive(self, done: _Step) -> None:
        if done.session is not self._entered:
            self._give_up_waiting()
            self._enter(done.session)
        expected = self.last + 1
        if done.step == expected:
            self._accept(done)
            while self._early and (waiting := self._early.pop(self.last + 1, None)) is not None:
                words = f"step {waiting.step} stands before step {done.step}, which is on line {done.line}"
                self.findings.add(METRICS, words, line=waiting.line, step=waiting.step)
                self._accept(waiting)
        elif done.step < expected or done.step in self._early:
            self._doubled(done)
        else:
            self._early[done.step] = done
            if len(self._early) > HELD_BACK:
                self._give_up_waiting()

    def _doubled(self, done: _Step) -> None:
        late = any(first <= done.step <= last for first, last in self.missing)
        words = f"step {done.step} comes after step {self.last}" if late else f"step {done.step} is recorded twice"
        self.findings.add(METRICS, f"{words} in session {done.session.name}", line=done.line, step=done.step)

    def _give_up_waiting(self) -> None:
        """What is still in front of the steps held back has no record."""
        while self._early:
            following = min(self._early)
            if following > self.last + 1:
                self._miss(following - 1)
            self._accept(self._early.pop(following))

    def _miss(self, last: int) -> None:
        first = self.last + 1
        self.missing.append((first, last))
        have = "has" if first == last else "have"
        self.findings.add(METRICS, f"{span(first, last)} {have} no record", step=first)
        self.epochs.skip(last - first + 1)
        self.last = last

    def _accept(self, done: _Step) -> None:
        self.last = done.step
        self.steps += 1
        self.spans[done.session.name].kept += 1
        if self.repeats.lost:
            self.repeats.meet(done.session, done.line, done.step, done.record)
        if isinstance(done.samples, dict):
            self.epochs.take_placed(done.step, done.samples["first"], done.samples["count"])
        else:
            self.epochs.take(done.step, done.epoch, done.samples)
        if self.used_after and done.step in self.used_after:
            self.used_after[done.step] = self.epochs.used

    # -- sessions ----------------------------------------------------------------------------------------------------

    def _enter(self, session: SessionRecord) -> None:
        """The final history goes on with another session: from a step that it has, at the position that it has."""
        if self._entered is not None and session.base > self.last:
            self._miss(session.base)
        self._entered = session
        self.epochs.resize(self.sizes.get(session.name, 0))
        found = self.epochs.mismatch(session.position) if session.position is not None else None
        if found is not None:
            words = f"session {session.name} went on after {found[0]} samples of the epoch, {found[1]} are recorded"
            self.findings.add(METRICS, words, step=session.base)
