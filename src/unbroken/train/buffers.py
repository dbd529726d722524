"""Buffers that a module leaves out of its `state_dict` (`persistent=False`): training may change them all the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from unbroken.train.in_place import Storages, fill_tensor
from unbroken.train.wrappers import plainly_named


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
