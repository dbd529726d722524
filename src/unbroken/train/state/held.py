"""What a script holds: all that can be reached from the variables of its running functions and its modules."""

from __future__ import annotations

import sys
import sysconfig
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from itertools import islice
from pathlib import Path
from types import CodeType, FrameType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from unbroken import errors

NO_HOLDERS = (int, float, str, bytes, type(None), torch.Tensor, np.ndarray, ModuleType, type)
MOST_COMMON = frozenset((int, float, str, bytes, bool, type(None), type, ModuleType))  # they are seen at one glance
OF_ANY_MODULE = frozenset(vars(nn.Module()))
OF_ANY_OPTIMIZER = frozenset(vars(SGD([torch.zeros(1)])))
MOST_OBJECTS = 100_000  # that are looked into
Held = Callable[[str, Any], Iterator[tuple[str, Any]]]
MOST_ITEMS = 200  # of one list or dict: a list of a million files holds nothing else
OURS = str(Path(errors.__file__).resolve().parent)
LIBRARIES = (OURS, *filter(None, map(sysconfig.get_path, ("stdlib", "platstdlib", "purelib", "platlib"))))


def roots(frames: Iterable[FrameType]) -> Iterator[tuple[str, Any]]:
    """The variables of running functions and of the script's modules, by name."""
    spaces: dict[int, tuple[str, Mapping[str, Any]]] = {}
    for frame in frames:
        spaces[id(frame.f_globals)] = "", frame.f_globals
        if frame.f_locals is not frame.f_globals:
            spaces[id(frame)] = "", frame.f_locals
    for module in [*sys.modules.values()]:
        file = getattr(module, "__file__", None)
        if isinstance(file, str) and is_users_file(file):
            spaces.setdefault(id(vars(module)), (f"{module.__name__}.", vars(module)))
    for prefix, names in spaces.values():
        yield from ((prefix + name, value) for name, value in holders([*names.items()]) if not name.startswith("__"))


def reachable(variables: Iterable[tuple[str, Any]], held: Held | None = None) -> Iterator[tuple[str, Any]]:
    """Everything that these hold, nearest first, with the way to it; `held` says what a thing holds."""
    todo, seen = deque(variables), set[int]()
    while todo and len(seen) < MOST_OBJECTS:
        path, value = todo.popleft()
        if id(value) in seen or isinstance(value, NO_HOLDERS):
            continue
        seen.add(id(value))
        yield path, value
        with suppress(Exception):  # whatever a thing of the script's does when it is looked at, the training goes on
            todo.extend((held or held_by)(path, value))


def holders(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Those that may hold something: of most others the class says at once that they do not."""
    return ((key, value) for key, value in pairs if type(value) not in MOST_COMMON)


def held_by(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """What a thing holds, with the way to it: items, attributes, closures, the locals of generators."""
    match value:
        case dict():
            for key, item in holders(islice(dict.items(value), MOST_ITEMS)):
                yield f"{path}[{key!r}]" if isinstance(key, str | int) else f"{path}[...]", item
        case list() | tuple() | deque():
            yield from ((f"{path}[{at}]", item) for at, item in holders(enumerate(islice(value, MOST_ITEMS))))
        case set() | frozenset():
            yield from ((f"{path}{{...}}", item) for item in islice(value, MOST_ITEMS))
        case FunctionType() if is_users(value.__code__):
            cells = zip(value.__code__.co_freevars, value.__closure__ or ())
            yield from ((f"{path}.{name}", cell.cell_contents) for name, cell in cells if is_bound(cell))
        case MethodType():
            yield path, value.__self__
        case partial():
            yield from ((path, item) for item in (value.func, *value.args, *value.keywords.values()))
        case GeneratorType() if value.gi_frame is not None and is_users(value.gi_code):
            yield from ((f"{path}.{name}", item) for name, item in value.gi_frame.f_locals.items())
        case nn.Module():
            yield from ((f"{path}.{name}", item) for name, item in value.named_children())
            own = ((name, item) for name, item in vars(value).items() if name not in OF_ANY_MODULE)
            yield from ((f"{path}.{name}", item) for name, item in own)
        case _ if not type(value).__module__.startswith(("unbroken.", "torch.optim.optimizer")):
            yield from ((f"{path}.{name}", item) for name, item in holders(attributes(value)))


def is_bound(cell: Any) -> bool:
    """Whether a variable of a closure has a value by now."""
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def attributes(value: Any) -> Iterator[tuple[str, Any]]:
    """What a thing holds under names of its own."""
    own = getattr(value, "__dict__", None)
    if isinstance(own, dict):
        yield from ((name, item) for name, item in [*own.items()] if isinstance(name, str))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            hidden = name.startswith("__") and not name.endswith("__")  # then the class's name stands before it
            name = f"_{kind.__name__.lstrip('_')}{name}" if hidden else name
            if name != "__dict__" and (item := getattr(value, name, None)) is not None:
                yield name, item


def inside(things: Iterable[Any]) -> set[int]:
    """What the states of these things hold as well: inner modules and schedules, the parts of a thing of one's own."""
    known: set[int] = set()
    todo = [*things]
    while todo and len(known) < MOST_OBJECTS:
        value = todo.pop()
        if isinstance(value, NO_HOLDERS) or id(value) in known:
            continue
        known.add(id(value))
        match value:
            case nn.Module():
                known |= set(map(id, value.modules()))
            case LRScheduler() | ReduceLROnPlateau():  # the state of its optimizer is not in its own
                todo += [item for name, item in attributes(value) if name != "optimizer"]
            case Optimizer() if type(value).state_dict is Optimizer.state_dict:  # what a class adds is not in it
                todo += [item for name, item in attributes(value) if name in OF_ANY_OPTIMIZER]
            case dict():
                todo += islice(dict.values(value), MOST_ITEMS)
            case list() | tuple() | set() | deque():
                todo += islice(value, MOST_ITEMS)
            case _ if not isinstance(value, FunctionType | MethodType):
                todo += [item for _, item in attributes(value)]
    return known


def user_frames() -> Iterator[FrameType]:
    """The running functions that are the script's own, the innermost first."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if is_users(frame.f_code):
            yield frame
        frame = frame.f_back


def is_users(code: CodeType) -> bool:
    """Whether code is neither ours nor a library's."""
    return is_users_file(code.co_filename)


@cache
def is_users_file(name: str) -> bool:
    """The same of a file, by where it lies; what is typed into a notebook or a prompt is the user's."""
    of_library = "site-packages" in name or any(name.startswith(f"{folder}/") for folder in LIBRARIES)
    return not of_library and not name.startswith("<frozen")


def frames_with(thing: object) -> list[FrameType]:
    """The script's running functions from the innermost one to the outermost one that has a variable for a thing."""
    frames = list(user_frames())
    having = [place for place, frame in enumerate(frames) if any(each is thing for each in frame.f_locals.values())]
    return frames[: max(having, default=0) + 1]


def is_users_class(kind: type) -> bool:
    """Whether a class is the script's own."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None)
    return kind.__module__ == "__main__" or (isinstance(file, str) and is_users_file(file))
