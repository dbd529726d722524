"""Whole tensors and sharded ones (DTensor): each can take the place of the other, at any number of processes.

A class is asked for by its name, since loading it takes as long as a small training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

SHARDED_TENSOR = "DTensor"


def is_sharded(value: Any) -> bool:
    """Whether a tensor is sharded over the processes."""
    return type(value).__name__ == SHARDED_TENSOR


def mesh_of(parts: Iterable[Any]) -> Any:
    """The processes over which the weights of these parts are sharded; None where all are whole."""
    modules = (part for part in parts if isinstance(part, nn.Module))
    sharded = (each for module in modules for each in module.parameters() if is_sharded(each))
    return getattr(next(sharded, None), "device_mesh", None)


def here(tensor: torch.Tensor) -> torch.Tensor:
    """What of a tensor lies in this process: all of a whole one."""
    either: Any = tensor
    local: torch.Tensor = either.to_local() if is_sharded(either) else either
    return local


def whole(value: Any) -> Any:
    """A plain state with whole tensors in the place of sharded ones; every process of the training calls it."""
    if is_sharded(value):
        return value.full_tensor()
    return {key: whole(item) for key, item in value.items()} if type(value) is dict else value


def placed_like(saved: Any, own: Any) -> torch.Tensor:
    """A tensor as another one of its shape is: whole, or sharded as that is."""
    placed: torch.Tensor
    if not is_sharded(own):
        placed = whole(saved)
    elif is_sharded(saved):
        placed = saved.redistribute(own.device_mesh, own.placements)
    else:
        from torch.distributed.tensor import distribute_tensor

        mesh = own.device_mesh
        placed = distribute_tensor(saved.to(mesh.device_type), mesh, own.placements, src_data_rank=None)
    return placed


def all_placed_like(saved: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The same of the tensors of a state, by their names; what is in one of them alone stays as it is."""
    return {
        name: placed_like(value, own[name]) if name in own and (is_sharded(value) or is_sharded(own[name])) else value
        for name, value in saved.items()
    }
