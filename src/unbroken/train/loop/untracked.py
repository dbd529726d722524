"""State that lives in the process and is not tracked would not survive an interruption, so it is named.

It is looked for after the first two steps of a session, and at its saves: first things that have a state of their own,
then values that change. What is looked at is whatever a loop can hold on to: from the variables of all functions that
are running and of the script's own modules through attributes, lists, dicts and closures. What torch made and no name
leads to is found among all objects of the process.

Variables that a loop carries from one step to the next (a counter, a sum, a batch that was drawn ahead) are found in
the function's bytecode (`live_variables.py`). A resumed session begins with what they are before the loop.
"""

from __future__ import annotations

import gc
import inspect
import operator
import sys
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from random import SystemRandom
from types import FrameType, GeneratorType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel
from torch.utils.data.dataloader import _BaseDataLoaderIter

from unbroken.clock import Clock
from unbroken.errors import UsageError
from unbroken.quantities import some_of
from unbroken.train.data.feed import AnyFeed
from unbroken.train.data.random_holders import DRAWN_FROM, GLOBAL, random_holders
from unbroken.train.data.stream import StreamFeed
from unbroken.train.loop.epoch_beginning import leads_to
from unbroken.train.loop.live_variables import carried, set_anew
from unbroken.train.state.built_parts import BuiltParts
from unbroken.train.state.held import (
    MOST_ITEMS,
    OF_ANY_OPTIMIZER,
    attributes,
    frames_with,
    held_by,
    inside,
    is_users,
    is_users_class,
    reachable,
    roots,
)
from unbroken.train.state.module_attributes import Attributes

MOST_NAMED = 8
MOST_NUMBERS = 4096  # of an array or a list
MOST_INSIDE = 20  # items of a list within another one
FEW = 4  # items of a list that are named one by one
A_DAY_S = 86_400.0
HOLD_OF_USERS = {"builtins", "collections", "types", "functools", "argparse", "random", "array", "enum"}
Seen = dict[str, object]  # what tells that a value changed, by the way to it
OF_PYTHON = ("builtins", "itertools")  # whose iterators tell nobody where they are
MADE_BY_TORCH = (Optimizer, LRScheduler, ReduceLROnPlateau, GradScaler, AveragedModel)


