"""State that lives in the process and is not tracked would not survive an interruption, so it is named.

It is looked for after the first two steps of a session, and at its saves: first things that have a state of their own,
then values that change. What is looked at is whatever a loop can hold on to: from the variables of all functions that
are running and of the script's own modules through attributes, lists, dicts and closures. What torch made and no name
leads to is found among all objects of the process.

Variables that a loop carries from one step to the next (a counter, a sum, a batch that was drawn ahead) are found in
the function's bytecode as a compiler finds them: the body of the loop sets them, and may read them before
(live-variable analysis: Aho, Lam, Sethi, Ullman, Compilers, 9.2.5). A resumed session begins with what they are before
the loop.
"""

from __future__ import annotations

import dis
import gc
import inspect
import re
import sys
import zlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
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
from unbroken.train.state.built_parts import BuiltParts
from unbroken.train.state.held import (
    MOST_ITEMS,
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
MOST_NUMBERS = 4096  # of an array
FEW = 4  # items of a list that counts in place; of a longer one only the length tells
A_DAY_S = 86_400.0
HOLD_OF_USERS = {"builtins", "collections", "types", "functools", "argparse", "random", "array", "enum"}
Seen = dict[str, object]  # what tells that a value changed, by the way to it
MADE_BY_TORCH = (Optimizer, LRScheduler, ReduceLROnPlateau, GradScaler, AveragedModel)
ACCESS = re.compile("(LOAD|STORE)_(?:FAST|NAME|DEREF|GLOBAL)")
NO_NEXT = re.compile("RETURN|RAISE|RERAISE|JUMP_(?:FORWARD|BACKWARD|ABSOLUTE)")


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
        self._dataset: object = None
        self._copied = False  # loader workers have it as it was when they began, whatever is tracked
        self._kept: tuple[object, ...] = ()  # a stream whose own state is part of the run's, and all that is in it

    def look(self, step: int, feed: AnyFeed | None) -> None:
        """Say what is not tracked, also of the data set; with `strict`, raise UsageError instead."""
        dataset = self._dataset = feed.dataset if feed is not None else None
        self._copied = feed is not None and feed.batching.workers > 0
        if isinstance(feed, StreamFeed) and feed.stateful is not None:
            self._kept = (feed.stateful, feed.batches)
        self._first = step if self._first is None else self._first
        if self._done or step <= self._first + (self._before is not None):
            return
        try:
            if self._before is None:
                seeded = [*feed.batching.generators] if feed is not None else []
                if feed is not None:
                    seeded += [each for _, each in random_holders(dataset, feed.batching.collate)]
                found = forgotten(self._tracked, self._roots(dataset), [*seeded, *self._kept])
                sentences = [f"warning: {each}" for each in in_words(found)]
                self._before = self._values(dataset)
            else:
                self._done = True
                names = sorted({*self._carried(), *self._changed(self._before)})
                sentences = [f"note: {_in_words(names, 'from step to step')}"] if names else []
        except Exception as error:  # noqa: BLE001 - a thing of the script's may do what it likes when it is looked at
            self._done = True
            sentences = [f"note: what is not tracked could not be looked for ({type(error).__name__}: {error})"]
        self._report(sentences)

    def look_again(self, attributes: Attributes, built: BuiltParts) -> None:
        """A save comes: name what has changed meanwhile and is in none, or in this one alone, as other layers are.

        `attributes` are those of tracked modules, `built` their weights.
        """
        for change in built.changes():
            self._say(change)
        try:
            names = [*attributes.lost(), *(self._changed(self._before) if self._done and self._before else ())]
        except Exception:  # noqa: BLE001 - as above; that it could not be looked at was said
            return
        if names:
            self._say(f"note: {_in_words(names, 'in this training')}")

    def _changed(self, before: Seen) -> list[str]:
        """The values that are not what they were after the first step, each once."""
        now = self._values(self._dataset)
        names = [
            name
            for name, value in now.items()
            if name not in self._named and before.get(name, value) != value
            if not (name.endswith("]") and before[name][0] != value[0])  # type: ignore[index]  # of another dict or list
        ]
        self._named.update(names)
        return [name for name in names if name.removesuffix("[...]") not in names or not name.endswith("[...]")]

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

    def _roots(self, dataset: object) -> list[tuple[str, Any]]:
        return [*roots(frames_with(self._run)), ("dataset", dataset)]

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

    def _values(self, dataset: object) -> Seen:
        """The plain attributes of the script's own things, what its dicts count, and the lengths of its lists."""
        known, found = self._known(), Seen()
        for frame in frames_with(self._run):
            for name, item in _data_in(frame):
                if id(item) not in known:
                    found[name] = _plain(item) or _items(item)
        for path, value in reachable(self._roots(dataset), _held):
            if id(value) in known or value is self._run:
                continue
            if isinstance(value, list | deque | dict) and "[" not in path:
                found[path] = len(value)
                items = dict.items(value) if isinstance(value, dict) else enumerate(value if len(value) <= FEW else ())
                plain = ((key, item) for key, item in islice(items, MOST_ITEMS) if isinstance(item, int | float | str))
                found |= {f"{path}[{key!r}]": (id(value), repr(item)) for key, item in plain}
            elif is_users_class(type(value)):
                for name, item in attributes(value):
                    if id(item) in known and not self._copied:
                        continue
                    if (each := _plain(item)) is not None:
                        found[f"{path}.{name}"] = each
                    elif (inside := _items(item)) is not None:
                        found[f"{path}.{name}[...]"] = id(item), inside
        return found


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
    """The tensors and arrays that are tracked: items of dicts and lists, buffers of modules."""
    held = set[int]()
    for part in tracked.values():
        if isinstance(part, nn.Module):
            held |= {id(each) for each in part.buffers()}
        elif isinstance(part, dict | list | deque):
            held |= {id(each) for each in (part.values() if isinstance(part, dict) else part)}
    return held


def _data_in(frame: FrameType) -> Iterator[tuple[str, Any]]:
    """The tensors and arrays in variables that no loop around the frame's present instruction sets anew."""
    loops = _loops_around([*dis.get_instructions(frame.f_code)], frame.f_lasti)
    anew = {name for loop in loops for each in loop for kind, name in _accesses(each) if kind == "STORE"}
    for name, item in frame.f_locals.items():
        if (
            isinstance(item, torch.Tensor | np.ndarray)
            and name not in anew
            and not getattr(item, "requires_grad", False)
        ):
            yield name, item


def _items(value: Any) -> object:
    """What tells whether something was put into a thing; of a large array some numbers are looked at."""
    match value:
        case list() | deque() | dict():
            items = value.values() if isinstance(value, dict) else value if len(value) > FEW else ()
            return len(value), hash(tuple(map(_mark, islice(items, MOST_ITEMS))))
        case set():
            return len(value)
        case np.ndarray() if not value.dtype.hasobject and not isinstance(value, np.memmap) and value.flags.forc:
            flat = value.ravel(order="K")
            return zlib.crc32(flat[:: max(1, flat.size // MOST_NUMBERS)].tobytes())
    return None


def _mark(item: Any) -> object:
    """One item of many: its value where it is plain, else which object it is."""
    plain = isinstance(item, int | float | str | None)
    return repr(item) if plain else (id(item), item._version if isinstance(item, torch.Tensor) else 0)


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
        if isinstance(self.value, GeneratorType | _BaseDataLoaderIter):
            return f"{name} holds a place in its data and is not tracked: a resumed session begins it anew"
        if isinstance(self.value, SystemRandom):
            return f"{name} draws from the system, which gives nothing twice: no session can be repeated"
        return f"{name} lives in this process and is not tracked: its state would be lost"


def forgotten(
    tracked: Mapping[str, Any], variables: Iterable[tuple[str, Any]], seeded: Iterable[Any] = ()
) -> list[Forgotten]:
    """What can be reached from these variables, or was made by torch, and is neither tracked nor inside of what is.

    Generators that are `seeded` need no state.
    """
    alive = _made_by_torch()
    modules, known, found = _Modules(tracked, alive), inside([*tracked.values(), *seeded]), []
    for path, value in reachable(variables):
        if id(value) not in known and _is_stateful(value, modules):
            found.append(Forgotten(path=path, value=value))
            known |= inside([value])  # of a wrapper only the whole is named
    if any(id(each) not in known and modules.concern(each, known) for each in alive):
        del alive
        gc.collect()  # a schedule and its optimizer keep each other alive until then
        for each in _made_by_torch():
            if id(each) not in known and modules.concern(each, known):
                found.append(Forgotten(path="", value=each))
                known |= inside([each])
    return found


def in_words(found: list[Forgotten]) -> list[str]:
    """A line for each, as many as a person reads."""
    more = len(found) - MOST_NAMED
    return [str(each) for each in found[:MOST_NAMED]] + ([f"{more} more things are not tracked"] if more > 0 else [])


class _Modules:
    """Which modules change in this training: an optimizer or a gradient knows their weights, or they are copies."""

    def __init__(self, tracked: Mapping[str, Any], made_by_torch: Sequence[Any]) -> None:
        modules = [part for part in tracked.values() if isinstance(part, nn.Module)]
        self._tracked = {id(each) for module in modules for each in module.parameters()}
        self._forms = [_form(module) for module in modules]
        groups = [group for each in made_by_torch if isinstance(each, Optimizer) for group in each.param_groups]
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
        return id(getattr(each, "optimizer", None)) in known


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


def carried(frame: FrameType) -> list[str]:
    """The variables that the loops around the frame's present instruction carry, in alphabetical order."""
    code = [*dis.get_instructions(frame.f_code)]
    return sorted({name for loop in _loops_around(code, frame.f_lasti) for name in _carried_by(loop)})


def _loops_around(code: list[dis.Instruction], at: int) -> Iterator[list[dis.Instruction]]:
    """The instructions of each loop: from the target of a jump back to that jump, or to the last one to there."""
    last: dict[int, int] = {}
    for each in code:
        target = _target(each)
        if target is not None and target <= each.offset:
            last[target] = each.offset
    for first, end in last.items():
        if first <= at <= end:
            yield [each for each in code if first <= each.offset <= end]


def _carried_by(loop: list[dis.Instruction]) -> set[str]:
    live: list[set[str]] = [set() for _ in loop]  # ahead of each instruction, until the loop's next turn
    place = {each.offset: number for number, each in enumerate(loop)}
    changed = True
    while changed:
        changed = False
        for number in range(len(loop) - 1, -1, -1):
            found = set().union(*(live[after] for after in _after(loop, place, number)))
            for kind, name in reversed(_accesses(loop[number])):
                found = found | {name} if kind == "LOAD" else found - {name}
            changed |= found != live[number]
            live[number] = found
    return live[0] & {name for each in loop for kind, name in _accesses(each) if kind == "STORE"}


def _after(loop: list[dis.Instruction], place: dict[int, int], number: int) -> Iterator[int]:
    """What may come next in this turn of the loop; an inner loop over a range is left only after its first turn."""
    each = loop[number]
    if NO_NEXT.match(each.opname) is None and number + 1 < len(loop):
        yield number + 1
    target = _target(each)
    to = place.get(target, 0) if target is not None else 0  # 0: this turn is over
    if to > 0 and not _goes_over_range(loop, number):
        yield to
    if 0 < to < number and _goes_over_range(loop, to) and (left := place.get(loop[to].argval, 0)) > 0:
        yield left


def _goes_over_range(loop: list[dis.Instruction], number: int) -> bool:
    """Whether here begins each turn of `for ... in range(...)`: what such a loop sets is set after it."""
    if number == 0 or loop[number].opname != "FOR_ITER":
        return False
    first = max(at for at in range(number) if loop[at].starts_line or at == 0)
    return bool(next(each.argval for each in loop[first:] if each.opname != "PUSH_NULL") == "range")


def _target(each: dis.Instruction) -> int | None:
    return each.argval if each.opcode in dis.hasjrel or each.opcode in dis.hasjabs else None


def _accesses(each: dis.Instruction) -> list[tuple[str, str]]:
    """Which variables an instruction reads and sets, in its order; newer interpreters join two in one."""
    kinds = ACCESS.findall(each.opname)
    names = each.argval if isinstance(each.argval, tuple) else (each.argval,)
    return list(zip(kinds, names)) if "_AND_CLEAR" not in each.opname else []
