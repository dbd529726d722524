"""Dividing a batch into parts of nearly equal size, in its order: what memory has no room for is done in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor

from unbroken.errors import UsageError


def even_slices(size: int, parts: int) -> list[slice]:
    """Cut samples into parts of nearly equal size, in their order.

    Args:
        size: How many samples there are.
        parts: How many slices to make; none is longer than another by more than one.
    Returns:
        Slices that cover all, some of them empty where there are more parts than samples.
    Example:
        >>> from unbroken.train import even_slices
        >>> even_slices(7, 2)
        [slice(0, 3, None), slice(3, 7, None)]
    """
    bounds = [size * part // parts for part in range(parts + 1)]
    return [slice(*pair) for pair in pairwise(bounds)]


def divided(batch: Any, parts: int) -> list[Any]:
    """The parts of a batch as torch's own collating makes it: tensors, cut along their first dimension, and nests."""
    return [_part(batch, piece) for piece in even_slices(samples_in(batch), parts)]


def samples_in(batch: Any) -> int:
    """How many samples such a batch has; UsageError where nothing in it says so."""
    for tensor in _tensors(batch):
        if tensor.dim():
            return len(tensor)
    raise UsageError(
        type(batch).__name__,
        "how many samples this batch has cannot be seen",
        expected="tensors whose first dimension counts the samples",
        do="Give the Task `count` and `split`.",
    )


def _tensors(batch: Any) -> list[Tensor]:
    match batch:
        case Tensor():
            return [batch]
        case Mapping():
            return [tensor for value in batch.values() for tensor in _tensors(value)]
        case str() | bytes():
            return []
        case Sequence():
            return [tensor for value in batch for tensor in _tensors(value)]
    return []


def _part(batch: Any, piece: slice) -> Any:
    match batch:
        case Tensor():
            return batch[piece] if batch.dim() else batch
        case Mapping():
            return {key: _part(value, piece) for key, value in batch.items()}
        case tuple() if hasattr(batch, "_fields"):
            return type(batch)(*(_part(value, piece) for value in batch))
        case list() | tuple() if _tensors(batch):
            return type(batch)(_part(value, piece) for value in batch)
        case list() | tuple():
            return batch[piece]  # one text or number for each sample
    return batch
