"""Modes and buffers of modules that are in no `state_dict`: `training` decides what a step computes.

A normalisation that is frozen by `eval()`, or a model that a validation has left in it, is so at a boundary; the next
session begins there. Kept is, of each tracked module, the names of the modules inside whose mode is not that of the one
that holds them (for a whole module: not training), so that a model in training mode as usual keeps nothing.

Buffers with `persistent=False` are left out of a module's `state_dict`, and training may change them all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from unbroken.train.state.in_place import Storages, fill_tensor
from unbroken.train.state.wrappers import plainly_named

Switches = Mapping[str, Sequence[str]]  # by the name of the part


@contextmanager
def modes_kept(parts: Iterable[Any]) -> Iterator[None]:
    """Leave every module of these in the mode in which it is now, whatever the block does."""
    before = [(module, module.training) for module in _modules(parts)]
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and afterwards back into the mode that each one was in.

    Prediction between two training steps then moves no running statistics and draws no random numbers.

    Args:
        model: The network; all modules inside it are switched.
    Example:
        with evaluating(model), torch.no_grad():
            assert not model.training
        assert model.training
    """
    with modes_kept([model]):
        model.eval()
        yield


class Modes:
    """The modes of what is tracked, as they were at the last boundary: what a validation changes is no state yet."""

    def __init__(self, tracked: Mapping[str, Any]) -> None:
        self._tracked = tracked  # it grows
        self._evaluating: list[nn.Module] | None = None  # noted before each step: those of few models, and none of most

    def note(self, modules: Iterable[Iterable[nn.Module]]) -> None:
        """A boundary; these are all modules that are tracked."""
        self._evaluating = [module for inside in modules for module in inside if not module.training]

    def kept(self) -> AbstractContextManager[None]:
        """Leave all of them in their modes, whatever the block does."""
        return modes_kept(self._tracked.values())

    def switches(self) -> dict[str, list[str]]:
        """What is kept of each tracked module."""
        if self._evaluating is None:
            self.note([_modules(self._tracked.values())])
        evaluating = set(map(id, self._evaluating or ()))
        found: dict[str, list[str]] = {}
        for part, module in self._tracked.items():
            if isinstance(module, nn.Module):
                training = {name: id(inner) not in evaluating for name, inner in plainly_named(module)}
                found[part] = [name for name in training if training[name] is not _mode_above(training, name)]
        return found


def put_modes(parts: Mapping[str, Any], saved: Switches) -> Iterator[str]:
    """Give modules the modes that they had; yields what is to be said of such as were built in another, or are gone.

    It is set and not switched: a `train` of one's own may have its own mind. A file of an earlier version keeps none.
    """
    for part, switches in saved.items():
        training, changed = dict[str, bool](), dict[str, bool]()
        for name, module in plainly_named(parts.get(part)):
            training[name] = _mode_above(training, name) is not (name in switches)
            if module.training is not training[name]:
                module.training = changed[f"{part}.{name}".removesuffix(".")] = training[name]
        for mode, wanted in {"training": True, "evaluation": False}.items():
            if names := [name for name, trains in changed.items() if trains is wanted]:
                more = f" and {len(names) - 1} more" if len(names) > 1 else ""
                yield f"{names[0]}{more}: in {mode} mode as when it was saved, not as it was built"
        for name in [name for name in switches if training and name not in training]:
            yield f"{part}.{name} is not here any more: its mode (training or evaluation) was not that of what held it"


def _mode_above(training: Mapping[str, bool], name: str) -> bool:
    """The mode of what holds a module; one that nothing holds is expected to train."""
    return training.get(name.rpartition(".")[0], True) if name else True


def _modules(parts: Iterable[Any]) -> Iterator[nn.Module]:
    return (module for part in parts if isinstance(part, nn.Module) for module in part.modules())


def buffers_of(part: Any) -> dict[str, torch.Tensor]:
    """The non-persistent buffers of a part by name; sparse ones and such without numbers are constants."""
    return {name: buffer.detach() for name, (_, _, buffer) in _places(part).items()}


def misplaced(part: Any, saved: Mapping[str, Any]) -> Iterator[str]:
    """The saved buffers that this part has no place for, with the reason."""
    modules = dict(plainly_named(part))
    for name in saved:
        above, _, own = name.rpartition(".")
        module = modules.get(above)
        if module is None or (own not in module._buffers and hasattr(module, own)):
            yield f"{name}: a buffer in the checkpoint, and none here"


def put_buffers(part: Any, saved: Mapping[str, torch.Tensor]) -> None:
    """Give a module these buffers: in place where they fit, else anew, as a cache has another size or comes later."""
    modules, places, held = dict(plainly_named(part)), _places(part), Storages()
    for name, value in saved.items():
        if name in places:
            module, own, buffer = places[name]
            module._buffers[own] = fill_tensor(buffer, value, held)
        else:
            above, _, own = name.rpartition(".")
            device = next((each.device for each in part.parameters()), value.device)
            modules[above].register_buffer(own, value.to(device), persistent=False)


def _places(part: Any) -> dict[str, tuple[nn.Module, str, torch.Tensor]]:
    return {
        f"{prefix}.{name}".lstrip("."): (module, name, buffer)
        for prefix, module in dict(plainly_named(part)).items()
        for name, buffer in module.named_buffers(recurse=False)
        if name in module._non_persistent_buffers_set and _has_numbers(buffer)
    }


def _has_numbers(buffer: torch.Tensor | None) -> bool:
    return (
        buffer is not None
        and buffer.layout is torch.strided
        and not (buffer.is_meta or buffer.is_quantized or nn.parameter.is_lazy(buffer))
    )
