"""The tree of a checkpoint: what stands where torch, numpy or a stranger's class would have stood, and ways through it.

- TensorRef: where one tensor's numbers lie, without the numbers. StorageRef: the block it is a view of.
- Name: a global that a pickle mentions, such as `torch.float32`; it is never looked up.
- Opaque: an object of a class that stays shut; what it was made of is kept as data.
- SmallArray: a numpy array as dtype, shape and raw bytes. Fields: a dict that had attributes of its own.

Each way through a tree is without recursion and has an end, whatever a stranger put into it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from unbroken.text import printable

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint64": 8,
    "uint32": 4,
    "uint16": 2,
    "uint8": 1,
    "bool": 1,
    "complex128": 16,
    "complex64": 8,
    "complex32": 4,
    "float8_e4m3fn": 1,
    "float8_e4m3fnuz": 1,
    "float8_e5m2": 1,
    "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "qint8": 1,
    "quint8": 1,
    "qint32": 4,
}


MOST_DIMENSIONS = 64  # of a tensor, by torch itself
MAX_DEPTH = 200
MAX_NODES = 5_000_000
PLAIN = (dict, list, tuple)


def is_shape(value: object) -> bool:
    """Whether this is a row of sizes that a tensor or an array can have, its number of items below 2**63."""
    if not isinstance(value, tuple | list) or len(value) > MOST_DIMENSIONS:
        return False
    return all(type(n) is int and 0 <= n < 2**63 for n in value) and math.prod(n for n in value if n) < 2**63


@dataclass(frozen=True, kw_only=True, slots=True)
class Name:
    """A global that was mentioned, by module and name; inert."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageRef:
    """One block of numbers in the file, possibly seen by several tensors."""

    key: str
    dtype: str
    numel: int
    device: str
    start: int = 0  # elements into the block `key`; only views of the legacy format start later than 0
    block_numel: int = 0  # elements of the whole block

    @property
    def block_bytes(self) -> int:
        """The bytes that the block must have in the file."""
        return self.block_numel * ITEM_BYTES[self.dtype]

    @property
    def number_bytes(self) -> int:
        """The bytes of one real number: half an item where the numbers are complex."""
        return ITEM_BYTES[self.dtype] // (2 if self.dtype.startswith("complex") else 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorRef:
    """One tensor as a view of a storage; `stride` and `offset` count elements."""

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    storage_key: str
    storage_bytes: int
    device: str = "cpu"
    requires_grad: bool = False
    is_parameter: bool = False

    @property
    def numel(self) -> int:
        """How many numbers the tensor has."""
        return math.prod(self.shape)

    @property
    def item_bytes(self) -> int:
        """The bytes of one number."""
        return ITEM_BYTES[self.dtype]

    @property
    def size_bytes(self) -> int:
        """The bytes of all its numbers, each counted once per place in the shape."""
        return self.numel * self.item_bytes


@dataclass(kw_only=True, slots=True, eq=False)
class Opaque:
    """An object of a class that is not ours to open; equal only to itself."""

    module: str
    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[Any, Any] = field(default_factory=dict)
    state: Any = None
    items: list[Any] = field(default_factory=list)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        return f"<{self.module}.{self.name}, kept shut>"


@dataclass(kw_only=True, slots=True, eq=False)
class SmallArray:
    """A numpy array as it lay in the pickle; `dtype` as numpy spells it, byte order first, such as `<f8`."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes
    column_major: bool = False


class Fields(dict[Any, Any]):
    """An ordered dict that may carry attributes, as a state_dict carries `_metadata`."""

    __slots__ = ("attributes",)

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.attributes: dict[str, Any] = {}


# -- ways through a tree ---------------------------------------------------------------------------------------------


class Endless(ValueError):
    """A tree that contains itself, or unfolds into more than any checkpoint has."""


def check_tree(tree: object) -> Measure:
    """Raise Endless unless every later walk ends soon; return what the tree unfolds into.

    Each container is measured once, however often it is shared.
    """
    known: dict[int, Measure] = {}
    opened: set[int] = set()
    todo = [tree]
    while todo:
        node = todo[-1]
        if id(node) in known:
            todo.pop()
            continue
        inner = [child for child in _values(node) if isinstance(child, PLAIN)]
        if waiting := [child for child in inner if id(child) not in known]:
            opened.add(id(node))
            if any(id(child) in opened for child in waiting):
                raise Endless("the tree contains itself")
            todo.extend(waiting)
            continue
        known[id(todo.pop())] = _measured(node, [known[id(child)] for child in inner])
    return known[id(tree)]


@dataclass(frozen=True, slots=True)
class Measure:
    """What a container unfolds into; the bytes of a tensor count wherever it stands."""

    nodes: int
    levels: int
    tensor_bytes: int


def _measured(node: object, inner: list[Measure]) -> Measure:
    own = len(node) if isinstance(node, PLAIN) else 0
    nodes = own + sum(each.nodes for each in inner)
    levels = 1 + max((each.levels for each in inner), default=0)
    if nodes > MAX_NODES:
        raise Endless("the tree unfolds into more parts than any checkpoint has")
    if levels > MAX_DEPTH:
        raise Endless(f"the tree is nested deeper than {MAX_DEPTH} levels")
    leaves = _values(node) if isinstance(node, PLAIN) else (node,)
    own_bytes = sum(leaf.size_bytes for leaf in leaves if isinstance(leaf, TensorRef))
    return Measure(nodes, levels, own_bytes + sum(each.tensor_bytes for each in inner))


def walk(tree: object) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield (path, leaf) for everything in a checked tree that is not a dict, list or tuple, in order."""
    todo: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    while todo:
        path, node = todo.pop()
        if isinstance(node, PLAIN):
            todo.extend([((*path, label), value) for label, value in _labelled(node)][::-1])
        else:
            yield path, node


def shut_objects(tree: object) -> Iterator[Opaque]:
    """Yield every object that stays shut, once, those inside of one another included."""
    seen: set[int] = set()
    todo = [tree]
    while todo:
        node = todo.pop()
        if not isinstance(node, (*PLAIN, Opaque)) or id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, Opaque):
            yield node
            todo.extend((node.state, node.args, node.items, *(value for _, value in node.pairs)))
        else:
            todo.extend(_values(node))


def _values(node: object) -> Iterable[Any]:
    match node:
        case dict():
            return node.values()
        case list() | tuple():
            return node
    return ()


def _labelled(node: dict[Any, Any] | list[Any] | tuple[Any, ...]) -> Iterable[tuple[str, Any]]:
    """The children with their part of a path; a long or strange key is made short and printable."""
    if isinstance(node, dict):
        return [(printable(str(key)[:500]), value) for key, value in node.items()]
    return [(str(index), value) for index, value in enumerate(node)]
