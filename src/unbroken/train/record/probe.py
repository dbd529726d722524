"""A few of the weights as one number: what a repeated step is compared by, besides what was logged of it.

Where such numbers lie on a device, many of them come over in one transfer, so that nobody waits for each.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

ELEMENTS = 8  # of each tensor that is looked at
CPU = torch.device("cpu")


class Probe:
    """The CRC-32 of some elements of the first and the last trained tensor of each tracked module.

    A step whose gradient differs anywhere reaches the first tensor through the backward pass of all that follow it.
    """

    def __init__(self, tracked: Mapping[str, Any]) -> None:
        self._tracked = tracked  # it grows
        self._weights: dict[str, list[nn.Parameter]] = {}

    def take(self) -> list[Any]:
        """What is looked at of the present weights: bytes; tensors on a device, as nobody waits for that here."""
        found: list[Any] = []
        for name, part in self._tracked.items():
            if isinstance(part, nn.Module):
                if name not in self._weights:
                    self._weights[name] = _plain(part)
                found += [_some_of(parameter.detach()) for parameter in _looked_at(self._weights[name])]
        return found


def crc32_of(taken: Sequence[bytes | torch.Tensor]) -> int | None:
    """The number that stands for weights of which this was taken; None where no module is tracked."""
    found = None
    for each in taken:
        found = zlib.crc32(_bytes_of(each) if isinstance(each, torch.Tensor) else each, found or 0)
    return found


def _plain(module: nn.Module) -> list[nn.Parameter]:
    return [each for each in module.parameters() if type(each) is nn.Parameter and each.numel()]  # no lazy ones


def _looked_at(weights: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """The first and the last that are trained in this step: some may be frozen, or unfrozen, on the way."""
    first = next((each for each in weights if each.requires_grad), None)
    last = next((each for each in reversed(weights) if each.requires_grad), None)
    return [each for each in (first, last if last is not first else None) if each is not None]


def _some_of(tensor: torch.Tensor) -> bytes | torch.Tensor:
    if tensor.is_cpu and tensor.dtype == torch.float32 and tensor.is_contiguous():  # the usual case, in half the time
        some: bytes = tensor.numpy().take(_places(tensor.numel(), CPU).numpy()).tobytes()
        return some
    taken = torch.take(tensor, _places(tensor.numel(), tensor.device))
    return _bytes_of(taken) if taken.is_cpu else taken


def _bytes_of(taken: torch.Tensor) -> bytes:
    return taken.view(torch.uint8).numpy().tobytes()


@cache
def _places(elements: int, device: torch.device) -> torch.Tensor:
    return torch.linspace(0, elements - 1, min(ELEMENTS, elements), dtype=torch.float64).long().to(device)


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
