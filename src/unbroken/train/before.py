"""What a step may change before its optimizer steps, kept so that a step that fails leaves no trace."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from unbroken.train import parts
from unbroken.train.in_place import CONTAINERS
from unbroken.train.task import Task


class Before:
    """The buffers (running statistics) and the small parts of a task, as a step begins."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._buffers = [(*found, found[2].clone()) for found in _buffers(task.parts())]
        self._small = _small(task.parts())
        self._states = {name: copy.deepcopy(parts.state_of(part)) for name, part in self._small.items()}

    @torch.no_grad()
    def put_back(self) -> None:
        """Make everything as it was; no gradient is left."""
        for module, name, tensor, value in self._buffers:
            tensor.copy_(value)
            setattr(module, name, tensor)  # a forward pass may have put another tensor in its place
        parts.restore(self._small, self._states, "the state before the step")
        self._task.optimizer.zero_grad(set_to_none=True)


def _buffers(tracked: Mapping[str, Any]) -> Iterator[tuple[nn.Module, str, torch.Tensor]]:
    for part in tracked.values():
        for module in part.modules() if isinstance(part, nn.Module) else ():
            for name, buffer in module.named_buffers(recurse=False):
                yield module, name, buffer


def _small(tracked: Mapping[str, Any]) -> dict[str, Any]:
    """Counters and generators, which a loss may have moved on; all else changes only after it."""
    return {name: part for name, part in tracked.items() if isinstance(part, (*CONTAINERS, *parts.GENERATORS))}
