"""Random generators that a data set holds or draws from: found wherever they are, and begun anew for each sample.

An item is then a function of (seed, epoch, sample): it does not matter how many were read before it, nor in which
process. A generator is known by the way to it from the data set, which is the same in every process.
"""

from __future__ import annotations

import hashlib
import random
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import _lru_cache_wrapper
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from weakref import WeakSet

import numpy as np
import torch

from unbroken.train.data.rng import CPU_STREAMS, Stream
from unbroken.train.state.held import (
    MOST_ITEMS,
    held_by,
    holders,
    inside,
    is_bound,
    is_users_class,
    is_users_file,
    reachable,
)

DRAWN_FROM = (torch.Generator, np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random)
GLOBAL = (torch.default_generator, np.random.mtrand._rand, random._inst)  # which are nobody's own
TRIED: WeakSet[Any] = WeakSet()  # functions that remember, of which it is known whether they draw
DRAW: WeakSet[Any] = WeakSet()  # those that do
BITS_128 = (1 << 128) - 1
LOOKS = frozenset(
    ("initial_seed", "get_rng_state", "fork_rng", "get_state", "getstate", "default_generator")
)  # at a stream
TRIALS = 8  # samples of which it is seen what they draw from, before any is read in the belief that it draws nothing


@dataclass(frozen=True)
class GeneratorRow:
    """A long list or dict of generators, one for each sample: of these the one with the sample's number is meant."""

    entries: Sequence[Any] | Mapping[Any, Any]


