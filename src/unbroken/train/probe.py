"""A few of the weights as one number: what a repeated step is compared by, besides what was logged of it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import nn

ELEMENTS = 8  # of each tensor that is looked at


class Probe:
    """The CRC-32 of some elements of the first and the last trained tensor of each tracked module.

    A step whose gradient differs anywhere reaches the first tensor through the backward pass of all that follow it.
    """

    def __init__(self, tracked: Mapping[str, Any]) -> None:
        self._tracked = tracked  # it grows
        self._weights: dict[str, list[nn.Parameter]] = {}

    def read(self) -> int | None:
        """The number that stands for the present weights; None where no module is tracked."""
        found = None
        for name, part in self._tracked.items():
            if isinstance(part, nn.Module):
                if name not in self._weights:
                    self._weights[name] = _plain(part)
                for parameter in _looked_at(self._weights[name]):
                    found = zlib.crc32(_bytes_of_some(parameter.detach()), found or 0)
        return found


def _plain(module: nn.Module) -> list[nn.Parameter]:
    return [each for each in module.parameters() if type(each) is nn.Parameter and each.numel()]  # no lazy ones


def _looked_at(weights: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """The first and the last that are trained in this step: some may be frozen, or unfrozen, on the way."""
    ends = (next((each for each in row if each.requires_grad), None) for row in (weights, reversed(weights)))
    return [each for each in dict.fromkeys(ends) if each is not None]


def _bytes_of_some(tensor: torch.Tensor) -> bytes:
    places = _places(tensor.numel())
    if tensor.is_cpu and tensor.dtype == torch.float32 and tensor.is_contiguous():  # the usual case, in half the time
        return tensor.numpy().reshape(-1).take(places.numpy()).tobytes()
    return torch.take(tensor, places.to(tensor.device)).cpu().view(torch.uint8).numpy().tobytes()


@cache
def _places(elements: int) -> torch.Tensor:
    return torch.linspace(0, elements - 1, min(ELEMENTS, elements), dtype=torch.float64).long()
