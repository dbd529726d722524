"""Filling dicts, lists and deques with a state in place: what a script holds of them beside is filled, not left behind.

A temperature that is learned stands in a tracked dict, in a variable of the script and in an optimizer: one tensor.
Only if that tensor takes the saved numbers do all three go on with them.

Afterwards a part is asked whether it says of its state what was saved: every number, to the bit.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from unbroken.checkpoint.describe import summary
from unbroken.train.state.placement import here, is_sharded, placed_like
from unbroken.train.state.state_checks import Shaped
from unbroken.train.state.tree import KEPT, WRAP

CONTAINERS = (dict, list, deque)  # what may be tracked as it is
WORD = torch.int64.itemsize
Storages = set[int]  # the memory of tensors that have their state from elsewhere
Difference = tuple[str, str, str]  # the place, what was saved there, what is there now


def storages_of(things: Iterable[Any]) -> Storages:
    """The memory of the weights of these things, as far as they are modules."""
    modules = [thing for thing in things if isinstance(thing, nn.Module)]
    tensors = (tensor for module in modules for tensor in (*module.parameters(), *module.buffers()))
    return {_memory_of(tensor) for tensor in tensors if _has_memory(tensor)}


def as_its_base(container: Any) -> Any:
    """A container of a class of one's own as what that is made from: it is filled in place, and stays what it is."""
    match container:
        case dict() if type(container) not in KEPT:
            return {**container}
        case list():
            return [*container]
        case deque():
            return deque(container, container.maxlen)
        case tuple() if hasattr(container, "_make"):
            return tuple(container)
    return container


def fill(own: Any, state: Any, held: Storages) -> Any:
    """What stands in the place of `own` once it has this state: the same object wherever it can take it.

    Tensors in memory that is `held` keep what is there: `{"best": model.state_dict()}` is no second way to the weights.
    """
    match own, state:
        case torch.Tensor(), torch.Tensor():
            return fill_tensor(own, state, held)
        case np.ndarray(), np.ndarray() if (own.shape, own.dtype) == (state.shape, state.dtype) and own.flags.writeable:
            own[...] = state
        case dict(), Mapping():
            filled = {key: fill(own[key], item, held) if key in own else item for key, item in state.items()}
            dict.clear(own)
            dict.update(own, filled)  # a Counter's own method would add
        case (list(), list()) | (deque(), deque()) if getattr(own, "maxlen", None) == getattr(state, "maxlen", None):
            filled_items = [*_filled(own, state, held), *[*state][len(own) :]]
            own.clear()
            own.extend(filled_items)
        case _, torch.Size():
            return state
        case tuple(), tuple() if len(own) == len(state):
            items = _filled(own, state, held)
            return own._make(items) if hasattr(own, "_make") else tuple(items)
        case _:
            return state
    return own


def fill_tensor(own: torch.Tensor, state: torch.Tensor, held: Storages) -> torch.Tensor:
    """The own tensor with these numbers, or another one where it cannot have them."""
    if form(own) == form(state):
        if _has_memory(own) and (memory := _memory_of(own)) not in held:
            with torch.no_grad():
                own.copy_(placed_like(state, own))
            held.add(memory)
            return own
        if same_bits(own, state):
            return own
    return state.to(own.device)


def kind_of(value: Any) -> str:
    """Which container it is, or was when it was saved: one with another limit forgets other things."""
    is_saved = isinstance(value, Mapping) and value.get(WRAP) == "deque"
    if isinstance(value, deque) or is_saved:
        most = value["maxlen"] if isinstance(value, Mapping) else value.maxlen
        return "deque" if most is None else f"deque of at most {most}"
    return next((kind.__name__ for kind in CONTAINERS if isinstance(value, kind)), type(value).__name__)


def misfits(where: str, own: Any, saved: Any) -> Iterator[str]:
    """The trained tensors of a container that cannot take what is saved for them; others may change their form."""
    match own:
        case torch.Tensor() if own.requires_grad:
            if not isinstance(saved, Shaped):
                yield f"{where}: missing in the checkpoint"
            elif form(own) != form(saved):
                yield f"{where}: expected {form(own)}, found {form(saved)}"
        case dict():
            saved = saved.get("value") if isinstance(saved, Mapping) and WRAP in saved else saved
            known = saved if isinstance(saved, Mapping) else {}
            for key, item in own.items():
                yield from misfits(f"{where}.{key}", item, known.get(key))
        case list() | tuple() | deque():
            saved = saved.get("value") if isinstance(own, deque) and isinstance(saved, Mapping) else saved
            rows = saved if isinstance(saved, list | tuple) else ()
            for place, item in enumerate(own):
                yield from misfits(f"{where}[{place}]", item, rows[place] if place < len(rows) else None)


def form(tensor: Shaped) -> str:
    """Shape and type; a checkpoint in another precision would be rounded while it is loaded."""
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether two tensors have the same form and the same bits: a NaN is itself, and 0.0 is not -0.0."""
    if form(one) != form(other):
        return False
    if is_sharded(one) or is_sharded(other):
        one, other = here(placed_like(one, other)), here(other)
    ours, theirs = (tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other))
    whole = ours.numel() // WORD * WORD  # eight bytes at a time, ten times as fast as one after the other
    if ours.storage_offset() % WORD or theirs.storage_offset() % WORD:
        whole = 0
    return torch.equal(ours[:whole].view(torch.int64), theirs[:whole].view(torch.int64)) and torch.equal(
        ours[whole:], theirs[whole:]
    )


def _filled(own: Iterable[Any], state: Iterable[Any], held: Storages) -> list[Any]:
    return [fill(mine, item, held) for mine, item in zip(own, state)]


def _memory_of(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _has_memory(tensor: torch.Tensor) -> bool:
    """Whether it can be written to element by element."""
    plain = tensor.layout is torch.strided and not tensor.is_meta and not nn.parameter.is_lazy(tensor)
    spread = plain and all(stride or size < 2 for size, stride in zip(tensor.shape, tensor.stride()))
    return spread and not tensor.is_inference() and tensor.numel() > 0


def begins_anew(part: Any) -> bool:
    """Whether a part rightly leaves the saved state: a scaler that is off, or has other settings now."""
    return bool(getattr(part, "begins_anew", False)) or (isinstance(part, GradScaler) and not part.is_enabled())


def differences(saved: Any, now: Any, path: str = "") -> Iterator[Difference]:
    """Where a plain state is not the saved one. What is there beside may be: a later version knows of more."""
    match saved, now:
        case torch.Tensor(), torch.Tensor():
            if not same_bits(saved, now):
                other = "other numbers" if form(saved) == form(now) else "a tensor"
                yield path, f"{form(saved)}", f"{other}, {form(now)}"
        case Mapping(), Mapping():
            for key, item in saved.items():
                where = f"{path}.{key}".lstrip(".")
                if key in now:
                    yield from differences(item, now[key], where)
                else:
                    yield where, summary(item), "nothing"
        case ((list() | tuple()), (list() | tuple())) if len(saved) == len(now):
            for place, (item, other) in enumerate(zip(saved, now)):
                yield from differences(item, other, f"{path}[{place}]")
        case float(), float():
            if repr(saved) != repr(now):  # a NaN is itself, and 0.0 is not -0.0
                yield path, repr(saved), repr(now)
        case _ if isinstance(saved, torch.Tensor) or isinstance(now, torch.Tensor) or saved != now:
            yield path, summary(saved), summary(now)
