"""Warning about state that a loop visibly uses but does not track: it would not survive an interruption."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.swa_utils import AveragedModel

from unbroken.train.parts import GENERATORS

STATEFUL = (Optimizer, LRScheduler, GradScaler, AveragedModel)


def forgotten(tracked: Mapping[str, Any], *, depth: int) -> list[str]:
    """A sentence for each stateful thing among the names of the calling function that is not tracked."""
    known = {id(part) for part in tracked.values()}
    inner = {id(module) for part in tracked.values() if isinstance(part, nn.Module) for module in part.modules()}
    return [
        f"`{name}` ({type(value).__name__}) is used by the loop but not tracked: its state would be lost"
        for name, value in _names_of_caller(depth)
        if _is_stateful(value) and id(value) not in known | inner
    ]


def _is_stateful(value: Any) -> bool:
    if isinstance(value, nn.Module) and not isinstance(value, AveragedModel):
        return any(parameter.requires_grad for parameter in value.parameters())
    if isinstance(value, STATEFUL):
        return not (isinstance(value, GradScaler) and not value.is_enabled())
    return isinstance(value, GENERATORS)


def _names_of_caller(depth: int) -> Iterator[tuple[str, Any]]:
    frame = sys._getframe(depth)
    yield from {**frame.f_globals, **frame.f_locals}.items()
