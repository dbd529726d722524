"""Checkpoints as the original writes them: its optimizer over leaf modules, its extra tables, its form of the file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unbroken.train import Task

ENCODER = "backbone_3d.focal_encoder."


def leaves(module: nn.Module) -> list[nn.Module]:
    children = list(module.children())
    return [leaf for child in children for leaf in leaves(child)] if children else [module]


def original_groups(model: nn.Module) -> list[list[nn.Parameter]]:
    """Parameters of leaf modules: of all others, then of batch norms."""
    found: list[list[nn.Parameter]] = [[], []]
    for leaf in leaves(model):
        found[isinstance(leaf, _BatchNorm)] += leaf.parameters()
    return found


def original_adam(model: nn.Module) -> torch.optim.Adam:
    groups = [{"params": group, "lr": 0} for group in original_groups(model)]
    return torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-8)


def train_as_the_original(task: Task, adam: torch.optim.Adam) -> Iterator[int]:
    """Steps of the original's optimizer on real frames; yields how many were done.

    No gradient reaches the importance convolution there, and what is not in the optimizer is never stepped.
    """
    assert task.collate is not None
    rng = np.random.default_rng(0)
    task.model.train()
    for step in count():
        batch = task.collate([task.dataset.sample((2 * step + i) % len(task.dataset), rng) for i in range(2)])
        adam.zero_grad(set_to_none=True)
        task.loss(batch)["loss"].backward()
        for name, parameter in task.model.named_parameters():
            if "importance" in name:
                parameter.grad = None
        for group in adam.param_groups:
            group["lr"], group["betas"] = np.float64(1e-3 + 1e-5 * step), (np.float64(0.9), 0.99)
            with torch.no_grad():
                for parameter in group["params"]:
                    parameter.mul_(1 - 0.01 * float(group["lr"]))
        adam.step()
        yield step + 1


def original_model_state(model: nn.Module) -> OrderedDict[str, torch.Tensor]:
    """With the counter and the tables that the original keeps beside its weights, where it has them."""
    state = OrderedDict([("global_step", torch.zeros(1, dtype=torch.int64))])
    for name, tensor in model.state_dict().items():
        if name.startswith(ENCODER) and f"{ENCODER}inv_idx" not in state:
            state[f"{ENCODER}kernel_offsets"] = torch.zeros(26, 3, dtype=torch.int64)
            state[f"{ENCODER}inv_idx"] = torch.arange(27)
        state[name] = tensor.clone()
    return state


@dataclass(frozen=True, kw_only=True)
class Original:
    """A state of the original in memory."""

    epoch: int
    it: int
    model_state: OrderedDict[str, torch.Tensor]
    optimizer_state: dict[str, Any]

    def write(self, path: Path, **instead: Any) -> None:
        tree = {
            "epoch": self.epoch,
            "it": self.it,
            "model_state": self.model_state,
            "optimizer_state": self.optimizer_state,
            "version": "pcdet+0.6.0+0123456",
            **instead,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(tree, path, _use_new_zipfile_serialization=False)
        # As numpy 1 spells its scalars, with which the original ran; the name ends at a line's end, so nothing shifts.
        path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


def copy_of(state: Any) -> Any:
    """A tree with tensors of its own."""
    match state:
        case torch.Tensor():
            return state.clone()
        case dict():
            return {key: copy_of(value) for key, value in state.items()}
        case list() | tuple():
            return type(state)(copy_of(item) for item in state)
    return state
