"""What decides how a module trains and is in no `state_dict`: which parameters learn, and its plain attributes.

Layers that are thawed in mid-run, the networks of a GAN in turn, `dropout.p`, a counter or a running mean that a layer
keeps as an attribute: what training changed of it is part of the state. Kept is what is not as it was when the module
was tracked, so a model that leaves all that alone keeps nothing, and what its script builds otherwise later counts.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from enum import Enum
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import nn

from unbroken.errors import UsageError
from unbroken.train.state.held import OF_ANY_MODULE
from unbroken.train.state.in_place import as_its_base, differences, fill, storages_of
from unbroken.train.state.optimizer_state import tensors_by_name
from unbroken.train.state.tree import from_plain, map_leaves, to_plain
from unbroken.train.state.wrappers import WRAPPERS, plainly_named

Values = Mapping[str, Mapping[str, Any]]  # by the name of the part, by the way to the attribute
Learning = Mapping[str, bool]  # whether a tensor learns, by its name
MOST_ITEMS = 1000  # of an attribute that is a list or the like
MOST_ELEMENTS = 65_536  # of one that is a tensor or an array
NOT_KEPT = object()
SIMPLE = (bool, int, float, str, type(None))
GATHERED = (list, tuple, dict, set, frozenset, deque)
# What no file keeps, or not of any size.
OF_NO_FILE = (Enum, PurePath, date, timedelta, bytes, complex, *GATHERED, torch.Tensor, np.ndarray)
DATA = (*SIMPLE, np.generic, torch.Tensor, np.ndarray, *GATHERED)
COMPUTED_FROM = ("_orig", "_g")  # torch's pruning and normalisation of weights make `weight` anew from `weight_orig`
DEEPEST = 8  # values within values


class Attributes:
    """Attributes and learning tensors of what is tracked, as they were when it was tracked, and as they are now."""

    def __init__(self, tracked: Mapping[str, Any]) -> None:
        self._tracked = tracked  # it grows
        self._built, self._learned = dict[str, dict[str, Any]](), dict[str, bool]()
        self._kinds: dict[str, dict[str, type]] = {}  # of the attributes, which a value is put back into
        self._modules: dict[str, set[str]] = {}  # inside each part: what comes later has not been built there
        self._held: tuple[dict[str, dict[str, Any]], dict[str, bool]] | None = None
        self._outside: dict[str, tuple[Any, int]] = {}  # what no file keeps, as it was when the loop began
        self._named: set[str] = set()

    def follow(self, tracked: Mapping[str, Any]) -> None:
        """Note what these parts are built with, before anything is restored."""
        self._learned |= _learning(tracked)
        for name, part in tracked.items():
            if isinstance(part, nn.Module):
                self._kinds[name] = {path: type(value) for path, value in _attributes(part)}
                self._built[name] = _kept(part)
                self._modules[name] = {path for path, _ in plainly_named(part)}

    def begin(self) -> None:
        """The loop begins: what it changes of all that no file keeps is named."""
        self._outside = self._not_kept()

    def hold(self) -> None:
        """What is kept until the next boundary is what stands here now: a validation begins, or the end of an epoch."""
        if self._held is None:
            self._held = self._changed()

    def settle(self) -> None:
        """A boundary."""
        self._held = None

    def changed(self) -> tuple[dict[str, dict[str, Any]], dict[str, bool]]:
        """What is not as it was built: attributes, and whether tensors learn."""
        return self._held if self._held is not None else self._changed()

    def _changed(self) -> tuple[dict[str, dict[str, Any]], dict[str, bool]]:
        found: dict[str, dict[str, Any]] = {}
        for part, built in self._built.items():
            for path, value in _kept(self._tracked[part], self._kinds[part]).items():
                known = path.rpartition(".")[0] in self._modules[part]
                if known and (path not in built or _differ(built[path], value)):
                    found.setdefault(part, {})[path] = value
        learning = _learning(self._tracked)
        return found, {name: value for name, value in learning.items() if self._comes_back(name, value) is not value}

    def _comes_back(self, name: str, value: bool) -> bool:
        """Whether a tensor would learn that nothing is said of: not one that a dict or list has got since."""
        in_module = isinstance(self._tracked[name.partition(".")[0]], nn.Module)
        return self._learned.get(name, value if in_module else False)

    def lost(self) -> list[str]:
        """What has changed since the loop began and is in no file, each once."""
        before, nothing = self._outside, (None, 0)
        changed = [
            name
            for name, (value, version) in self._not_kept().items()
            if before.get(name, nothing)[0] is not value or before[name][1] != version
        ]
        found = [name for name in changed if name not in self._named]
        self._named.update(found)
        return found

    def _not_kept(self) -> dict[str, tuple[Any, int]]:
        """What is too large for a state or of a kind that none keeps, and what tells that it was changed in place."""
        return {
            f"{name}.{path}": (value, _version(value))
            for name in self._built
            for path, value in _attributes(self._tracked[name])
            if isinstance(value, OF_NO_FILE) and _plain(value, self._kinds[name].get(path)) is NOT_KEPT
        }


def misplaced(part: str, module: Any, saved: Mapping[str, Any]) -> Iterator[str]:
    """The saved attributes that cannot be set: a file may put nothing in the place of what a module does."""
    modules = dict(plainly_named(module))
    for path in saved:
        above, _, own = path.rpartition(".")
        of_class = inspect.getattr_static(type(modules.get(above, module)), own, None)
        is_name = own.isidentifier() and not own.startswith("__") and own not in OF_ANY_MODULE
        if not is_name or not isinstance(of_class, DATA):
            yield f"{part}.{path}: no attribute that a checkpoint can hold"


def put_attributes(parts: Mapping[str, Any], saved: Values, learning: Learning) -> Iterator[str]:
    """Give modules the attributes that they had, in place where they can take them; yields what is to be said of it."""
    for part, values in saved.items():
        modules, put = dict(plainly_named(parts.get(part))), list[str]()
        held = storages_of([parts[part]]) if modules else set()
        for path, plain in values.items() if modules else ():
            above, _, own = path.rpartition(".")
            if above not in modules:
                yield f"{part}.{path} was changed by the training, and is not here any more"
                continue
            kept = vars(modules[above])
            was = kept.get(own)
            state = from_plain(plain) if isinstance(was, torch.Tensor) else _on_device(from_plain(plain), parts[part])
            put.append(f"{part}.{path} {_short(state)}")
            kept[own] = fill(was, state, held)
        if put:
            yield f"{put[0]}{_and_more(put)}: as when it was saved, not as it was built"
    here = dict(tensors_by_name(parts))
    for learns, words in {True: "learns", False: "is frozen"}.items():
        names = [name for name, each in learning.items() if each is learns and _can_learn(here.get(name))]
        for name in names:
            here[name].requires_grad_(learns)
        if names:
            yield f"{names[0]}{_and_more(names)}: {words} as when it was saved, not as it was built"


def attributes_of(tracked: Mapping[str, Any]) -> tuple[Values, Learning]:
    """All that a file could keep of these, and which of their tensors learn."""
    return {name: _kept(part) for name, part in tracked.items() if isinstance(part, nn.Module)}, _learning(tracked)


def put_back_attributes(tracked: Mapping[str, Any], before: tuple[Values, Learning]) -> set[str]:
    """Give modules the attributes that they had before; returns the parts that had others."""
    now, learning = attributes_of(tracked)
    changed = {
        name: {
            path: value for path, value in values.items() if path not in now[name] or _differ(value, now[name][path])
        }
        for name, values in before[0].items()
    }
    changed = {name: values for name, values in changed.items() if values}
    learned = {name: value for name, value in before[1].items() if learning.get(name, value) is not value}
    said = [*put_attributes(tracked, changed, learned)]
    return {*changed, *(name.partition(".")[0] for name in learned)} if said else set()


def _learning(tracked: Mapping[str, Any]) -> dict[str, bool]:
    return {name: each.requires_grad for name, each in tensors_by_name(tracked) if each.is_leaf}


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The attributes of all modules inside, but of torch's own modules what is theirs alone.

    Wrappers have none: what DistributedDataParallel keeps leads to the buffers of what it wraps.
    """
    for above, each in plainly_named(module):
        if isinstance(each, WRAPPERS):
            continue
        torchs = type(each).__module__.startswith("torch.")
        for name, value in [*vars(each).items()]:
            if name in OF_ANY_MODULE or (torchs and name.startswith("_")):
                continue
            if any(f"{name}{end}" in each._parameters for end in COMPUTED_FROM):
                continue
            yield f"{above}.{name}".lstrip("."), value


