"""Whether the states in a file are states at all: looked at before one of them is loaded.

torch's own classes take nearly anything and break at the next step, with a message about that step. So what they are
given is compared with what they hold: a number stays a number, a moment has a tensor, no entry hides a method. Whether
sound states fit what is being trained is the next question, see `parts.check`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from unbroken.checkpoint.describe import summary
from unbroken.checkpoint.tree import TensorRef
from unbroken.errors import DamagedFile
from unbroken.text import printable
from unbroken.train.state.tree import WRAP, to_plain

Shaped = torch.Tensor | TensorRef
# What a part raises that does not take its state. An UnbrokenError says already what is wrong.
REFUSALS = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, OverflowError, AssertionError)
# Entries of torch's optimizers that have their parameter's shape; others (factored or joined moments) need not.
LIKE_PARAMETERS = frozenset(
    {"exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "grad_avg", "acc_delta", "exp_inf"}
)
# Entries without which the next step of these classes breaks, where a parameter has any.
NEEDED_MOMENTS = {
    **dict.fromkeys(("Adam", "AdamW", "RAdam"), ("step", "exp_avg", "exp_avg_sq")),
    "NAdam": ("step", "mu_product", "exp_avg", "exp_avg_sq"),
    "Adamax": ("step", "exp_avg", "exp_inf"),
    "Adagrad": ("step", "sum"),
    "Adadelta": ("step", "square_avg", "acc_delta"),
    "RMSprop": ("step", "square_avg"),
}
LARGEST = 2**63 - 1  # of whole numbers: what comes next counts with them as floats or in 64 bits
# Entries of torch's schedules that the next step divides by.
DIVISORS = frozenset({"step_size", "T_max", "T_i", "total_size", "step_ratio", "end_step"})
PER_GROUP = ("base_lrs", "_last_lr")  # of torch's schedules: a rate for each group of parameters
Problem = tuple[str, str, object]  # the field, what is expected there, what was found


def require_sound(tracked: Mapping[str, Any], saved: Mapping[str, Any], where: Path) -> None:
    """Raise DamagedFile, naming the first field, unless each saved state has the form of its part's states.

    The saved states hold tensors or their references; the numbers are not looked at.
    """
    for name, part in tracked.items():
        for field, expected, found in _problems(part, saved[name]) if name in saved else ():
            what = f"the state of {name} is not sound{f', in {printable(field[:200])}' if field else ''}"
            raise DamagedFile(where, what, expected=expected, found=printable(summary(found)))


def _problems(part: Any, saved: Any) -> Iterator[Problem]:
    match part:
        case nn.Module():
            yield from _of_module(saved)
        case Optimizer():
            yield from _of_optimizer(part, saved)
        case torch.Generator():
            size = part.get_state().numel()
            state = saved.get("state") if isinstance(saved, Mapping) else None
            if not isinstance(state, Shaped) or tuple(state.shape) != (size,) or "uint8" not in str(state.dtype):
                yield "state", f"{size} bytes", state
        case GradScaler():
            yield from _of_torch(part, saved)
        case _ if type(part).__module__.startswith("torch.") and hasattr(part, "state_dict"):
            yield from _of_torch(part, saved)


def _of_module(saved: Any) -> Iterator[Problem]:
    if not isinstance(saved, Mapping):
        yield "", "weights by name", saved
    for key in saved if isinstance(saved, Mapping) else ():
        if not isinstance(key, str):
            yield str(key), "text as the name of a weight", key


def _of_optimizer(optimizer: Optimizer, saved: Any) -> Iterator[Problem]:
    groups = saved.get("param_groups") if isinstance(saved, Mapping) else None
    if not isinstance(groups, list):
        yield "param_groups", "a list of groups", groups
        return
    known = [*optimizer.param_groups, *[optimizer.defaults] * len(groups)]  # of more groups than are known, the usual
    for index, (group, own) in enumerate(zip(groups, known)):
        yield from _of_group(group, own, optimizer.defaults, f"param_groups[{index}]")
    state = saved.get("state")
    if not isinstance(state, Mapping):
        yield "state", "moments by parameter", state
        return
    own_class = type(optimizer)
    needed = NEEDED_MOMENTS.get(own_class.__name__, ()) if own_class.__module__.startswith("torch.optim.") else ()
    for index, moments in state.items():
        if type(index) is not int or not isinstance(moments, Mapping):
            yield f"state[{index}]", "a parameter's moments by name", moments
            return
        for key in needed if moments else ():
            if moments.get(key) is None:
                yield f"state[{index}].{key}", "a tensor", None
        for key, moment in moments.items():
            if key in LIKE_PARAMETERS and not isinstance(moment, Shaped | None):
                yield f"state[{index}].{key}", "a tensor", moment
            if key == "step" and not _is_count(moment):
                yield f"state[{index}].step", "a number of steps", moment


def _of_group(group: Any, own: Mapping[str, Any], needed: Mapping[str, Any], where: str) -> Iterator[Problem]:
    if not isinstance(group, Mapping):
        yield where, "a group of parameters", group
        return
    numbers = group.get("params")
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        yield f"{where}.params", "the numbers of its parameters", numbers
    for key, value in to_plain({key: value for key, value in own.items() if key != "params"}).items():
        if key in group:
            yield from _unlike(value, group[key], f"{where}.{key}")
        elif key in needed and not isinstance(value, bool | str | None):
            yield f"{where}.{key}", "a number" if _is_number(value) else "numbers", None


def _of_torch(part: Any, saved: Any) -> Iterator[Problem]:
    """A schedule, a scaler: what is saved becomes its attributes, so it may be none of its methods."""
    if not isinstance(saved, Mapping):
        yield "", "settings by name", saved
        return
    own = to_plain(part.state_dict())
    for key, value in saved.items():
        if key in own:
            yield from _unlike(own[key], value, str(key))
            if key in PER_GROUP and isinstance(value, list) and len(value) != len(own[key]):
                yield str(key), f"{len(own[key])} rates", value
        elif not isinstance(key, str) or callable(getattr(part, key, None)):
            yield str(key), "no entry of this name", value


def _unlike(own: Any, saved: Any, where: str) -> Iterator[Problem]:
    """What is saved in another kind than the part holds it; what is none on one side may be anything on the other."""
    match _bare(own), _bare(saved):
        case bool() | None, None:
            return
        case bool(), value if not isinstance(value, bool | Shaped) and value not in (0, 1):
            yield where, "true or false", saved
        case bool() | int() | float() | torch.Tensor(), value if not _is_number(value):
            if _is_number(own):
                yield where, "a number", saved
        case int() | float() as mine, int() | float() as theirs if mine > 0 >= theirs:
            if where.rpartition(".")[2] in DIVISORS:
                yield where, "a number above 0", saved
        case str(), value if value is not None and not isinstance(value, str):
            yield where, "text", saved
        case dict(mine), dict(theirs):
            for key in mine.keys() & theirs.keys():
                yield from _unlike(mine[key], theirs[key], f"{where}.{key}")
        case list(mine), list(theirs) if len(mine) != len(theirs) and not isinstance(own, list):
            yield where, f"a tuple of {len(mine)}", saved
        case list(mine), list(theirs) if mine and all(map(_is_number, mine)):
            for index, item in enumerate(theirs):
                yield from _unlike(mine[0], item, f"{where}[{index}]")
        case list(mine), list(theirs):
            for index, (one, other) in enumerate(zip(mine, theirs)):
                yield from _unlike(one, other, f"{where}[{index}]")
        case (dict() | list()) as mine, value if value is not None and type(value) is not type(mine):
            yield where, f"a {type(mine).__name__}", saved


def _bare(value: Any) -> Any:
    """A tuple, in the form of our files or of others', as a list; a numpy scalar as a number; a mapping as a dict."""
    if isinstance(value, Mapping):
        inner = value.get("value")
        if value.get(WRAP) == "scalar":
            return inner
        return list(inner) if value.get(WRAP) == "tuple" and isinstance(inner, list) else dict(value)
    return list(value) if isinstance(value, tuple) else value


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and abs(value) > LARGEST:
        return False
    return isinstance(value, bool | int | float) or (isinstance(value, Shaped) and _numel(value) == 1)


def _is_count(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, Shaped) or 0 <= value <= LARGEST)


def _numel(tensor: Shaped) -> int:
    return tensor.numel if isinstance(tensor, TensorRef) else tensor.numel()
