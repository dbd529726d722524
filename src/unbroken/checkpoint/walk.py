"""The ways through a tree: each without recursion and with an end, whatever a stranger put into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from unbroken.checkpoint.leaves import Opaque, TensorRef
from unbroken.text import printable

MAX_DEPTH = 200
MAX_NODES = 5_000_000
PLAIN = (dict, list, tuple)


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
