"""Comparing two training states bit for bit."""

from __future__ import annotations

from typing import Any

import torch

from unbroken.train.state.in_place import same_bits

# What may differ between twins: names made from chance and from the clock.
MOMENTARY = frozenset({"save", "session", "processes", "time", "id", "shard_files"})  # files are called by their save


def differences(one: Any, other: Any, path: str = "") -> list[str]:
    """Compare two checkpoints in every bit, but for names made from chance and from the clock, and for who computed it.

    Args:
        one: A tree, as `read_checkpoint` gives it.
        other: The tree that it is compared with.
        path: Where in the file these stand, for the sentences.
    Returns:
        A sentence for each place that differs; none means that they are twins. NaN equals NaN, 0.0 is not -0.0.
    Example:
        >>> from unbroken.train import differences
        >>> differences({"step": 8, "session": "a"}, {"step": 9, "session": "b"})
        ['.step: 8 and 9']
    """
    if isinstance(one, dict) and isinstance(other, dict):
        shared = [key for key in one if key in other and key not in MOMENTARY]
        lonely = sorted(str(key) for key in one.keys() ^ other.keys())
        found = [f"{path}: only on one side: {', '.join(lonely)}"] if lonely else []
        return found + [text for key in shared for text in differences(one[key], other[key], f"{path}.{key}")]
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return [text for n, pair in enumerate(zip(one, other)) for text in differences(*pair, f"{path}[{n}]")]
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return [] if same_bits(one, other) else [f"{path}: the tensors differ"]
    same = type(one) is type(other) and repr(one) == repr(other)  # repr: NaN equals NaN, and 0.0 is not -0.0
    return [] if same else [f"{path}: {one!r} and {other!r}"]


def count_tensors(tree: Any) -> int:
    """Return how many tensors a tree holds.

    Args:
        tree: Dicts, lists and tuples in each other, as `read_checkpoint` gives them.
    """
    if isinstance(tree, torch.Tensor):
        return 1
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else ()
    return sum(count_tensors(item) for item in inner)
