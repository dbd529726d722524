"""The curves of a run as they are to be shown: its final history, and the tails that a resume discarded.

A session is kept up to the step from which a later one went on; what it did beyond is discarded: it was lost in a kill
and done again. Every curve is a list of segments, each of one session and either kept or discarded.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from unbroken.report.curves import Column, SessionCurves, StitchedCurves, read_curves
from unbroken.report.foreign_curves import read_foreign_curves
from unbroken.report.sessions import SessionRecord, sessions_of, surviving
from unbroken.run.view import METRICS, RunView, view_of
from unbroken.storage import is_ordinary


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A piece of a curve."""

    session: str
    kept: bool
    points: Column


@dataclass(frozen=True, kw_only=True)
class Rewind:
    """A session went on from an earlier step than had been reached."""

    session: str
    reached: int
    back_to: int
    lost_by: str  # the session whose steps were discarded

    @property
    def steps(self) -> int:
        """How many steps were discarded."""
        return self.reached - self.back_to


@dataclass(frozen=True, kw_only=True)
class SessionSpan:
    """A session, the steps that it did, and how far they are part of the final history."""

    name: str
    base: int
    last: int  # base, where it did none
    kept_to: int | None  # None: no part of it
    ended: str
    changes: tuple[str, ...] = ()  # of the config, at its beginning


@dataclass(frozen=True, kw_only=True)
class RunCurves:
    """Everything that the records of a run say over its steps."""

    values: Mapping[str, tuple[Segment, ...]] = field(default_factory=dict)
    evaluations: Mapping[str, tuple[Segment, ...]] = field(default_factory=dict)
    sessions: tuple[SessionSpan, ...] = ()
    rewinds: tuple[Rewind, ...] = ()
    unreadable: int = 0

    def evaluated(self) -> dict[int, dict[str, float]]:
        """The evaluations of the final history by step; of two of one step, the later one."""
        found: dict[int, dict[str, float]] = {}
        for name, segments in self.evaluations.items():
            for segment in segments:
                if segment.kept:
                    for step, value in zip(segment.points.steps, segment.points.values):
                        found.setdefault(step, {})[name] = value
        return dict(sorted(found.items()))


def curves_of(run: Path | RunView, *, processes: int = 1) -> RunCurves:
    """Read the curves of a run, ours or one that another program left; several processes read a large record."""
    view = view_of(run)
    record = view.own / METRICS
    if not is_ordinary(record):
        curves, sessions = read_foreign_curves(view.directory)
        return arrange(curves, sessions)
    return arrange(read_curves(record, processes=processes), sessions_of(view))


def arrange(curves: StitchedCurves, sessions: Sequence[SessionRecord]) -> RunCurves:
    """Tell what is kept from what was discarded; without any session in the journal, all that there is counts."""
    limits = surviving(sessions) if sessions else dict.fromkeys(curves.sessions)
    chain = [name for name in reversed(limits) if name in curves.sessions] if sessions else list(limits)
    order = [*chain, *(name for name in curves.sessions if name not in limits)]
    return RunCurves(
        values=_segments(curves, order, limits, lambda session: session.values),
        evaluations=_segments(curves, order, limits, lambda session: session.evaluations),
        sessions=tuple(_spans(curves, sessions, limits)),
        rewinds=tuple(_rewinds(curves, sessions)),
        unreadable=curves.unreadable,
    )


def _segments(
    curves: StitchedCurves,
    order: Sequence[str],
    limits: Mapping[str, int | None],
    part: Callable[[SessionCurves], Mapping[str, Column]],
) -> dict[str, tuple[Segment, ...]]:
    found: dict[str, list[Segment]] = {}
    for session in order:
        for name, column in part(curves.sessions[session]).items():
            kept, discarded = split_at(column, limits.get(session, -1))
            pieces = ((kept, True), (discarded, False))
            found.setdefault(name, []).extend(
                Segment(session=session, kept=is_kept, points=points) for points, is_kept in pieces if points
            )
    return {name: tuple(segments) for name, segments in found.items()}


def split_at(column: Column, limit: int | None) -> tuple[Column, Column]:
    """The points up to a step, and those beyond, each in the order of their steps; None is no limit."""
    column = column if column.ordered else _in_order(column)
    if limit is None:
        return column, Column()
    place = bisect_right(column.steps, limit)
    return (
        Column(column.steps[:place], column.values[:place]),
        Column(column.steps[place:], column.values[place:]),
    )


def _in_order(column: Column) -> Column:
    order = sorted(range(len(column)), key=column.steps.__getitem__)
    return Column(
        array("q", (column.steps[place] for place in order)), array("d", (column.values[place] for place in order))
    )


def _spans(
    curves: StitchedCurves, sessions: Sequence[SessionRecord], limits: Mapping[str, int | None]
) -> Iterator[SessionSpan]:
    for session in sessions:
        last = _reached(curves, session)
        limit = limits.get(session.name, -1)
        kept_to = last if limit is None else min(limit, last) if limit >= session.base else None
        yield SessionSpan(
            name=session.name,
            base=session.base,
            last=last,
            kept_to=kept_to,
            ended=session.ended,
            changes=session.changes,
        )


def _rewinds(curves: StitchedCurves, sessions: Sequence[SessionRecord]) -> Iterator[Rewind]:
    """Each session goes on from its base; what stood beyond it then is discarded."""
    for place in range(1, len(sessions)):
        session, before = sessions[place], sessions[place - 1]
        reached = _reached(curves, before)
        if reached > session.base and not session.written_by:
            yield Rewind(session=session.name, reached=reached, back_to=session.base, lost_by=before.name)


def _reached(curves: StitchedCurves, session: SessionRecord) -> int:
    """The last step of a session; the one that it began after, where it did none."""
    recorded = curves.sessions.get(session.name)
    return max(session.base, recorded.last) if recorded and recorded.last is not None else session.base
