"""State as a plain tree: dicts, lists, tuples, scalars, strings and tensors, which any reader can open safely.

What `state_dict()` of the world's objects returns is almost that, and is kept as it is: `torch.load(weights_only=True)`
gives it to the object of anybody's program. Arrays and scalars of numpy, which that does not open, and deques are
wrapped so that they come back as what they were. Anything else is an error that names its path.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from unbroken.errors import UsageError

Leaf = TypeVar("Leaf")
Path = list[str | int | float | bool]  # the keys that lead to a place in a tree
FACTORIES = {"": None, **{each.__name__: each for each in (list, dict, set, int, float, str)}}  # of a defaultdict
MADE_FROM = (bool, int, float, str, list, tuple, set, frozenset, deque, np.ndarray)
KEPT = {*MADE_FROM, np.memmap, dict, OrderedDict, defaultdict, Counter, torch.Size}
WRAP = "__unbroken__"  # a dict with this key stands for something that is not plain
BITS = {"int": (8, 16, 32, 64), "uint": (8, 16, 32, 64), "float": (16, 32, 64)}
# Of numpy.
SCALARS = {"bool": "bool_", "str": "str_", **{(name := f"{kind}{bits}"): name for kind in BITS for bits in BITS[kind]}}


def to_plain(value: Any, path: str = "", *, exact: bool = False, typed: bool = False) -> Any:
    """The same state in plain values; tensors are kept as they are (detached).

    With `exact`, what is no plain value is wrapped so that it comes back as what it was, or refused; with `typed` also
    the dicts of `collections`, which the `state_dict` of other things gives away as plain ones.
    """

    def inner(item: Any, below: str = "") -> Any:
        return to_plain(item, path + below, exact=exact, typed=typed)

    match value:
        case _ if typed and _is_of_another_kind(value):
            pass  # a member of an Enum, a named tuple, a dict of one's own: it would come back as what it is made from
        case np.generic() if exact and not isinstance(value, np.str_):
            if value.dtype.name in SCALARS:
                return {WRAP: "scalar", "dtype": value.dtype.name, "value": value.item()}
        case np.str_() if exact:
            return {WRAP: "scalar", "dtype": "str", "value": str(value)}
        case None | bool() | int() | float() | str():
            return _exact_scalar(value)
        case torch.Tensor() if value.layout is torch.strided and not value.is_quantized:
            return value.detach()
        case np.generic() if not exact:
            return value.item()
        case np.ma.MaskedArray() if exact:
            pass  # its mask would be lost
        case np.ndarray() if value.dtype.kind in "biufc" and value.dtype.itemsize <= 16 and value.dtype.isnative:
            return {WRAP: "numpy", "value": torch.from_numpy(np.array(value, order="C"))}
        case Counter():  # of MultiStepLR's milestones, for one
            return Counter({_key(key, path): int(item) for key, item in value.items()})
        case OrderedDict() if typed:
            return {WRAP: "ordered", "value": inner(dict(value))}
        case defaultdict() if typed:
            if (factory := _factory_name(value)) is not None:
                return {WRAP: "defaultdict", "factory": factory, "value": inner(dict(value))}
        case Mapping():
            return {_key(key, path): inner(item, f".{key}") for key, item in value.items()}
        case list():
            return [inner(item, f"[{place}]") for place, item in enumerate(value)]
        case torch.Size() if typed:
            return {WRAP: "size", "value": [*value]}
        case tuple():
            return tuple(inner(item, f"[{place}]") for place, item in enumerate(value))
        case deque():
            return {WRAP: "deque", "maxlen": value.maxlen, "value": inner([*value])}
        case set() | frozenset() if all(_is_member(item, exact=exact) for item in value):
            members = {inner(item) for item in value}
            return {WRAP: "frozenset", "value": members} if exact and isinstance(value, frozenset) else members
    raise UsageError(
        path.lstrip(".") or "state",
        "this cannot be part of a checkpoint that is safe to open",
        expected="numbers, strings, lists, dicts, tensors, numpy arrays",
        found=f"{type(value).__module__}.{type(value).__qualname__}",
        do="Keep what it is made from (dict(...), tuple(...), .value), let its state_dict() do so, or do not track it.",
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
    bare, found = _bare(value, "numpy")
    return bare, [path for path, _ in found]


def without_scalars(value: Any) -> tuple[Any, list[Path]]:
    """A plain tree with the bare number in place of each numpy scalar; the type of each, and where it is."""
    bare, found = _bare(value, "scalar")
    return bare, [[wrapped["dtype"], *path] for path, wrapped in found]


def _bare(value: Any, kind: str) -> tuple[Any, list[tuple[Path, Mapping[str, Any]]]]:
    if isinstance(value, Mapping) and value.get(WRAP) == kind:
        return value["value"], [([], value)]
    places: list[tuple[Path, Mapping[str, Any]]] = []

    def bare(key: Any, item: Any) -> Any:
        inner, below = _bare(item, kind)
        places.extend(([key, *path], wrapped) for path, wrapped in below)
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
        value = _wrapped_at(value, path, {WRAP: "numpy"})
    return value


def with_scalars(value: Any, places: Sequence[Path]) -> Any:
    """The tree that `without_scalars` was given; KeyError, IndexError or TypeError where a path leads nowhere."""
    for dtype, *path in places:
        value = _wrapped_at(value, path, {WRAP: "scalar", "dtype": dtype})
    return value


def _wrapped_at(value: Any, path: Path, wrap: Mapping[str, Any]) -> Any:
    if not path:
        return {**wrap, "value": value}
    key, *rest = path
    changed: Any = dict(value) if isinstance(value, Mapping) else list(value)
    changed[key] = _wrapped_at(changed[key], rest, wrap)
    return tuple(changed) if isinstance(value, tuple) else changed


def leaves(value: Any, kind: type[Leaf]) -> Iterator[Leaf]:
    """Every leaf of a type, in the order in which `map_leaves` comes to them."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, Mapping) and not isinstance(value, Counter):
        for item in value.values():
            yield from leaves(item, kind)
    elif isinstance(value, deque) or type(value) in (list, tuple):
        for item in value:
            yield from leaves(item, kind)


