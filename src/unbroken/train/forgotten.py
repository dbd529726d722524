"""State that lives in the process and is not tracked: it would not survive an interruption, so it is named.

What is looked at is whatever a loop can hold on to: from the variables of all functions that are running and of the
script's own modules through attributes, lists, dicts and closures. What torch made and no name leads to is found among
all objects of the process.
"""

from __future__ import annotations

import gc
import inspect
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import SystemRandom
from types import GeneratorType
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel
from torch.utils.data.dataloader import _BaseDataLoaderIter

from unbroken.train.frames import is_users
from unbroken.train.held import inside, reachable
from unbroken.train.random_holders import DRAWN_FROM, GLOBAL

MADE_BY_TORCH = (Optimizer, LRScheduler, ReduceLROnPlateau, GradScaler, AveragedModel)
MOST_NAMED = 8


@dataclass(frozen=True, kw_only=True)
class Forgotten:
    """A thing that is not tracked, and how the script gets at it ("" where no name leads to it)."""

    path: str
    value: Any

    def __str__(self) -> str:
        kind = type(self.value).__name__
        name = f"`{self.path}` ({kind})" if self.path else f"a {kind} to which no variable of the script leads"
        if isinstance(self.value, GeneratorType | _BaseDataLoaderIter):
            return f"{name} holds a place in its data and is not tracked: a resumed session begins it anew"
        if isinstance(self.value, SystemRandom):
            return f"{name} draws from the system, which gives nothing twice: no session can be repeated"
        return f"{name} lives in this process and is not tracked: its state would be lost"


def forgotten(
    tracked: Mapping[str, Any], variables: Iterable[tuple[str, Any]], seeded: Iterable[Any] = ()
) -> list[Forgotten]:
    """What can be reached from these variables, or was made by torch, and is neither tracked nor inside of what is.

    Generators that are `seeded` need no state.
    """
    alive = _made_by_torch()
    modules, known, found = _Modules(tracked, alive), inside([*tracked.values(), *seeded]), []
    for path, value in reachable(variables):
        if id(value) not in known and _is_stateful(value, modules):
            found.append(Forgotten(path=path, value=value))
            known |= inside([value])  # of a wrapper only the whole is named
    if any(id(each) not in known and modules.concern(each, known) for each in alive):
        del alive
        gc.collect()  # a schedule and its optimizer keep each other alive until then
        for each in _made_by_torch():
            if id(each) not in known and modules.concern(each, known):
                found.append(Forgotten(path="", value=each))
                known |= inside([each])
    return found


def in_words(found: list[Forgotten]) -> list[str]:
    """A line for each, as many as a person reads."""
    more = len(found) - MOST_NAMED
    return [str(each) for each in found[:MOST_NAMED]] + ([f"{more} more things are not tracked"] if more > 0 else [])


class _Modules:
    """Which modules change in this training: an optimizer or a gradient knows their weights, or they are copies."""

    def __init__(self, tracked: Mapping[str, Any], made_by_torch: Sequence[Any]) -> None:
        modules = [part for part in tracked.values() if isinstance(part, nn.Module)]
        self._tracked = {id(each) for module in modules for each in module.parameters()}
        self._forms = [_form(module) for module in modules]
        groups = [group for each in made_by_torch if isinstance(each, Optimizer) for group in each.param_groups]
        self._optimized = {id(each) for group in groups for each in group["params"]}

    def changes(self, module: nn.Module) -> bool:
        """Whether it has weights of its own that are trained, or is built like a tracked one (an average, a target)."""
        own = [each for each in module.parameters() if id(each) not in self._tracked]
        trained = any(id(each) in self._optimized or each.grad is not None for each in own)
        return trained or (bool(own) and _form(module) in self._forms)

    def concern(self, each: Any, known: Collection[int]) -> bool:
        """Whether what no variable leads to is of this training, and not of an earlier one in this process."""
        if isinstance(each, Optimizer):
            return any(id(weight) in self._tracked for group in each.param_groups for weight in group["params"])
        return id(getattr(each, "optimizer", None)) in known


def _form(module: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(name, each.shape) for name, each in module.named_parameters() if not is_lazy(each)]


def _is_stateful(value: Any, modules: _Modules) -> bool:
    match value:
        case GradScaler():
            return value.is_enabled()
        case nn.Module() if not isinstance(value, AveragedModel):
            return modules.changes(value)
        case GeneratorType():
            return is_users(value.gi_code) and inspect.getgeneratorstate(value) == inspect.GEN_SUSPENDED
    kinds = (*MADE_BY_TORCH, *DRAWN_FROM, _BaseDataLoaderIter)
    return isinstance(value, kinds) and not any(value is each for each in GLOBAL)


def _made_by_torch() -> list[Any]:
    alive = gc.get_objects()  # a million in a large process: what is done for each of them is as little as can be
    kinds = {kind for kind in set(map(type, alive)) if issubclass(kind, MADE_BY_TORCH)}
    made = [each for each in alive if type(each) in kinds]
    return [each for each in made if not (isinstance(each, GradScaler) and not each.is_enabled())]
