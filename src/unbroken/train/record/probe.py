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

from unbroken.train.state.placement import here, is_sharded

ELEMENTS = 8  # of each tensor that is looked at


class Probe:
    """The CRC-32 of some elements of the first and the last trained tensor of each tracked module.

    Of one that is sharded these are elements of the part that lies here.
    A step whose gradient differs anywhere reaches the first tensor through the backward pass of all that follow it.
    """

    def __init__(self, tracked: Mapping[str, Any]) -> None:
        self._tracked = tracked  # it grows
        self._known = 0  # parts whose weights these are
        self._weights: list[list[nn.Parameter]] = []  # of each module
        self._views: dict[int, View] = {}  # of weights on the CPU, by their identities, which last

    def take(self) -> list[Any]:
        """What is looked at of the present weights: bytes; tensors on a device, as nobody waits for that here."""
        if len(self._tracked) != self._known:
            self._known = len(self._tracked)
            self._weights = [_plain(part) for part in self._tracked.values() if isinstance(part, nn.Module)]
        found: list[Any] = []
        for weights in self._weights:
            for parameter in _looked_at(weights):
                view = self._views.get(id(parameter))
                if view is None or not view.is_of(parameter):
                    view = self._views[id(parameter)] = View(parameter)
                found.append(view.some())
        return found


class View:
    """Some elements of a parameter, where they lie; on the CPU by way of numpy, which takes a fifth of the time."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self._whole = whole = here(parameter).detach()
        self._at, self._elements = whole.data_ptr(), whole.numel()
        self._places = _places(self._elements, whole.device)
        self._in_order = whole.is_contiguous()
        self._numbers: Any = None
        if whole.is_cpu and whole.dtype == torch.float32 and self._in_order:
            self._numbers, self._numpy_places = whole.numpy().reshape(-1), self._places.numpy()

    def is_of(self, parameter: nn.Parameter) -> bool:
        """Whether the parameter still lies there as it did: `parameter.data` may be another tensor by now."""
        now = (
            parameter if type(parameter) is nn.Parameter else here(parameter)
        )  # most are whole, and this is each step's
        return (
            self._numbers is not None
            and now.data_ptr() == self._at
            and now.numel() == self._elements
            and now.is_contiguous()
        )

    def some(self) -> bytes | torch.Tensor:
        """These elements."""
        if self._numbers is not None:
            some: bytes = self._numbers.take(self._numpy_places).tobytes()
            return some
        taken = torch.take(self._whole, self._places)
        return bytes_of(taken) if taken.is_cpu else taken


def crc32_of(taken: Sequence[bytes | torch.Tensor]) -> int | None:
    """The number that stands for weights of which this was taken; None where no module is tracked."""
    found = None
    for each in taken:
        found = zlib.crc32(bytes_of(each) if isinstance(each, torch.Tensor) else each, found or 0)
    return found


def _plain(module: nn.Module) -> list[nn.Parameter]:
    found = (each for each in module.parameters() if type(each) is nn.Parameter or is_sharded(each))  # no lazy ones
    return [each for each in found if each.numel()]


def _looked_at(weights: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """The first and the last that are trained in this step: some may be frozen, or unfrozen, on the way."""
    for first in weights:
        if first.requires_grad:
            break
    else:
        return []
    for last in reversed(weights):  # there is one
        if last.requires_grad:
            break
    return [first] if last is first else [first, last]


def bytes_of(tensor: torch.Tensor) -> bytes:
    """What a tensor holds, as bytes; of one on a device it is waited for."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


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
