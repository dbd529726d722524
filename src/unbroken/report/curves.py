"""The curves of a run out of its record `metrics.jsonl`: columns of steps and values, by session and by name.

A million points are read in less than a second: the lines that a session writes have one shape, and one regular
expression per shape takes a whole block apart; a large record is read by several processes, a part each. What does not
fit (evaluations, rewinds, lines that a kill or an editor left) is read as JSON, line by line; what is no record is
counted and left out.
"""

from __future__ import annotations

import gc
import json
import os
import re
from array import array
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from unbroken.fields import number_of
from unbroken.journal.steps import NOT_VALUES, values_of
from unbroken.jsonlines import LONGEST_LINE_BYTES, json_line, parsed_line
from unbroken.storage import open_ordinary
from unbroken.text import as_bytes

BLOCK_BYTES = 1 << 20
LARGE_BYTES = 1 << 25  # from here on several processes are worth their start
MOST_NAMES = 1000  # values of one session; what a broken loop logs beyond is left out
LARGEST_STEP = 10**15
SHAPES = 24  # of lines that are tried on a file before the rest is read as JSON
# Of a line: how it begins, a whole number, a number, a list. Quick is what a regular expression runs over fastest.
QUICK = (b"", rb"[^,]*", rb"([^,]*)", rb"[^]]*")
STRICT = (rb"(?m)^", rb"[0-9]{1,15}", rb'"?([-+.0-9eEnaif]+)"?', rb"[-0-9,]*")  # NaN and infinity are written as text


@dataclass
class Column:
    """Steps and values in the order in which they were recorded."""

    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))
    ordered: bool = True  # no step is smaller than the one before

    def add(self, step: int, value: float) -> None:
        """One point more."""
        self.ordered = self.ordered and (not self.steps or self.steps[-1] <= step)
        self.steps.append(step)
        self.values.append(value)

    def extend(self, steps: array[int], values: array[float], *, ordered: bool = True) -> None:
        """Several points more, which are themselves in order or not."""
        follows = not self.steps or not steps or self.steps[-1] <= steps[0]
        self.ordered = self.ordered and ordered and follows
        self.steps.extend(steps)
        self.values.extend(values)

    def __len__(self) -> int:
        return len(self.steps)


@dataclass
class SessionCurves:
    """What one session recorded: per step (`values`), and per evaluation."""

    values: dict[str, Column] = field(default_factory=dict)
    evaluations: dict[str, Column] = field(default_factory=dict)
    first: int | None = None  # of the steps that it did, in their order
    last: int | None = None

    def spanned(self, first: int, last: int) -> None:
        """Steps were done."""
        self.first = first if self.first is None else min(first, self.first)
        self.last = last if self.last is None else max(last, self.last)


@dataclass
class StitchedCurves:
    """The sessions of a run by name, in the order in which they first wrote a line."""

    sessions: dict[str, SessionCurves] = field(default_factory=dict)
    unreadable: int = 0  # lines that are no record

    @property
    def points(self) -> int:
        """How many values there are."""
        columns = (
            column
            for session in self.sessions.values()
            for named in (session.values, session.evaluations)
            for column in named.values()
        )
        return sum(map(len, columns))

    def session(self, name: str) -> SessionCurves:
        """The session of this name, begun when it is not there."""
        return self.sessions.setdefault(name, SessionCurves())

    def extend(self, later: StitchedCurves) -> None:
        """Add what was recorded after this."""
        self.unreadable += later.unreadable
        for name, found in later.sessions.items():
            session = self.session(name)
            if found.first is not None and found.last is not None:
                session.spanned(found.first, found.last)
            for known, new in ((session.values, found.values), (session.evaluations, found.evaluations)):
                for key, column in new.items():
                    known.setdefault(key, Column()).extend(column.steps, column.values, ordered=column.ordered)


class Part(NamedTuple):
    """Some of the bytes of a record: whole lines, but for its last one."""

    path: Path
    begin: int
    end: int


def read_curves(path: Path, *, processes: int = 1) -> StitchedCurves:
    """Read a whole record; one that is not there has no curves, a last line without its end does not count."""
    try:
        parts = _parts(path, processes)
        if len(parts) == 1:
            return read_part(parts[0])
        from unbroken.report.pool import spread

        curves = StitchedCurves()
        for found in spread(read_part, parts, processes=len(parts)):
            curves.extend(found)
        return curves
    except FileNotFoundError:
        return StitchedCurves()


def read_part(part: Part) -> StitchedCurves:
    """Read some of a record."""
    curves = StitchedCurves()
    with open_ordinary(part.path) as file, _no_collections():
        reader = _Reader(curves)
        for block in _blocks(file, part):
            reader.take(block)
    return curves


