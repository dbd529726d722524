"""State as a plain tree: dicts, lists, tuples, scalars, strings and tensors, which any reader can open safely.

What `state_dict()` of the world's objects returns is almost that, and is kept as it is: `torch.load(weights_only=True)`
gives it to the object of anybody's program. Numpy scalars become Python scalars, and numpy arrays, which that does not
open, are wrapped so that they come back as what they were. Anything else is an error that names its path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from unbroken.errors import UsageError

Leaf = TypeVar("Leaf")
Path = list[str | int | float | bool]  # the keys that lead to a place in a tree
WRAP = "__unbroken__"  # a dict with this key stands for something that is not plain


def to_plain(value: Any, path: str = "") -> Any:
    """The same state in plain values; tensors are kept as they are (detached)."""
    match value:
        case None | bool() | int() | float() | str():
            return _exact_scalar(value)
        case torch.Tensor():
            return value.detach()
        case np.generic():
            return value.item()
        case np.ndarray() if value.dtype.kind in "biufc":
            return {WRAP: "numpy", "value": torch.from_numpy(np.array(value, order="C"))}
        case Counter():  # of MultiStepLR's milestones, for one
            return Counter({_key(key, path): int(item) for key, item in value.items()})
        case Mapping():
            return {_key(key, path): to_plain(item, f"{path}.{key}") for key, item in value.items()}
        case list():
            return [to_plain(item, f"{path}[{place}]") for place, item in enumerate(value)]
        case tuple():
            return tuple(to_plain(item, f"{path}[{place}]") for place, item in enumerate(value))
        case set() | frozenset() if all(map(_is_member, value)):
            return {to_plain(item, path) for item in value}
    raise UsageError(
        path.lstrip(".") or "state",
        "this cannot be part of a checkpoint that is safe to open",
        expected="numbers, strings, lists, dicts, tensors, numpy arrays",
        found=f"{type(value).__module__}.{type(value).__qualname__}",
        do="Let its state_dict() return plain values, or do not track it.",
    )


def from_plain(value: Any) -> Any:
    """The state that `to_plain` was given, also by the versions that wrapped more than arrays."""
    match value:
        case Counter():
            return value
        case Mapping():
            return _unwrap(value) if WRAP in value else {key: from_plain(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(from_plain(item) for item in value)
    return value


def without_arrays(value: Any) -> tuple[Any, list[Path]]:
    """A plain tree with the bare tensor in place of each array, and where these are: what other programs can read."""
    if isinstance(value, Mapping) and value.get(WRAP) == "numpy":
        return value["value"], [[]]
    places: list[Path] = []

    def bare(key: Any, item: Any) -> Any:
        inner, below = without_arrays(item)
        places.extend([key, *path] for path in below)
        return inner

    match value:
        case Mapping() if not isinstance(value, Counter):
            return {key: bare(key, item) for key, item in value.items()}, places
        case list() | tuple():
            return type(value)(bare(place, item) for place, item in enumerate(value)), places
    return value, places


def with_arrays(value: Any, places: Sequence[Path]) -> Any:
    """The tree that `without_arrays` was given; KeyError, IndexError or TypeError where a path leads nowhere."""
    for path in places:
        value = _wrapped_at(value, path)
    return value


def _wrapped_at(value: Any, path: Path) -> Any:
    if not path:
        return {WRAP: "numpy", "value": value}
    key, *rest = path
    changed: Any = dict(value) if isinstance(value, Mapping) else list(value)
    changed[key] = _wrapped_at(changed[key], rest)
    return tuple(changed) if isinstance(value, tuple) else changed


def map_leaves(value: Any, kind: type[Leaf], change: Callable[[Leaf], Any]) -> Any:
    """The tree with every leaf of type `kind` replaced by `change(leaf)`."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, Counter):
        return value
    if isinstance(value, Mapping):
        return {key: map_leaves(item, kind, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map_leaves(item, kind, change) for item in value)
    return value


def _unwrap(value: Mapping[str, Any]) -> Any:
    inner = value["value"]
    match value[WRAP]:
        case "numpy":
            return inner.numpy()
        case "counter":
            return Counter(inner)
        case "tuple":
            return tuple(from_plain(item) for item in inner)
        case "set":
            return {from_plain(item) for item in inner}
    raise UsageError("state", f"an unknown kind of value, {value[WRAP]!r}", do="Upgrade unbroken.")


def _exact_scalar(value: Any) -> Any:
    """Subclasses (IntEnum, numpy.float64, str enums) as the plain value they stand for."""
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return plain(value)
    return value


def _is_member(item: Any) -> bool:
    """Whether a file can have this in a set: a scalar or a row of them."""
    scalars = (str, int, float, np.generic, type(None))
    return isinstance(item, scalars) or (isinstance(item, tuple) and all(isinstance(each, scalars) for each in item))


def _key(key: Any, path: str) -> Any:
    if isinstance(key, str | int | float | bool):
        return _exact_scalar(key)
    raise UsageError(path, "a key is neither text nor a number", found=repr(key))
