"""Small tensors that lie on a device: many of them come over in one transfer, so that nobody waits for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch


def fetch(rows: Iterable[list[Any]]) -> None:
    """Put copies on the CPU in the place of the tensors in these lists: one transfer for each device and type."""
    places: dict[tuple[torch.device, torch.dtype], list[tuple[list[Any], int]]] = defaultdict(list)
    for row in rows:
        for at, value in enumerate(row):
            if isinstance(value, torch.Tensor):
                places[value.device, value.dtype].append((row, at))
    for group in places.values():
        tensors = [row[at].reshape(-1) for row, at in group]
        pieces = torch.split(torch.cat(tensors).cpu(), [tensor.numel() for tensor in tensors])
        for (row, at), piece in zip(group, pieces):
            row[at] = piece