def _parts(path: Path, processes: int) -> list[Part]:
    """A record in as many parts as there are processes; a small one in one."""
    size, places = os.stat(path).st_size, [0]  # noqa: PTH116 - whose opening is for who reads it
    if size >= LARGE_BYTES and processes > 1:
        with open_ordinary(path) as file:
            for number in range(1, processes):
                file.seek(max(size * number // processes, places[-1]))
                file.readline(LONGEST_LINE_BYTES)
                places.append(file.tell())
    return [Part(path, begin, end) for begin, end in zip(places, [*places[1:], size])]


def _blocks(file: BinaryIO, part: Part) -> Iterator[bytes]:
    """Pieces of whole lines."""
    at = file.seek(part.begin)
    while at < part.end and (block := file.read(min(BLOCK_BYTES, part.end - at))):
        block += b"" if block.endswith(b"\n") else file.readline(LONGEST_LINE_BYTES)
        at += len(block)
        if not block.endswith(b"\n") and len(block) > LONGEST_LINE_BYTES:
            return  # such a line is no record, and what follows is no more trusted than it
        yield block if block.endswith(b"\n") else block[: block.rfind(b"\n") + 1]


@contextmanager
def _no_collections() -> Iterator[None]:
    """Millions of short-lived values, none of them in a circle: looking for circles would take half of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(frozen=True)
class _Shape:
    """Lines of one session that have the same keys in the same order; the groups are the step and the named values."""

    session: str
    names: tuple[str, ...]

    @cached_property
    def quick(self) -> re.Pattern[bytes]:
        """May also take what only looks like such lines: its matches are checked in bulk."""
        return re.compile(_pattern(self.session, self.names, *QUICK))

    @cached_property
    def strict(self) -> re.Pattern[bytes]:
        """Takes nothing else."""
        return re.compile(_pattern(self.session, self.names, *STRICT))


@dataclass(frozen=True)
class _Taken:
    """What of a block has one shape, as columns, and the lines that are left."""

    steps: array[int]
    first: int
    last: int
    ordered: bool
    columns: tuple[array[float], ...]
    rest: bytes


class _Reader:
    """Takes blocks apart by the shapes of lines that it has met."""

    def __init__(self, curves: StitchedCurves) -> None:
        self._curves = curves
        self._shapes: list[_Shape] = []

    def take(self, block: bytes) -> None:
        """One piece of whole lines; the shape of the line before is most likely that of the next."""
        for shape in reversed(self._shapes):
            if not block:
                return
            block = self._by_shape(block, shape)
        while block and len(self._shapes) < SHAPES:
            new = next((found for line in _first_lines(block) if (found := _shape_of(line))), None)
            if new is None or new in self._shapes:
                break
            self._shapes.append(new)
            block = self._by_shape(block, new)
        for line in block.splitlines(keepends=True) if block else ():
            self._as_json(line)

    def _by_shape(self, block: bytes, shape: _Shape) -> bytes:
        """Take in what has this shape; the rest of the block."""
        taken = _taken(block, shape.quick, len(shape.names)) or _taken(block, shape.strict, len(shape.names))
        if taken is None or not taken.steps:
            return block
        session = self._curves.session(shape.session)
        session.spanned(taken.first, taken.last)
        for name, values in zip(shape.names, taken.columns):
            if name not in NOT_VALUES:
                session.values.setdefault(name, Column()).extend(taken.steps, values, ordered=taken.ordered)
        return taken.rest

    def _as_json(self, line: bytes) -> None:
        record = parsed_line(line)
        if record is None:
            self._curves.unreadable += bool(line.strip())
            return
        step, name = record.get("step"), record.get("session")
        if type(step) is not int or not 0 <= step <= LARGEST_STEP or not isinstance(name, str):
            return
        session = self._curves.session(name)
        evaluation = record.get("evaluation")
        if isinstance(evaluation, Mapping):
            put(session.evaluations, step, evaluation)
        else:
            session.spanned(step, step)
            put(session.values, step, values_of(record))


def put(columns: dict[str, Column], step: int, values: Mapping[str, Any]) -> None:
    """Add the values that are numbers."""
    for name, value in values.items():
        number = number_of(value)
        if number is not None and (name in columns or len(columns) < MOST_NAMES):
            columns.setdefault(name, Column()).add(step, number)


def _first_lines(block: bytes, most: int = 3) -> Iterator[bytes]:
    """The first lines: one of them may be an evaluation, or torn."""
    at = 0
    for _ in range(most):
        end = block.find(b"\n", at) + 1
        if not end:
            return
        yield block[at:end]
        at = end


def _taken(block: bytes, pattern: re.Pattern[bytes], names: int) -> _Taken | None:
    """Split a block by a pattern of whole lines; None where it took something that was no such line."""
    parts = pattern.split(block)  # what is between the lines, and the groups of each
    stride = names + 2
    between = parts[::stride]
    rest = b"".join(between)
    if rest and not all(piece.endswith(b"\n") for piece in between if piece):
        return None  # it began in the middle of a line
    if block.count(b"\n") - rest.count(b"\n") != len(between) - 1:
        return None  # it went on over the end of a line
    try:
        steps = list(map(int, parts[1::stride]))
        columns = tuple(array("d", map(float, parts[place::stride])) for place in range(2, names + 2))
    except ValueError:  # something that only looked like a number
        return None
    first, last = min(steps, default=0), max(steps, default=0)
    if first < 0 or last > LARGEST_STEP:
        return None
    return _Taken(array("q", steps), first, last, steps == sorted(steps), columns, rest)


def _shape_of(line: bytes) -> _Shape | None:
    """The shape of a step's line that was written by us; None for any other line."""
    record = parsed_line(line)
    if record is None or json_line(record) != line or not 3 <= len(record) < 100:
        return None
    keys = list(record)
    session, samples = record.get("session"), record.get("samples")
    ours = keys[:3] == ["step", "session", "epoch"] and keys[-1] == "samples" and len(keys) > 4
    if not ours or not isinstance(session, str) or not isinstance(samples, list):
        return None
    names = tuple(keys[3:-1])
    if type(record["step"]) is not int or any(number_of(record[name]) is None for name in names):
        return None
    return _Shape(session, names)


def _pattern(session: str, names: tuple[str, ...], begin: bytes, whole: bytes, number: bytes, listed: bytes) -> bytes:
    """A regular expression for lines of this session that hold these values."""
    values = b",".join(re.escape(_json(name)) + b":" + number for name in names)
    head = rb'%s\{"step":(%s),"session":%s,"epoch":%s,' % (begin, whole, re.escape(_json(session)), whole)
    return head + values + rb',"samples":\[%s\]\}\n' % listed


def _json(value: Any) -> bytes:
    return as_bytes(json.dumps(value, ensure_ascii=False))  # as a line of a record has it
