"""State as a plain tree: dicts, lists, scalars, strings and tensors, which any reader can open safely.

What `state_dict()` of the world's objects returns is almost that; numpy scalars become Python scalars, numpy arrays
and tuples are wrapped so that they come back as what they were, and anything else is an error that names its path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import torch

from unbroken.errors import UsageError

Leaf = TypeVar("Leaf")
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
            return {WRAP: "counter", "value": {_key(key, path): int(item) for key, item in value.items()}}
        case Mapping():
            return {_key(key, path): to_plain(item, f"{path}.{key}") for key, item in value.items()}
        case list():
            return [to_plain(item, f"{path}[{place}]") for place, item in enumerate(value)]
        case tuple():
            return {WRAP: "tuple", "value": [to_plain(item, f"{path}[{n}]") for n, item in enumerate(value)]}
        case set() | frozenset():
            ordered = sorted(value, key=repr)
            return {WRAP: "set", "value": [to_plain(item, path) for item in ordered]}
    raise UsageError(
        path.lstrip(".") or "state",
        "this cannot be part of a checkpoint that is safe to open",
        expected="numbers, strings, lists, dicts, tensors, numpy arrays",
        found=f"{type(value).__module__}.{type(value).__qualname__}",
        do="Let its state_dict() return plain values, or do not track it.",
    )


def from_plain(value: Any) -> Any:
    """The state that `to_plain` was given."""
    if isinstance(value, Mapping):
        if WRAP in value:
            return _unwrap(value)
        return {key: from_plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_plain(item) for item in value]
    return value


def map_leaves(value: Any, kind: type[Leaf], change: Callable[[Leaf], Any]) -> Any:
    """The tree with every leaf of type `kind` replaced by `change(leaf)`."""
    if isinstance(value, kind):
        return change(value)
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


def _key(key: Any, path: str) -> Any:
    if isinstance(key, str | int | float | bool):
        return _exact_scalar(key)
    raise UsageError(path, "a key is neither text nor a number", found=repr(key))
