"""Gradients that no step of their optimizer has used yet: those that are there at a boundary are part of the state.

A loop that ends its steps by hand may leave the sum of several batches in them, and one that steps first and goes
backward afterwards leaves them to the next step. Most loops leave none: nothing is kept of what a step has used. Where
a loop does not set gradients to zero, so that each step adds to those of the one before, they are kept as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from weakref import ref

import torch
from torch.optim import Optimizer

from unbroken.errors import Incompatible
from unbroken.train.state.optimizer_state import tensors_by_name
from unbroken.train.state.placement import placed_like

NONE: frozenset[str] = frozenset()
WATCHED = 8  # steps of a session, in which a loop shows whether it adds to the gradients of the step before


class GradientWatch:
    """Hears of the backward passes and the steps of the tracked optimizers."""

    def __init__(self, tracked: Mapping[str, Any]) -> None:
        self._tracked = tracked  # it grows
        self._arrived: dict[str, list[Any]] = {}  # of each optimizer: what got gradients that it has not used
        self._marked = NONE  # those that had such at the last boundary
        self._used = False  # whether one has stepped since then
        self._first: dict[str, torch.Tensor] = {}  # of each optimizer, a parameter whose gradient is watched
        self._left: dict[str, tuple[Any, int]] = {}  # its gradient at the last boundary, and the version of that
        self._to_watch = WATCHED
        self._adding: set[str] = set()  # the optimizers whose steps add to the gradients of the one before

    def follow(self, name: str, optimizer: Optimizer) -> None:
        """Hear of one more; of its parameters the first and the last, through which a backward pass comes and goes."""
        came = self._arrived[name] = list[Any]()

        def used(*_: object) -> None:
            came[:] = [name] if name in self._adding else []
            self._used = True

        def arrived(parameter: torch.Tensor) -> None:
            gradient, version = self._left.pop(name, (None, 0))
            # One that was set to zero in between has another version.
            if gradient is not None and gradient() is (now := parameter.grad) and now._version == version + 1:
                self._adding.add(name)
            came.append(parameter)
            if not self._to_watch:
                handle.remove()
                hear(parameter, came.append)

        optimizer.register_step_post_hook(used)
        trained = [each for each in _parameters(optimizer) if each.requires_grad and each.is_leaf]
        hear: Any = torch.Tensor.register_post_accumulate_grad_hook
        for each in trained[:1]:
            self._first[name] = each
            handle = hear(each, arrived)
        for each in trained[1:][-1:]:
            hear(each, came.append)

    def mark(self) -> None:
        """A boundary: what is unused now is part of the state."""
        self._used, marked = False, []
        for name, came in self._arrived.items():
            if came:
                del came[1:]  # one tells as much
                marked.append(name)
        self._marked = frozenset(marked) if marked else NONE
        if self._to_watch:
            self._to_watch -= 1
            self._watch(but=self._marked)

    def _watch(self, but: frozenset[str] = NONE) -> None:
        """See whether the next backward pass adds to the gradients that are there."""
        for name, parameter in self._first.items():
            if name not in but and (gradient := parameter.grad) is not None:
                self._left[name] = ref(gradient), gradient._version

    @property
    def changed(self) -> bool:
        """Whether gradients of the last boundary are no more what they were."""
        return bool(self._marked) and (self._used or sum(map(len, self._arrived.values())) != len(self._marked))

    def unused(self) -> dict[str, torch.Tensor]:
        """The gradients that belong to the state of the last boundary, by the names of their parameters.

        Those of a step that was broken off belong to nothing.
        """
        return {
            name: parameter.grad.detach()
            for name, parameter in self._named(self._marked)
            if parameter.grad is not None and not parameter.grad.is_sparse
        }

    def put_back(self, saved: Mapping[str, torch.Tensor], where: Path) -> None:
        """Give the parameters the gradients that they had; Incompatible where one is not here any more."""
        if not saved:
            return
        optimizers = [name for name, part in self._tracked.items() if isinstance(part, Optimizer)]
        here = dict(self._named(optimizers))
        for name, gradient in saved.items():
            if name not in here or here[name].shape != gradient.shape:
                shape = tuple(here[name].shape) if name in here else "none"
                raise Incompatible(
                    where,
                    f"the gradient of {name}, which the next step uses, has no parameter",
                    expected=str(tuple(gradient.shape)),
                    found=str(shape),
                    do="Undo the change, or choose another tag.",
                )
        for name, gradient in saved.items():
            here[name].grad = placed_like(gradient, here[name]).to(here[name].device)
        for name in optimizers:
            self._arrived[name].append(name)
        self.mark()
        self._watch()

    def _named(self, optimizers: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """The parameters of these optimizers, by their names in what is tracked, else by their place."""
        known = {id(tensor): name for name, tensor in tensors_by_name(self._tracked)}
        for optimizer in sorted(optimizers):
            for place, parameter in enumerate(_parameters(self._tracked[optimizer])):
                yield known.get(id(parameter), f"{optimizer}[{place}]"), parameter


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
