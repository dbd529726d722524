"""Checkpoints of the original FocalSST, an OpenPCDet fork: their states as the parts here spell them, and the reverse.

Its `model_state` has tables that this network makes itself, and is otherwise the same. Its optimizer knows only the
parameters of modules without children: in the order of its modules those of all others, then those of batch norms. So
the attention's `in_proj_weight` and `in_proj_bias`, whose module has a child, are never trained there. Moments are
matched by name, and every count and shape is compared before one is believed. Our own first checkpoints had
other names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from unbroken import counted, some_of
from unbroken.errors import Incompatible
from unbroken.train import Regrouping, Translated

# Each pair: what the name began with or held, and what stands there now. No present name matches any of them.
EARLIER = (
    (re.compile(r"^(vfe\.pfn_layers\.\d+)\.point_gate\."), r"\1.pa_fc.0."),
    (re.compile(r"^(vfe\.pfn_layers\.\d+)\.channel_gate\."), r"\1.ca_fc."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.conv1\.conv\."), r"\1.conv_input.0."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.conv1\.norm\."), r"\1.conv_input.1."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.conv2\.conv\."), r"\1.conv_input.3."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.conv2\.norm\."), r"\1.conv_input.4."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.importance\."), r"\1.conv_imp."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.conv3\.conv\."), r"\1.conv_focal.0."),
    (re.compile(r"^(backbone_3d\.focal_encoder)\.conv3\.norm\."), r"\1.conv_focal.1."),
)
# Buffers of the original that hold no knowledge: a counter, and tables of its encoder that follow from the config.
TABLES = ("global_step", "kernel_offsets", "inv_idx")
MOMENTS = ("exp_avg", "exp_avg_sq")
MOST_NAMED = 3
# What its optimizer's groups say of weight decay, which its wrapper applies before each step of Adam.
DECAY_ELSEWHERE = {"weight_decay": 0, "decoupled_weight_decay": False}
NOT_THERE = "map_to_bev_module."  # parameters of the height-aware map, which the original has not
GATES = re.compile(r"(vfe\.pfn_layers\.\d+)\.(ca_fc|pa_fc)\.")


def present_name(name: str) -> str:
    """The name that the network has now for a tensor of a checkpoint, whenever it was written."""
    for earlier, now in EARLIER:
        name = earlier.sub(now, name)
    return name


def spell_as_here(model: nn.Module, optimizer: Optimizer, parts: Mapping[str, Any], where: str) -> Translated:
    """The parts of an original checkpoint for this model and optimizer; raises Incompatible if they contradict.

    `parts` may hold tensors or their references: only names, shapes and plain numbers are read.
    """
    state = parts.get("model")
    if not isinstance(state, Mapping):
        return Translated(parts=parts)
    own = model.state_dict()
    tables = [name for name in state if name not in own and str(name).rpartition(".")[2] in TABLES]
    kept = {name: value for name, value in state.items() if name not in tables}
    remarks = [f"left out, as the network here makes them itself: {some_of(tables, MOST_NAMED)}"] if tables else []
    spelled = {**parts, "model": kept}
    if kept.keys() == own.keys() and _is_optimizer_state(parts.get("optimizer")):
        trained = _Trained(parameters=dict(model.named_parameters()), state=state)
        spelled["optimizer"], more = _spell_optimizer(optimizer, trained, parts["optimizer"], where)
        remarks += more
    return Translated(parts=spelled, remarks=tuple(remarks))


def regrouping_of(model: nn.Module, optimizer: Optimizer) -> Regrouping:
    """Where the original's groups have the parameters that this optimizer has, those that they have."""
    parameters = dict(model.named_parameters())
    parameters = {name: parameters[name] for name in _in_order_there(list(parameters))}
    state = {name: None for name in (*parameters, *model.state_dict()) if not name.startswith(NOT_THERE)}
    ours = (parameter for group in optimizer.param_groups for parameter in group["params"])
    numbers = {id(parameter): number for number, parameter in enumerate(ours)}
    groups = _Trained(parameters=parameters, state=state).groups()
    return Regrouping(
        groups=tuple(tuple(numbers[id(parameters[name])] for name in group) for group in groups),
        settings=DECAY_ELSEWHERE,
    )


def _in_order_there(names: Sequence[str]) -> list[str]:
    """The same names in the order of the original's modules: the weights of channels stand before those of points."""
    places: dict[str, int] = {}

    def place(name: str) -> tuple[int, str]:
        gate = GATES.match(name)
        layer, kind = gate.groups() if gate else (name, "")
        return places.setdefault(layer, len(places)), kind

    return sorted(names, key=place)


def tables_of(model: nn.Module, step: int) -> dict[str, Tensor]:
    """The original's tables for a network that has done so many steps; it loads no `model_state` without them."""
    tables = {"global_step": torch.tensor([step])}
    encoder = "backbone_3d.focal_encoder"
    if any(name.startswith(f"{encoder}.") for name, _ in model.named_parameters()):
        offsets = [offset for offset in product((-1.0, 0.0, 1.0), repeat=3) if any(offset)]
        tables[f"{encoder}.kernel_offsets"] = torch.tensor(offsets)
        tables[f"{encoder}.inv_idx"] = torch.tensor([2, 1, 0])
    return tables