class Untracked:
    """Looks when the first step is done, for things with a state of their own, after the second one for values, and at
    each save for those that have changed since: at the end of an epoch, say.

    `run` is what the loop goes over: only functions that know it, and those they called, are part of the loop.
    """

    def __init__(
        self, run: object, tracked: Mapping[str, Any], say: Callable[[str], None], clock: Clock, *, strict: bool
    ) -> None:
        self._run, self._tracked, self._say, self._clock, self._strict = run, tracked, say, clock, strict
        self._first: int | None = None
        self._before: Seen | None = None
        self._done = False
        self._named = set[str]()  # so far
        self._feed: AnyFeed | None = None
        self._alive: list[Any] = []  # what is compared as one object, so that none made later takes its address
        self._copied = False  # loader workers have it as it was when they began, whatever is tracked
        self._kept: tuple[object, ...] = ()  # a stream whose own state is part of the run's, and all that is in it

    def look(self, step: int, feed: AnyFeed | None) -> None:
        """Say what is not tracked, also of the data set; with `strict`, raise UsageError instead."""
        self._feed = feed
        self._copied = feed is not None and feed.batching.workers > 0
        # What a library's stream notes of its way comes again where it is read again.
        if isinstance(feed, StreamFeed) and (feed.stateful is not None or not is_users_class(type(feed.dataset))):
            self._kept = (feed.stateful, feed.batches, feed.dataset)
        self._first = step if self._first is None else self._first
        if self._done or step <= self._first + (self._before is not None):
            return
        try:
            if self._before is None:
                sentences = self._forgotten([*_made_by_torch(), *beside_batches(self._run)])
                self._before = self._values()
            else:
                self._done = True
                names = sorted({*self._carried(), *self._changed(self._before)})
                self._alive.clear()
                sentences = [f"note: {_in_words(names, 'from step to step')}"] if names else []
        except Exception as error:  # noqa: BLE001 - a thing of the script's may do what it likes when it is looked at
            self._done = True
            sentences = [f"note: what is not tracked could not be looked for ({type(error).__name__}: {error})"]
        self._report(sentences)

    def look_for_more(self) -> None:
        """Say what has a state, is not tracked and was made since: an average that begins late, a new optimizer."""
        try:
            sentences = self._forgotten([])
        except Exception:  # noqa: BLE001 - as above; that it could not be looked at was said
            return
        self._report(sentences)

    def _forgotten(self, alive: list[Any]) -> list[str]:
        """What has a state and is not tracked, in words; each once."""
        feed, seeded = self._feed, [*self._kept]
        if feed is not None:
            seeded += feed.batching.generators
            seeded += [each for _, each in random_holders(feed.dataset, feed.batching.collate)]
        anew = {name for frame in frames_with(self._run) for name in set_anew(frame)}
        variables = ((name, value) for name, value in self._roots() if name not in anew or not is_counting(value))
        found = forgotten(self._tracked, variables, seeded, alive=alive, batches=self._run)
        new = [each for each in found if str(each) not in self._named]
        self._named.update(map(str, new))
        return [f"warning: {each}" for each in in_words(new)]

    def look_again(self, attributes: Attributes, built: BuiltParts) -> None:
        """A save comes: name what has changed meanwhile and is in none, or in this one alone, as other layers are.

        `attributes` are those of tracked modules, `built` their weights.
        """
        for change in built.changes():
            self._say(change)
        if self._done:
            self.look_for_more()
        try:
            names = [*attributes.lost(), *(self._changed(self._before) if self._done and self._before else ())]
        except Exception:  # noqa: BLE001 - as above; that it could not be looked at was said
            return
        if names:
            self._say(f"note: {_in_words(names, 'in this training')}")

    def _changed(self, before: Seen) -> list[str]:
        """The values that are not what they were after the first step, each once."""
        now = self._values()
        # Another dict or list in the place of the one before is no change of it: it is not compared any more.
        others = {
            name for name, value in now.items() if name.endswith("]") and _of(before.get(name, value)) != _of(value)
        }
        names = [
            name
            for name, value in now.items()
            if name not in self._named and name not in others and before.get(name, value) != value
        ]
        self._named |= {*names, *others}
        in_parts = {name.rpartition("[")[0] for name in names if not name.endswith("[...]")}
        wholes = {*names, *in_parts}
        return [name for name in names if name.removesuffix("[...]") not in wholes or not name.endswith("[...]")]

    def _report(self, sentences: Sequence[str]) -> None:
        if sentences and self._strict:
            raise UsageError(
                "run.track",
                "not everything that changes is tracked, and strict=True asks for that",
                found="\n  ".join(sentences),
                do="Track it: run.track(name=...); plain values in a dict: run.track(counters={...}).",
            )
        for sentence in sentences:
            self._say(sentence)

    def _roots(self) -> list[tuple[str, Any]]:
        return [*roots(frames_with(self._run)), ("dataset", self._feed.dataset if self._feed is not None else None)]

    def _known(self) -> set[int]:
        return inside([*self._tracked.values(), *self._kept]) | _data_of(self._tracked)

    def _carried(self) -> list[str]:
        """Variables that the loop takes from one step into the next."""
        known, now_s = self._known(), self._clock.now().timestamp()
        return [
            name
            for frame in frames_with(self._run)
            for name in carried(frame)
            if id(value := frame.f_locals.get(name)) not in known
            and not isinstance(value, Optimizer | nn.Module)
            and not (isinstance(value, float) and abs(value - now_s) < A_DAY_S)  # it tells the time
        ]

    def _values(self) -> Seen:
        """What tells that something changed: plain attributes of the script's own things, what lists and dicts hold,
        buffers of modules, and of tracked things what their state leaves out.
        """
        known, found, anew = self._known(), Seen(), set[str]()
        read = inside([self._feed.dataset]) if self._feed is not None else set[int]()
        for frame in frames_with(self._run):
            anew |= set_anew(frame)
            for name, item in _data_in(frame):
                if id(item) not in known:
                    found[name] = _plain(item) or _items(item, known)
        for part, thing in self._tracked.items():
            for name, item in left_out(thing, alike=self._before is not None):
                found[f"{part}.{name}"] = _plain(item) or _items(item, known)
        for path, value in reachable(self._roots(), _held):
            if id(value) in known or value is self._run:
                continue
            if isinstance(value, nn.Module):
                found |= {f"{path}.{name}": _plain(each) for name, each in value.named_buffers(recurse=False)}
            if isinstance(value, list | deque | dict) and "[" not in path:
                found[path] = len(value)
                items = dict.items(value) if isinstance(value, dict) else enumerate(value if len(value) <= FEW else ())
                plain = ((key, item) for key, item in islice(items, MOST_ITEMS) if isinstance(item, int | float | str))
                found |= {f"{path}[{key!r}]": (id(value), repr(item)) for key, item in plain}
                if path not in anew:
                    found.setdefault(f"{path}[...]", (id(value), _items(value, known)))
                    self._alive.append(value)
            elif is_users_class(type(value)):
                for name, item in attributes(value):
                    if id(item) in known and not self._copied:
                        continue
                    if (each := _plain(item)) is not None:
                        found[f"{path}.{name}"] = each
                    elif (inner := _items(item, known)) is not None:
                        # A sample may depend on nothing that was read before, in whichever list it is kept.
                        found[f"{path}.{name}[...]"] = 0 if id(value) in read else id(item), inner
                        self._alive.append(item)
        if self._done:
            self._alive.clear()
        return found


