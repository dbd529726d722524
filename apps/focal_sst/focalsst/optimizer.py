"""Adam with decoupled weight decay over every parameter, in FocalSST's two groups: batch norms and all others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import AdamW

from unbroken.train import Regrouping


def parameter_groups(model: nn.Module) -> list[dict[str, Any]]:
    """Two groups, all others and batch norms, each in the order of `model.parameters()`, even when one is empty.

    The groups go by parameter, not by module: one that belongs to a module with children (an attention's
    `in_proj_weight`, a positional embedding) is not forgotten, and one that is shared comes once. Frozen ones
    are listed too, so that the numbers in a saved optimizer state mean the same whatever is frozen.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    in_norms = {id(parameter) for norm in norms for parameter in norm.parameters(recurse=False)}
    parameters = list(model.parameters())
    return [
        {"params": [parameter for parameter in parameters if id(parameter) not in in_norms]},
        {"params": [parameter for parameter in parameters if id(parameter) in in_norms]},
    ]


class AdamDecayingAll(AdamW):
    """PyTorch's AdamW (Loshchilov and Hutter, 2019), which also decays parameters that have no gradient.

    Each step multiplies every trained parameter by 1 - lr * weight_decay and then does Adam's step on those with
    a gradient; a part of the network that no loss reaches shrinks, as it does in FocalSST. `regrouping` says in which
    groups its state is saved, for programs that have others.
    """

    regrouping: Regrouping | None = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Decay everything, then do Adam's step; a closure is evaluated first, as its gradients decide."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None and parameter.requires_grad:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
        super().step()
        return loss


def build_adam(
    model: nn.Module, *, lr: float, weight_decay: float, betas: tuple[float, float] = (0.95, 0.99), eps: float = 1e-8
) -> AdamDecayingAll:
    """The optimizer of `adam_onecycle` over `parameter_groups`; its schedule then moves `lr` and the first beta."""
    return AdamDecayingAll(parameter_groups(model), lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
