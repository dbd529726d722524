"""An optimizer's state, loaded as it was saved: torch's own loading casts the moments to the type of their weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.optim import Optimizer


def load_exactly(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state, and give each moment the type that it was saved with: float32 beside weights in bfloat16."""
    optimizer.load_state_dict(dict(state))
    order = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in zip(order, parameters):
        if number in state["state"] and parameter in optimizer.state:
            optimizer.state[parameter] = _as_saved(optimizer.state[parameter], state["state"][number])


def _as_saved(loaded: Any, saved: Any) -> Any:
    """What was loaded, with the tensors whose type is not the saved one in that type, on the device they are on."""
    match loaded, saved:
        case torch.Tensor(), torch.Tensor() if loaded.dtype != saved.dtype:
            return saved.to(loaded.device)
        case dict(), Mapping():
            for key in loaded.keys() & saved.keys():
                loaded[key] = _as_saved(loaded[key], saved[key])
        case ((list() | tuple()), (list() | tuple())) if len(loaded) == len(saved):
            return type(loaded)(map(_as_saved, loaded, saved))
    return loaded