def _of(seen: object) -> object:  # which dict or list it is an item of
    return seen[0] if isinstance(seen, tuple) else None


def _held(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a thing holds; not what loggers, queues and threads of Python keep of their own work."""
    module = type(value).__module__.partition(".")[0]
    return iter(()) if module in sys.stdlib_module_names and module not in HOLD_OF_USERS else held_by(path, value)


def _plain(value: Any) -> object:
    """What tells one value from another; None for what is no value."""
    match value:
        case float():
            return repr(value)  # a NaN is itself
        case bool() | int() | str() | np.number():
            return value
        case torch.Tensor():
            return id(value), value._version
    return None


def _data_of(tracked: Mapping[str, Any]) -> set[int]:
    """The tensors and arrays that are tracked: items of dicts and lists, weights and buffers of modules."""
    held = set[int]()
    for part in tracked.values():
        if isinstance(part, nn.Module):
            held |= {id(each) for each in chain(part.parameters(), part.buffers())}
        elif isinstance(part, dict | list | deque):
            held |= {id(each) for each in (part.values() if isinstance(part, dict) else part)}
    return held


def _data_in(frame: FrameType) -> Iterator[tuple[str, Any]]:
    """The tensors and arrays in variables that no loop around the frame's present instruction sets anew."""
    anew = set_anew(frame)
    for name, item in frame.f_locals.items():
        if (
            isinstance(item, torch.Tensor | np.ndarray)
            and name not in anew
            and not getattr(item, "requires_grad", False)
        ):
            yield name, item


def _items(value: Any, known: Collection[int]) -> object:
    """What tells whether something was put into a thing; of one with many items some are looked at.

    Of items that are `known`, as tracked weights are, only which they are.
    """
    match value:
        case list() | deque() | dict():
            items = dict.values(value) if isinstance(value, dict) else value
            some = islice(items, 0, None, max(1, len(value) // MOST_NUMBERS))
            return len(value), hash(tuple(_mark(item, known) for item in some))
        case set():
            return len(value)
        case np.ndarray() if not value.dtype.hasobject and not isinstance(value, np.memmap) and value.flags.forc:
            flat = value.ravel(order="K")
            return zlib.crc32(flat[:: max(1, flat.size // MOST_NUMBERS)].tobytes())
    return None


def _mark(item: Any, known: Collection[int], depth: int = 1) -> object:
    """One item of many: its value where it is plain, else which object it is; of a list what is in it."""
    if isinstance(item, int | float | str):
        return repr(item)
    if id(item) in known:
        return id(item)
    if depth and isinstance(item, list | tuple | dict):
        inner = dict.values(item) if isinstance(item, dict) else item
        return len(item), tuple(_mark(each, known, depth - 1) for each in islice(inner, MOST_INSIDE))
    return _plain(item) or id(item)


def left_out(part: Any, *, alike: bool) -> Iterator[tuple[str, Any]]:
    """The attributes of a thing of a script's own class that its state does not hold by name, nor, with `alike`, under
    another one: of a count that is 1 nothing is known before it is 2.

    Modules keep theirs beside their state (`module_attributes.py`).
    """
    if isinstance(part, nn.Module) or not (is_users_class(type(part)) and hasattr(part, "state_dict")):
        return
    names, kept, todo = set[str](), set[object](), [part.state_dict()]
    while todo:
        value = todo.pop()
        kept |= {id(value), _likeness(value)}
        if isinstance(value, dict):
            names.update(str(name).strip("_") for name in value)
        todo += [*dict.values(value)] if isinstance(value, dict) else value if isinstance(value, list | tuple) else []
    names |= OF_ANY_OPTIMIZER if isinstance(part, Optimizer) else set()
    for name, item in attributes(part):
        held = name in names or name.strip("_") in names or (alike and _likeness(item) in kept)
        if not held and (isinstance(item, int | float | str) or id(item) not in kept):
            yield name, item


def _likeness(value: Any) -> object:
    """What a value and its copy in a state have in common."""
    match value:
        case torch.Tensor() | np.ndarray():
            return tuple(value.shape), str(value.dtype)
        case list() | tuple() | deque() | dict() | set():
            return "items", len(value)
        case int() | float() | str():
            return repr(value)
    return id(value)


def _in_words(names: Sequence[str], when: str) -> str:
    listed = some_of([f"`{name}`" for name in names], MOST_NAMED)
    change = "changes" if len(names) == 1 else "change"
    is_not = "is not" if len(names) == 1 else "are not"
    return (
        f"{listed} {change} {when} and {is_not} tracked: a resumed session begins with what stands "
        "there before the loop"
    )


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """A thing that is not tracked, and how the script gets at it ("" where no name leads to it)."""

    path: str
    value: Any

    def __str__(self) -> str:
        kind = type(self.value).__name__
        name = f"`{self.path}` ({kind})" if self.path else f"a {kind} to which no variable of the script leads"
        if isinstance(self.value, GeneratorType | _BaseDataLoaderIter) or is_counting(self.value):
            return f"{name} holds a place in its data and is not tracked: a resumed session begins it anew"
        if isinstance(self.value, SystemRandom):
            return f"{name} draws from the system, which gives nothing twice: no session can be repeated"
        return f"{name} lives in this process and is not tracked: its state would be lost"


def forgotten(
    tracked: Mapping[str, Any],
    variables: Iterable[tuple[str, Any]],
    seeded: Iterable[Any] = (),
    *,
    alive: list[Any],
    batches: object = None,
) -> list[Forgotten]:
    """What can be reached from these variables, or is `alive`, and is neither tracked nor inside of what is.

    Generators that are `seeded` need no state. What goes through the `batches` of the run holds no place of its own.
    """
    reached = [*reachable(variables)]
    optimizers = [each for each in (*alive, *(value for _, value in reached)) if isinstance(each, Optimizer)]
    modules, known, found = _Modules(tracked, optimizers), inside([*tracked.values(), *seeded]), []
    for path, value in reached:
        counts = is_counting(value) and not leads_to(value, batches) and not _is_spent(value)
        if id(value) not in known and (counts or _is_stateful(value, modules)):
            found.append(Forgotten(path=path, value=value))
            known |= inside([value])  # of a wrapper only the whole is named
    concern = [each for each in alive if id(each) not in known and modules.concern(each, known)]
    places = [each for each in concern if not isinstance(each, MADE_BY_TORCH)]
    found += [Forgotten(path="zip(...)", value=each) for each in places]
    if len(concern) > len(places):
        alive.clear()
        del concern, reached, optimizers
        gc.collect()  # a schedule and its optimizer keep each other alive until then
        for each in _made_by_torch():
            if id(each) not in known and modules.concern(each, known):
                found.append(Forgotten(path="", value=each))
                known |= inside([each])
    return found


def beside_batches(run: object) -> list[Any]:
    """What a `zip` takes beside the batches of the run: it is at its beginning again where a session begins."""
    zips = [each for each in gc.get_objects() if type(each) is zip and leads_to(each, run)]
    beside = [item for each in zips for pair in gc.get_referents(each) if type(pair) is tuple for item in pair]
    return [each for each in beside if hasattr(each, "__next__") and not leads_to([each], run)]


def is_counting(value: Any) -> bool:
    """Whether it is an iterator of Python's own, which goes on from where it is and says to nobody where that is."""
    return type(value).__module__ in OF_PYTHON and hasattr(value, "__next__") and not isinstance(value, GeneratorType)


def _is_spent(counting: Any) -> bool:
    """Whether an iterator of Python's own gives nothing any more, so far as that can be told without asking it."""
    if not isinstance(counting, zip | map | filter | enumerate):
        return operator.length_hint(counting, 1) == 0
    held = gc.get_referents(counting)
    inner = [each for one in held for each in (one if type(one) is tuple else (one,)) if is_counting(each)]
    return any(map(_is_spent, inner))


def in_words(found: list[Forgotten]) -> list[str]:
    """A line for each, as many as a person reads."""
    more = len(found) - MOST_NAMED
    return [str(each) for each in found[:MOST_NAMED]] + ([f"{more} more things are not tracked"] if more > 0 else [])


class _Modules:
    """Which modules change in this training: an optimizer or a gradient knows their weights, or they are copies."""

    def __init__(self, tracked: Mapping[str, Any], optimizers: Sequence[Optimizer]) -> None:
        modules = [part for part in tracked.values() if isinstance(part, nn.Module)]
        self._tracked = {id(each) for module in modules for each in module.parameters()}
        self._forms = [_form(module) for module in modules]
        groups = [group for each in optimizers for group in each.param_groups]
        self._optimized = {id(each) for group in groups for each in group["params"]}

    def changes(self, module: nn.Module) -> bool:
        """Whether it has weights of its own that are trained, or is built like a tracked one (an average, a target)."""
        own = [each for each in module.parameters() if id(each) not in self._tracked]
        trained = any(id(each) in self._optimized or each.grad is not None for each in own)
        return trained or (bool(own) and _form(module) in self._forms)

    def concern(self, each: Any, known: Collection[int]) -> bool:
        """Whether what no variable leads to is of this training, and not of an earlier one in this process."""
        if isinstance(each, Optimizer):
            return any(id(weight) in self._tracked for group in each.param_groups for weight in group["params"])
        return not isinstance(each, MADE_BY_TORCH) or id(getattr(each, "optimizer", None)) in known


def _form(module: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, each.shape) for name, each in module.named_parameters() if not is_lazy(each)]


def _is_stateful(value: Any, modules: _Modules) -> bool:
    match value:
        case GradScaler():
            return value.is_enabled()
        case nn.Module() if not isinstance(value, AveragedModel):
            return modules.changes(value)
        case GeneratorType():
            return is_users(value.gi_code) and inspect.getgeneratorstate(value) == inspect.GEN_SUSPENDED
    kinds = (*MADE_BY_TORCH, *DRAWN_FROM, _BaseDataLoaderIter)
    return isinstance(value, kinds) and not any(value is each for each in GLOBAL)


def _made_by_torch() -> list[Any]:
    alive = gc.get_objects()  # a million in a large process: what is done for each of them is as little as can be
    kinds = {kind for kind in set(map(type, alive)) if issubclass(kind, MADE_BY_TORCH)}
    made = [each for each in alive if type(each) in kinds]
    return [each for each in made if not (isinstance(each, GradScaler) and not each.is_enabled())]
