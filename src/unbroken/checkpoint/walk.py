"""The ways through a tree: each without recursion and with an end, whatever a stranger put into it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from unbroken.checkpoint.leaves import Opaque

MAX_DEPTH = 200
MAX_NODES = 5_000_000
PLAIN = (dict, list, tuple)


class Endless(ValueError):
    """A tree that contains itself, or unfolds into more than any checkpoint has."""


def check_tree(tree: object) -> None:
    """Raise Endless unless every later walk ends soon; each container is measured once, however shared."""
    known: dict[int, tuple[int, int]] = {}  # id -> how many nodes it unfolds into, how many levels
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
        known[id(todo.pop())] = _checked_size(node, [known[id(child)] for child in inner])


def _checked_size(node: object, inner: list[tuple[int, int]]) -> tuple[int, int]:
    own = len(node) if isinstance(node, PLAIN) else 0
    nodes = own + sum(nodes for nodes, _ in inner)
    levels = 1 + max((levels for _, levels in inner), default=0)
    if nodes > MAX_NODES:
        raise Endless("the tree unfolds into more parts than any checkpoint has")
    if levels > MAX_DEPTH:
        raise Endless(f"the tree is nested deeper than {MAX_DEPTH} levels")
    return nodes, levels


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


def printable(text: str) -> str:
    """Return a stranger's text without what could move a cursor or cannot be encoded."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


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