class Holders:
    """The generators of a data set, and of what joins its samples, in this process; others look for their own.

    Those within `but`, which keep their states, are left alone.
    """

    def __init__(self, dataset: Any, join: Any = None, but: Iterable[Any] = ()) -> None:
        self._roots, self._but = (dataset, join), but
        self._epoch: int | None = None  # of which they were looked for
        self._found: list[tuple[bytes, Any]] | None = None
        self._caches: list[Any] = []  # functions that remember what they gave (functools.lru_cache, cache)
        self._trials = TRIALS  # samples that still are to show which global streams they are drawn from
        self._drawn: tuple[Stream, ...] = ()  # those that are
        self._undrawn: tuple[Stream, ...] = CPU_STREAMS  # the others
        self._untried = False  # whether it is not known of all functions that remember whether they draw
        self._drew = False  # whether the sample did that was watched last

    def __reduce__(self) -> tuple[type[Holders], tuple[Any, Any]]:
        """As a new process begins."""
        return Holders, self._roots

    def read(self, read: Callable[[], Any], *, seed: int, epoch: int, sample: int, row: Any) -> Any:
        """What `read` gives once all are seeded for this sample, of a row of them the one of that number.

        They are looked for at the first sample of each epoch. Where reading it made some, as data sets do that make
        theirs in a loader worker, it is read again: what it drew from them began anywhere. What a function has
        remembered is forgotten before each sample, where it draws.
        """
        if first := epoch != self._epoch:
            self.look()
        self._untried = not TRIED.issuperset(self._caches)
        if not DRAW.isdisjoint(self._caches):
            self._forget()
        self.seed(seed, epoch, sample, row=row)
        item = read()
        if first:
            self._epoch = epoch
            if self.look():
                self._forget()
                self.seed(seed, epoch, sample, row=row)
                item = read()
        if self._untried and self._drew:
            self._forget()
            self.seed(seed, epoch, sample, row=row)
            read()
            item = self._read_again(read, lambda: self.seed(seed, epoch, sample, row=row))
        return item

    def undrawn(self, epoch: int) -> tuple[Stream, ...]:
        """The global streams that nothing was seen to draw from; none where each sample begins all that there is."""
        if self._trials or self._found or epoch != self._epoch:
            return ()
        if self._caches and (self._drawn or not DRAW.isdisjoint(self._caches)):
            return ()
        return self._undrawn

    @property
    def drawn(self) -> tuple[Stream, ...]:
        """The global streams that are drawn from, as far as that was seen."""
        return self._drawn

    def note_drawn(self, streams: Iterable[Stream]) -> None:
        """Something draws from these, unseen so far: what was remembered since may be drawn, and is to be tried."""
        self._note(streams)
        TRIED.difference_update(self._caches)
        self._forget()

    def watched(self, read: Callable[[], Any]) -> Any:
        """What `read` gives; it is seen what the first samples draw from, and those of functions that are not tried."""
        if not self._trials and not self._untried:
            return read()
        before = self._states()
        item = read()
        now = self._states()
        self._trials, self._drew = max(self._trials - 1, 0), now != before
        self._note(stream for stream, one, other in zip(CPU_STREAMS, before, now) if one != other)
        return item

    def _note(self, drawn: Iterable[Stream]) -> None:
        self._drawn = tuple(dict.fromkeys((*self._drawn, *drawn)))
        self._undrawn = tuple(stream for stream in CPU_STREAMS if stream not in self._drawn)

    def _read_again(self, read: Callable[[], Any], begin_all: Callable[[], None]) -> Any:
        """See whether what is remembered is drawn: then a sample that is read twice draws less the second time."""
        before = self._states()
        begin_all()
        item = read()
        TRIED.update(self._caches)
        if self._states() != before:
            DRAW.update(self._caches)
            self._forget()
            begin_all()
            item = read()
        return item

    def _forget(self) -> None:
        for cache in self._caches:
            cache.cache_clear()

    def _states(self) -> list[object]:
        """Of the global streams, then of what was found."""
        holders = [holder for _, holder in self._found or () if not isinstance(holder, GeneratorRow)]
        return [*(stream.state() for stream in CPU_STREAMS), *(repr(_state_of(holder)) for holder in holders)]

    def seed(self, *name: object, row: Any = None) -> None:
        """Begin all under a name; of a row of them the one that is meant."""
        if self._found is None:
            self.look()
        if self._found:
            prefix = f"{':'.join(map(str, name))}:".encode()
            for path, holder in self._found:
                begin(holder, hashlib.sha256(prefix + path).digest(), row)

    def look(self) -> bool:
        """Find them; returns whether some were not there before."""
        before, but, things = self._found, inside(self._but), [*_reached(*self._roots)]
        self._found = [(path.encode(), each) for path, each in things if _is_holder(each) and id(each) not in but]
        self._caches = [each for _, each in things if isinstance(each, _lru_cache_wrapper)]
        if any(isinstance(each, FunctionType) and not LOOKS.isdisjoint(_names(each.__code__)) for _, each in things):
            self.note_drawn(CPU_STREAMS)
        known = {_identity(holder) for _, holder in before or ()}
        return any(_identity(holder) not in known for _, holder in self._found)


def _identity(holder: Any) -> int:
    return id(holder.entries if isinstance(holder, GeneratorRow) else holder)


def begin(holder: Any, entropy: bytes, row: Any = None) -> None:
    """Begin a generator, or the one of a row that is meant, from 32 random bytes."""
    number = int.from_bytes(entropy, "big")
    match holder:
        case np.random.Generator():
            begin(holder.bit_generator, entropy)
        case np.random.PCG64():  # at a tenth of what making another one costs
            state: Any = {
                "state": number >> 128,
                "inc": number & BITS_128 | 1,
            }
            holder.state = {"bit_generator": "PCG64", "state": state, "has_uint32": 0, "uinteger": 0}
        case np.random.BitGenerator():
            holder.state = type(holder)(number).state  # each kind takes a seed
        case np.random.RandomState() if isinstance(holder._bit_generator, np.random.MT19937):
            holder.seed(number % 2**32)
        case np.random.RandomState():
            holder.set_state(np.random.RandomState(type(holder._bit_generator)(number)).get_state(legacy=False))
        case random.Random():
            holder.seed(number)
        case torch.Generator():
            holder.manual_seed(number % 2**63)
        case GeneratorRow(entries=list() | tuple() as entries) if isinstance(row, int) and 0 <= row < len(entries):
            begin(entries[row], entropy)
        case GeneratorRow(entries=dict() as entries) if row in entries:
            begin(entries[row], entropy)


