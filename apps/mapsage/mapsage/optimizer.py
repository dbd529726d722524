"""AdamW and its parameter groups: which parameters learn how fast and which decay, in MMEngine's words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.optim import AdamW

from unbroken.errors import ConfigError

_RULES = frozenset({"custom_keys", "norm_decay_mult", "bias_lr_mult", "bias_decay_mult", "dwconv_decay_mult"})
_CUSTOM = frozenset({"lr_mult", "decay_mult"})
Paramwise = Mapping[str, Any]


def parameter_groups(
    model: nn.Module, *, lr: float, weight_decay: float, paramwise: Paramwise | None
) -> list[dict[str, Any]]:
    """Groups for an optimizer, parameters in the order of `model.parameters()`.

    Without rules: one group with all parameters, frozen ones too, so that the numbers in a saved optimizer
    state mean the same whatever is frozen. With any rule: one group for each parameter that is trained.
    `custom_keys` maps a part of a name to `lr_mult` and `decay_mult`; the longest key that occurs in the name
    wins and silences the other rules. Raises `ConfigError` for rules that are not known here.
    """
    if not paramwise:
        return [{"params": list(model.parameters()), "lr": lr, "weight_decay": weight_decay}]
    _check_rules(paramwise)
    groups: list[dict[str, Any]] = []
    for module_name, module in model.named_modules():  # in the order of `model.parameters()`
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad:
                lr_mult, decay_mult = _multipliers(f"{module_name}.{name}", name, module, paramwise)
                groups.append({"params": [parameter], "lr": lr * lr_mult, "weight_decay": weight_decay * decay_mult})
    return groups


def build_adamw(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    paramwise: Paramwise | None = None,
) -> AdamW:
    """PyTorch's AdamW (Loshchilov and Hutter, 2019) over `parameter_groups`."""
    groups = parameter_groups(model, lr=lr, weight_decay=weight_decay, paramwise=paramwise)
    return AdamW(groups, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)


def _multipliers(full_name: str, name: str, module: nn.Module, paramwise: Paramwise) -> tuple[float, float]:
    """Factors of learning rate and weight decay for one parameter."""
    custom: Mapping[str, Mapping[str, float]] = paramwise.get("custom_keys", {})
    for key in sorted(sorted(custom), key=len, reverse=True):
        if key in full_name:
            return custom[key].get("lr_mult", 1.0), custom[key].get("decay_mult", 1.0)
    is_norm = isinstance(module, (_BatchNorm, _InstanceNorm, nn.GroupNorm, nn.LayerNorm))
    lr_mult = paramwise.get("bias_lr_mult", 1.0) if name == "bias" and not is_norm else 1.0
    # Of decay the first rule counts that is given and applies.
    applies = {
        "norm_decay_mult": is_norm,
        "bias_decay_mult": name == "bias",
        "dwconv_decay_mult": isinstance(module, nn.Conv2d) and module.in_channels == module.groups,
    }
    given = (float(paramwise[rule]) for rule, fits in applies.items() if fits and rule in paramwise)
    return lr_mult, next(given, 1.0)


def _check_rules(paramwise: Paramwise) -> None:
    custom: Mapping[str, Mapping[str, float]] = paramwise.get("custom_keys", {})
    unknown = sorted(set(paramwise) - _RULES)
    unknown += sorted(f"custom_keys.{key}.{rule}" for key in custom for rule in set(custom[key]) - _CUSTOM)
    if unknown:
        raise ConfigError(
            "optim_wrapper.paramwise_cfg",
            "a rule is not known here",
            expected=f"{sorted(_RULES)}, and in custom_keys {sorted(_CUSTOM)}",
            found=unknown,
        )
