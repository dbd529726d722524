"""The step in progress: what it was handed, and whether the state is still that after the step before it.

Until its optimizer steps, a step changes little: running statistics, counters, generators. Where nothing was changed,
the state after the step before can still be saved when the step fails or never gets its data.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from unbroken.journal import Samples, as_recorded
from unbroken.train import rng
from unbroken.train.order import Key
from unbroken.train.probe import Probe
from unbroken.train.progress import Progress
from unbroken.train.random_holders import Holders
from unbroken.train.rates import Rates

DEEPEST = 4  # values within values that are looked at


class StepInProgress:
    """Micro-batches of a step that has not ended; `tracked` grows while parts are named."""

    def __init__(self, seed: int, tracked: Mapping[str, Any], rates: Rates) -> None:
        self.samples: list[Key] = []
        self.turns = 0  # micro-batches handed out since the last step
        self.skipped = 0  # samples that were left out since the last step
        self.lr: float | None = None
        self.waits = False  # the loop has asked for a batch
        self.finished = 0  # steps of this session
        self._settled = 0  # of them, by the last boundary
        self.probe = Probe(tracked)
        self.holders: Holders | None = None
        self._seed, self._tracked, self._rates = seed, tracked, rates
        self._tensors: dict[str, list[torch.Tensor]] = {}  # of each module
        self._steps: Counter[str] = Counter()  # begun by each optimizer, which may write where no version counts
        self._mark: dict[str, Any] = {}

    def follow(self, tracked: Mapping[str, Any]) -> None:
        """Hear of the steps that newly tracked optimizers take."""
        for name, part in tracked.items():
            if isinstance(part, Optimizer):
                part.register_step_pre_hook(lambda *_, name=name: self._steps.update([name]))

    def wait(self) -> None:
        """The loop asks for a batch."""
        self.waits = True

    def settle(self) -> None:
        """A boundary: between two steps, everything that belongs to the one before is done by now."""
        self._settled = self.finished
        if not self.turns:
            self.mark()

    @property
    def ended(self) -> bool:
        """Whether a step was finished since the last boundary."""
        return self.finished > self._settled

    @property
    def is_at_boundary(self) -> bool:
        """Whether the state is still the one of the last boundary."""
        return not self.ended and not self.changed()

    def enter(self, samples: list[Key], *, step: int, skipped: int = 0) -> None:
        """A micro-batch is handed out; what it draws depends on nothing that was drawn before."""
        self.waits = False
        self.seed("step", step, self.turns)
        self.turns += 1
        self.samples += samples
        self.skipped += skipped
        self.lr = self._rates.look(self._tracked, step=step)

    def recorded(self, before: Progress) -> Samples:
        """What is recorded of its samples; `before` is how far the run was when it began."""
        follow = not (self.skipped or before.excluded)
        return as_recorded([sample for _, sample in self.samples], first=before.position if follow else None)

    def numbers(self, values: Mapping[str, float]) -> dict[str, float]:
        """What is recorded of the step; its learning rate belongs to it."""
        return {**values, **({"lr": self.lr} if self.lr is not None and "lr" not in values else {})}

    def finish(self) -> None:
        """The optimizer has stepped."""
        self.samples, self.turns, self.skipped = [], 0, 0
        self.finished += 1
        self.mark()

    def seed(self, *name: object) -> None:
        """Begin the random streams for what has this name, and the data set's generators: a loop may use them too."""
        rng.seed_streams(rng.seed_for(self._seed, *name))
        if self.holders is not None:
            self.holders.seed(self._seed, *name)

    def mark(self) -> None:
        """The state is that after the last step."""
        self._tensors = {n: _tensors_of(part) for n, part in self._tracked.items() if isinstance(part, nn.Module)}
        self._mark = {name: self._seen(name, part) for name, part in self._tracked.items()}

    def changed(self) -> list[str]:
        """The parts that are not, or may not be, as the last step left them."""
        if self.waits and not self.turns:
            return []
        return [
            name
            for name, part in self._tracked.items()
            if self._mark.get(name) != self._seen(name, part) or self._has_other_tensors(name, part)
        ]

    def _seen(self, name: str, part: Any) -> Any:
        match part:
            case nn.Module():
                return [_version(tensor) for tensor in self._tensors.get(name, ())]
            case Optimizer():
                return self._steps[name], _seen(part.param_groups)
        return _seen(part)

    def _has_other_tensors(self, name: str, part: Any) -> bool:
        if not isinstance(part, nn.Module):
            return False
        return list(map(id, _tensors_of(part))) != list(map(id, self._tensors.get(name, ())))


def _tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers, buffers that each forward pass makes anew among them; kept, so that no id comes twice."""
    held = (tensors for each in module.modules() for tensors in (each._parameters, each._buffers))
    return [tensor for tensors in held for tensor in tensors.values() if tensor is not None]


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _seen(value: Any, depth: int = DEEPEST) -> Any:
    """What tells a changed value at little cost: of long lists the length and the end, of tensors their version."""
    match value:
        case torch.Tensor():
            return id(value), _version(value)
        case float():
            return repr(value)  # a NaN is itself
        case bool() | int() | str() | bytes() | None:
            return value
        case Mapping() if depth:
            return [(key, _seen(each, depth - 1)) for key, each in value.items()]
        case list() | tuple() | deque() if depth:
            return len(value), [_seen(each, depth - 1) for each in _few(value)]
        case torch.Generator():
            return bytes(value.get_state().tolist())
        case np.random.Generator():
            return repr(value.bit_generator.state)
        case np.random.RandomState() | random.Random():
            return repr(value.get_state() if isinstance(value, np.random.RandomState) else value.getstate())
        case Optimizer() | nn.Module():
            return id(value)
        case GradScaler():  # what it notes of a step in progress is no state
            return [(key, _seen(each)) for key, each in vars(value).items() if key != "_per_optimizer_states"]
    return _seen(vars(value), depth - 1) if depth and hasattr(value, "__dict__") else id(value)


def _few(values: Sequence[Any]) -> list[Any]:
    return list(values) if len(values) <= 8 else [values[0], values[-1]]
