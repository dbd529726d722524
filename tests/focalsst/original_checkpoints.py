"""Checkpoints as the original writes them: its network, its optimizer over leaf modules, its form of the file."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from focalsst.model.settings import DetectorSettings

from .original_network import original_network

LR, MOMS, DIV_FACTOR, PCT_START, WEIGHT_DECAY = 1e-3, (0.95, 0.85), 10, 0.4, 0.01


def leaves(module: nn.Module) -> list[nn.Module]:
    children = list(module.children())
    return [leaf for child in children for leaf in leaves(child)] if children else [module]


def original_groups(network: nn.Module) -> list[list[nn.Parameter]]:
    """Parameters of leaf modules: of all others, then of batch norms. What a module with children owns is in none."""
    found: list[list[nn.Parameter]] = [[], []]
    for leaf in leaves(network):
        found[isinstance(leaf, _BatchNorm)] += leaf.parameters()
    return found


class OptimWrapper:
    """Adam under fastai's wrapper: decoupled decay of all it knows, rate and momentum as NumPy's cosine gives them."""

    def __init__(self, network: nn.Module, *, total: int) -> None:
        groups = [{"params": group, "lr": 0} for group in original_groups(network)]
        self.adam = torch.optim.Adam(groups, betas=(0.9, 0.99), eps=1e-8)
        self.total = total

    def step(self, it: int) -> None:
        """Step number `it`, counted from 0."""
        rise = int(self.total * PCT_START)
        if it < rise:
            ends, share = ((LR / DIV_FACTOR, LR), (MOMS[0], MOMS[1])), it / rise
        else:
            ends, share = ((LR, LR / DIV_FACTOR / 1e4), (MOMS[1], MOMS[0])), (it - rise) / (self.total - rise)
        lr, mom = (end + (start - end) / 2 * (np.cos(np.pi * share) + 1) for start, end in ends)
        for group in self.adam.param_groups:
            group["lr"], group["betas"], group["weight_decay"] = lr, (mom, 0.99), 0
            for parameter in group["params"]:
                parameter.data.mul_(1 - WEIGHT_DECAY * lr)
        self.adam.step()


@dataclass(frozen=True, kw_only=True)
class Original:
    """A state of the original in memory; `trained` are the names behind the numbers of its optimizer's state."""

    epoch: int
    it: int
    model_state: OrderedDict[str, torch.Tensor]
    optimizer_state: dict[str, Any]
    trained: tuple[str, ...]

    def write(self, path: Path, *, device: str = "cuda:0", **instead: Any) -> None:
        """Write it as `torch.save` did without zip, from the memory of a GPU, by a NumPy before its second version."""
        tree = {
            "epoch": self.epoch,
            "it": self.it,
            "model_state": self.model_state,
            "optimizer_state": self.optimizer_state,
            "version": "pcdet+0.6.0+9e09073",
            **instead,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with mock.patch.object(torch.serialization, "location_tag", lambda _storage: device):
            torch.save(tree, path, _use_new_zipfile_serialization=False)
        # The name ends at a line's end, so nothing shifts.
        path.write_bytes(path.read_bytes().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"))


class Program:
    """The original in the middle of its `train.py`: network and optimizer, and how it takes a state from a file."""

    def __init__(self, settings: DetectorSettings, *, total: int) -> None:
        torch.manual_seed(6)
        self.network = original_network(settings)
        self.optimizer = OptimWrapper(self.network, total=total)
        self._names = {id(parameter): name for name, parameter in self.network.named_parameters()}

    @property
    def trained(self) -> tuple[str, ...]:
        """The names behind the numbers of its optimizer's state."""
        return tuple(self._names[id(parameter)] for group in original_groups(self.network) for parameter in group)

    def resume(self, path: Path) -> tuple[int, int]:
        """What `--ckpt` does; returns steps and epochs.

        Tensors of unknown names and of other shapes are dropped, and then the network takes all or nothing. A file
        without an optimizer's state passes.
        """
        checkpoint = torch.load(path)
        own = self.network.state_dict()
        self.network.load_state_dict(
            {
                name: tensor
                for name, tensor in checkpoint["model_state"].items()
                if name in own and own[name].shape == tensor.shape
            }
        )
        if checkpoint.get("optimizer_state") is not None:
            self.optimizer.adam.load_state_dict(checkpoint["optimizer_state"])
        return checkpoint.get("it", 0), checkpoint.get("epoch", -1)

    def step(self, it: int, generator: torch.Generator) -> None:
        """Step number `it`, counted from 0, with seeded gradients where it has any: none reaches the importance."""
        for name, parameter in self.network.named_parameters():
            parameter.grad = None if ".conv_imp." in name else gradient_of(parameter, generator)
        self.optimizer.step(it)
        for name, buffer in self.network.named_buffers():
            if name.endswith(("global_step", "num_batches_tracked")):
                buffer += 1

    def state(self, *, it: int, epoch: int) -> Original:
        """What it would write."""
        return Original(
            epoch=epoch,
            it=it,
            model_state=copy_of(self.network.state_dict()),
            optimizer_state=copy_of(self.optimizer.adam.state_dict()),
            trained=self.trained,
        )


def gradient_of(parameter: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A gradient that was drawn, of about the same size whatever the shape."""
    return torch.randn(parameter.shape, generator=generator) / math.sqrt(parameter.numel())


def train_as_the_original(settings: DetectorSettings, *, per_epoch: int, epochs: int) -> Iterator[Original]:
    """The original's state after each step; what is in no group of its optimizer is never stepped."""
    program = Program(settings, total=per_epoch * epochs)
    generator = torch.Generator().manual_seed(7)
    for it in count(1):
        program.step(it - 1, generator)
        yield program.state(it=it, epoch=it // per_epoch)


def copy_of(state: Any) -> Any:
    """A tree with tensors of its own."""
    match state:
        case torch.Tensor():
            return state.detach().clone()
        case dict():
            return type(state)((key, copy_of(value)) for key, value in state.items())
        case list() | tuple():
            return type(state)(copy_of(item) for item in state)
    return state