@dataclass(frozen=True, kw_only=True)
class _Trained:
    """Which parameters the original's optimizer had, by the names in a file's model state."""

    parameters: Mapping[str, nn.Parameter]
    state: Mapping[str, Any]

    def groups(self) -> tuple[list[str], list[str]]:
        """The names of its two groups, each in its order."""
        owners = {name.rpartition(".")[0] for name in self.state}
        parents = {owner[:place] for owner in owners for place, char in enumerate(owner) if char == "."} | {""}
        of_leaves = [name for name in self.state if name in self.parameters and _owner(name) not in parents]
        norms = [name for name in of_leaves if f"{_owner(name)}.running_mean" in self.state]
        return [name for name in of_leaves if name not in norms], norms


def _owner(name: str) -> str:
    return name.rpartition(".")[0]


def _is_optimizer_state(state: object) -> bool:
    """Whether it has the form of one; what has not is refused where all states are checked."""
    if not isinstance(state, Mapping) or not isinstance(state.get("state"), Mapping):
        return False
    groups = state.get("param_groups")
    return isinstance(groups, list) and all(
        isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups
    )


def _spell_optimizer(
    optimizer: Optimizer, trained: _Trained, theirs: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], list[str]]:
    """The moments by this optimizer's numbers; its own settings, with the file's learning rate."""
    moments = _moments_by_name(trained, theirs, where)
    names = {id(parameter): name for name, parameter in trained.parameters.items()}
    order = [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]
    state = {number: dict(moments[name]) for number, name in enumerate(order) if name in moments}
    groups = []
    for own, found in zip(optimizer.state_dict()["param_groups"], theirs["param_groups"]):
        rate = found.get("lr")
        groups.append({**own, "lr": float(rate if isinstance(rate, int | float) else own["lr"])})
    return {"state": state, "param_groups": groups}, _said_of_new(trained, moments)


def _moments_by_name(trained: _Trained, theirs: Mapping[str, Any], where: str) -> dict[str, Mapping[str, Any]]:
    """What the file has for each parameter; raises Incompatible where counts or shapes say that the match is wrong."""
    expected = trained.groups()
    numbers = [group["params"] for group in theirs["param_groups"]]
    if [len(group) for group in numbers] != [len(group) for group in expected]:
        raise _contradiction(
            where,
            "its optimizer was not made for its weights, nothing was loaded",
            expected=f"groups of {' and '.join(str(len(group)) for group in expected)} parameters",
            found=f"groups of {' and '.join(str(len(group)) for group in numbers) or 'none'}",
        )
    name_of = dict(zip([*numbers[0], *numbers[1]], [*expected[0], *expected[1]]))
    if strangers := [number for number in theirs["state"] if number not in name_of]:
        raise _contradiction(
            where,
            "its optimizer has moments of parameters that are in no group, nothing was loaded",
            expected=f"numbers below {len(name_of)}",
            found=some_of(strangers, MOST_NAMED),
        )
    for number, moments in theirs["state"].items():
        name = name_of[number]
        shape = _shape(trained.state[name])
        shapes = [_shape(moments.get(key)) if isinstance(moments, Mapping) else None for key in MOMENTS]
        if shape is None or any(found != shape for found in shapes):
            raise _contradiction(
                where,
                f"the moments number {number} of its optimizer are not those of {name}, nothing was loaded",
                expected=shape,
                found=next(found for found in shapes if found != shape) or "none",
            )
    return {name_of[number]: moments for number, moments in theirs["state"].items()}


def _shape(tensor: Any) -> tuple[int, ...] | None:
    return tuple(tensor.shape) if hasattr(tensor, "shape") else None


def _said_of_new(trained: _Trained, moments: Mapping[str, Any]) -> list[str]:
    """Which parameters begin without moments, and why."""
    had = {name for group in trained.groups() for name in group}
    never = [name for name in trained.parameters if name not in had]
    new = [name for name in never if trained.parameters[name].requires_grad]
    idle = [name for name in trained.parameters if name in had and name not in moments]
    lines = []
    for words, names in (
        ("trained from here on with new moments", new),
        ("nor here, as FREEZE_IN_PROJ says", [name for name in never if name not in new]),
    ):
        if names:
            kinds = some_of(list(dict.fromkeys(name.rpartition(".")[2] for name in names)), MOST_NAMED)
            lines.append(f"never trained by the original, {words}: {kinds} ({counted(len(names), 'tensor')})")
    if idle:
        lines.append(f"the file has no moments of {some_of(idle, MOST_NAMED)}: they begin new")
    return lines


def _contradiction(where: str, what: str, *, expected: object, found: object) -> Incompatible:
    return Incompatible(
        where,
        what,
        expected=expected,
        found=found,
        do="Take another checkpoint of this run, or only its weights under a new tag: --pretrained_model.",
    )