def map_leaves(value: Any, kind: type[Leaf], change: Callable[[Leaf], Any]) -> Any:
    """The tree with every leaf of type `kind` replaced by `change(leaf)`."""
    if isinstance(value, kind):
        return change(value)
    if isinstance(value, Counter):
        return value
    if isinstance(value, Mapping):
        changed = {key: map_leaves(item, kind, change) for key, item in value.items()}
        if isinstance(value, defaultdict):
            return defaultdict(value.default_factory, changed)
        return OrderedDict(changed) if isinstance(value, OrderedDict) else changed
    if isinstance(value, deque):
        return deque((map_leaves(item, kind, change) for item in value), value.maxlen)
    if type(value) in (list, tuple):
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
        case "frozenset":
            return frozenset(inner)
        case "size":
            return torch.Size(inner)
        case "deque":
            return deque(map(from_plain, inner), maxlen=value["maxlen"])
        case "ordered":
            return OrderedDict(from_plain(inner))
        case "defaultdict" if value["factory"] in FACTORIES:
            return defaultdict(FACTORIES[value["factory"]], from_plain(inner))
        case "scalar" if value["dtype"] in SCALARS:
            return getattr(np, SCALARS[value["dtype"]])(inner)
    raise UsageError("state", f"an unknown kind of value, {value[WRAP]!r}", do="Upgrade unbroken.")


def _is_of_another_kind(value: Any) -> bool:
    """Whether it is made from a kind that comes back and is none itself: an Enum of numbers, a mapping of one's own."""
    return isinstance(value, (Mapping, *MADE_FROM)) and type(value) not in KEPT and not isinstance(value, np.generic)


def _factory_name(value: defaultdict[Any, Any]) -> str | None:
    return next((name for name, factory in FACTORIES.items() if factory is value.default_factory), None)


def _exact_scalar(value: Any) -> Any:
    """Subclasses (IntEnum, numpy.float64, str enums) as the plain value they stand for."""
    if type(value) in (str, int, float, bool):  # nearly always
        return value
    for plain in (bool, int, float, str):
        if isinstance(value, plain):
            return plain(value)
    return value


def _is_member(item: Any, *, exact: bool) -> bool:
    """Whether a file can have this in a set: a scalar or a row of them; of numpy only where its type need not stay."""

    def is_scalar(each: Any) -> bool:
        return not exact if isinstance(each, np.generic) else isinstance(each, str | int | float | None)

    return is_scalar(item) or (isinstance(item, tuple) and all(map(is_scalar, item)))


def _key(key: Any, path: str) -> Any:
    if isinstance(key, str | int | float | bool):
        return _exact_scalar(key)
    raise UsageError(path, "a key is neither text nor a number", found=repr(key))