def _kept(module: nn.Module, built: Mapping[str, type] | None = None) -> dict[str, Any]:
    """The attributes that a file can keep, as plain values of their own; of the kinds that were `built`, or as now."""
    plain = (
        (path, _plain(each, type(each) if built is None else built.get(path))) for path, each in _attributes(module)
    )
    return {path: value for path, value in plain if value is not NOT_KEPT}


def _plain(value: Any, built: type | None) -> Any:
    """An attribute as a file keeps it, a value of its own; NOT_KEPT where it is too large, or would become another.

    A named tuple, say, is put back into the one that is built in its place.
    """
    if type(value) in SIMPLE:
        return value
    if not isinstance(value, (*SIMPLE, np.generic, torch.Tensor, np.ndarray, *GATHERED)) or not _fits(value):
        return NOT_KEPT
    try:
        value = as_its_base(value) if type(value) is built else value
        return map_leaves(to_plain(value, exact=True, typed=True), torch.Tensor, _copy)
    except UsageError:
        return NOT_KEPT  # it holds modules, functions, dates


def _fits(value: Any, depth: int = DEEPEST) -> bool:
    """Whether it is small enough for a state."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return (value.numel() if isinstance(value, torch.Tensor) else value.size) <= MOST_ELEMENTS
    if not isinstance(value, GATHERED):
        return True
    items = value.values() if isinstance(value, dict) else value
    return depth > 0 and len(value) <= MOST_ITEMS and all(_fits(item, depth - 1) for item in items)


def _differ(one: Any, other: Any) -> bool:
    """Whether two plain values are not the same, to the bit."""
    return any(differences({"": one}, {"": other})) or any(differences({"": other}, {"": one}))


def _version(value: Any) -> int:
    """What tells that something large was changed in place."""
    if isinstance(value, torch.Tensor):
        return -1 if value.is_inference() else value._version
    return len(value) if isinstance(value, GATHERED) else 0


def _on_device(state: Any, module: nn.Module) -> Any:
    """The tensors of a state where the module is: one that was made in a forward pass lies there."""
    device = next((each.device for each in module.parameters()), torch.device("cpu"))
    return map_leaves(state, torch.Tensor, lambda tensor: tensor.to(device))


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to("cpu", copy=True)


def _can_learn(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and tensor.is_leaf and (tensor.is_floating_point() or tensor.is_complex())


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


def _short(value: Any) -> str:
    return f"= {value!r}" if isinstance(value, SIMPLE) and len(repr(value)) < 40 else f"({type(value).__name__})"
