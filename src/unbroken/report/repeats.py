"""Steps that were lost and done again: the repetition must be the same step, samples and loss."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from unbroken.report.findings import Findings
from unbroken.report.sessions import Session
from unbroken.values import as_bytes

METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class _Done:
    session: Session
    line: int
    samples: bytes
    loss: Any


class Repeats:
    """Remembers the lost steps, and only them, until they come again."""

    def __init__(self, findings: Findings, *, exact: bool) -> None:
        self._findings, self._exact = findings, exact
        self._lost: dict[int, _Done] = {}
        self._repeated: set[int] = set()
        self._streams: dict[str, bytearray] = {}  # session -> the samples of its lost steps, one after the other
        self._reached: dict[str, int] = {}  # session -> how far into that the final history is
        self.lost = self.compared = self.identical = self.changed = 0
        self.other_order: int | None = None  # the first step that brings other samples under a changed config

    def lose(self, session: Session, line: int, step: int, samples: Sequence[int], loss: Any) -> None:
        """A step that is not part of the final history."""
        self.lost += 1
        self.meet(session, line, step, samples, loss)
        done = _Done(session, line, _packed(samples), loss)
        self._lost[step] = done
        self._streams.setdefault(session.name, bytearray()).extend(done.samples)

    def meet(self, session: Session, line: int, step: int, samples: Sequence[int], loss: Any) -> None:
        """A step that may have been done before: compare it with what was recorded then."""
        before = self._lost.get(step)
        if before is None or before.session.name == session.name:
            return
        self._repeated.add(step)
        if before.session.generation != session.generation:
            self.changed += 1
            self._follow(before.session.name, step, _packed(samples))
            return
        self.compared += 1
        if before.samples != _packed(samples):
            self._differs(before, session, line, step, "other samples", wrong=True)
        elif repr(before.loss) != repr(loss):
            words = f"loss {loss!r}, recorded {before.loss!r} before"
            self._differs(before, session, line, step, words, wrong=self._exact)
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


def _packed(samples: Sequence[int]) -> bytes:
    """Sample ids in eight bytes each: what is lost is kept until it comes again, and may be long."""
    try:
        return array("q", samples).tobytes()
    except OverflowError:  # an edited file
        return as_bytes(repr(samples))
