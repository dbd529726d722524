"""Steps that were lost and done again: the repetition must be the same step, in its samples and recorded values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unbroken.journal import compare_steps, packed
from unbroken.report.findings import Findings
from unbroken.report.sessions import Session
from unbroken.text import as_bytes

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class _Done:
    session: Session
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

    def lose(self, session: Session, line: int, step: int, record: Mapping[str, Any]) -> None:
        """A step that is not part of the final history."""
        self.lost += 1
        self.meet(session, line, step, record)
        ids = _packed(record["samples"])
        self._lost[step] = _Done(session, line, {**record, "samples": ids})
        if isinstance(ids, bytes):
            self._streams.setdefault(session.name, bytearray()).extend(ids)

    def meet(self, session: Session, line: int, step: int, record: Mapping[str, Any]) -> None:
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

    def _differs(self, before: _Done, session: Session, line: int, step: int, words: str, *, wrong: bool) -> None:
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