def random_holders(dataset: Any, join: Any = None) -> Iterator[tuple[str, Any]]:
    """The generators, and rows of them, that can be reached from a data set or what joins samples; the way to each."""
    return ((path, each) for path, each in _reached(dataset, join) if _is_holder(each))


def _is_holder(value: Any) -> bool:
    if any(value is each for each in GLOBAL) or isinstance(value, random.SystemRandom):  # that one takes no seed
        return False
    return isinstance(value, (*DRAWN_FROM, GeneratorRow))


def _state_of(generator: Any) -> object:
    match generator:
        case torch.Generator():
            return generator.get_state().tolist()
        case np.random.Generator():
            return generator.bit_generator.state
        case np.random.BitGenerator():
            return generator.state
        case np.random.RandomState():
            return generator.get_state(legacy=False)
        case random.Random():
            return generator.getstate()
    return None


def _reached(dataset: Any, join: Any) -> Iterator[tuple[str, Any]]:
    """Everything that a data set, or what joins samples, holds or names, with the way to it.

    Followed is what it holds at any depth, and what the code of its classes and functions names, in modules of the
    script. Of libraries, only generators that stand in the module of a class that is met.
    """
    met: set[type] = set()

    def held(path: str, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(value, list | tuple | dict) and len(value) > MOST_ITEMS:
            entries = value.values() if isinstance(value, dict) else value
            if isinstance(next(iter(entries)), DRAWN_FROM):
                yield path, GeneratorRow(value)
                return
        yield from held_by(path, value)
        if isinstance(value, FunctionType):
            yield from _used_by(path, value)
        elif isinstance(value, MethodType):
            yield path, value.__func__
        elif type(value) not in met:
            met.add(type(value))
            for each in type(value).__mro__:
                yield from _of_class(path, each)

    yield from reachable([("dataset", dataset), ("collate", join)], held)


def _of_class(path: str, kind: type) -> Iterator[tuple[str, Any]]:
    """What a class holds; of a library's, generators only, and those of its module."""
    names = [*vars(kind).items()]
    if is_users_class(kind):
        for name, item in holders(names):
            yield f"{path}.{name}", item.fget if isinstance(item, property) else getattr(item, "__func__", item)
    elif kind.__module__ != "builtins":
        names += vars(sys.modules[kind.__module__]).items() if kind.__module__ in sys.modules else ()
        yield from ((f"{path}.{name}", item) for name, item in names if isinstance(item, DRAWN_FROM))


def _used_by(path: str, function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function has besides its arguments: defaults, attributes, closure, and the globals that its code names."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or ())
    yield from ((f"{path}.{name}", cell.cell_contents) for name, cell in cells if is_bound(cell))
    yield from ((f"{path}({at})", item) for at, item in enumerate(function.__defaults__ or ()))
    yield from ((f"{path}({name})", item) for name, item in (function.__kwdefaults__ or {}).items())
    yield from ((f"{path}.{name}", item) for name, item in vars(function).items())
    own = is_users_file(function.__code__.co_filename)
    yield from _in_space(path, function.__globals__, [*_names(function.__code__)], own=own)


def _in_space(path: str, space: Mapping[str, Any], names: Sequence[str], *, own: bool) -> Iterator[tuple[str, Any]]:
    """What code means by these names, also where it goes through modules and classes (`augment.noise.rng`)."""
    todo, seen = [(path, space, own)], set[int]()
    while todo:
        path, space, own = todo.pop()
        if id(space) in seen:
            continue
        seen.add(id(space))
        for name in names:
            value = space.get(name)
            if value is None:
                value = sys.modules.get(name)
            if isinstance(value, ModuleType):
                todo.append((f"{path}.{name}", vars(value), is_users_file(getattr(value, "__file__", None) or "<")))
            elif isinstance(value, type):
                if is_users_class(value):
                    yield from _of_class(f"{path}.{name}", value)
            elif own or isinstance(value, DRAWN_FROM):
                yield f"{path}.{name}", value


def _names(code: CodeType) -> Iterator[str]:
    """The global and attribute names in a function's code and in that of the functions in it."""
    yield from code.co_names
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _names(each)
