"""An optimizer's state, loaded as it was saved: torch's own loading casts the moments to the type of their weights.

torch knows parameters by their number. Where groups are made from sets, the next process numbers them in another way,
so their names are kept beside the state, and each parameter gets its own moments, each group its own settings.

The tools of another program take a state only if its groups have their parameters, in their order. So under their key
stands such a state, and the rest (our groups, which of our parameters each number means, moments that they have not) is
kept apart.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from unbroken.train.state.placement import all_placed_like
from unbroken.train.state.wrappers import plain_names

Groups = Sequence[Sequence[str]]  # the names of the parameters of each group; "" for one without
MAY_HOLD_TENSORS = (nn.Module, torch.Tensor, dict, list, tuple)
PER_GROUP = ("base_lrs", "_last_lr", "min_lrs", "max_lrs", "base_momentums", "max_momentums", "lr_lambdas")


@dataclass(frozen=True, kw_only=True)
class Matched:
    """A saved state with the parameters and groups in the order of this process."""

    state: Mapping[str, Any]
    groups: tuple[int, ...] = ()  # which saved group each group here is, where the order is another
    unnamed: int = 0  # parameters that were matched by their order
    problems: tuple[str, ...] = ()


def parameter_names(tracked: Mapping[str, Any]) -> dict[str, list[list[str]]]:
    """The names of the parameters in the groups of each optimizer, from the tracked modules, dicts and lists."""
    known: dict[int, str] = {}
    for name, parameter in tensors_by_name(tracked):
        known.setdefault(id(parameter), name)
    return {
        name: [[known.get(id(parameter), "") for parameter in group["params"]] for group in part.param_groups]
        for name, part in tracked.items()
        if isinstance(part, Optimizer)
    }


def tensors_by_name(tracked: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in tracked modules, dicts and lists, by names that are the same in each process."""
    for part in sorted(tracked):
        yield from ((f"{part}.{name}", tensor) for name, tensor in _named_in(tracked[part]))


def match(state: Mapping[str, Any], saved: Groups, own: Groups) -> Matched:
    """The saved state for parameters that have these names here; those without one keep their order.

    `state` is sound. One whose groups do not fit at all is given back as it is: what does not fit is said elsewhere.
    """
    numbers = [group["params"] for group in state["param_groups"]]
    if [*map(len, numbers)] != [*map(len, saved)] or sum(map(len, saved)) != sum(map(len, own)):
        return Matched(state=state)
    home = {number: place for place, group in enumerate(numbers) for number in group}
    theirs = {name: number for names, group in zip(saved, numbers) for name, number in zip(names, group) if name}
    ours = [name for names in own for name in names]
    taken = {theirs[name] for name in ours if name in theirs}
    left = [(name, number) for names, group in zip(saved, numbers) for name, number in zip(names, group)]
    left = [(name, number) for name, number in left if number not in taken]
    new, gone = [name for name in ours if name and name not in theirs], [name for name, _ in left if name]
    if new and gone:
        return Matched(state=state, problems=(f"{new[0]} is trained, and in the checkpoint {gone[0]}",))
    rest = iter(left)
    chosen = [[theirs[name] if name in theirs else next(rest)[1] for name in names] for names in own]
    spare = iter([place for place, group in enumerate(numbers) if not group])
    homes = [{home[number] for number in group} or {next(spare, -1)} for group in chosen]
    places = tuple(min(each) for each in homes)
    if any(len(each) > 1 for each in homes) or sorted(places) != list(range(len(numbers))):
        return Matched(state=state, problems=("its groups have other parameters than those of the checkpoint",))
    unnamed = sum(1 for name in ours if name not in theirs)
    if chosen == numbers:
        return Matched(state=state, unnamed=unnamed)
    order = {number: place for place, number in enumerate(number for group in chosen for number in group)}
    moments = {order[number]: found for number, found in state["state"].items() if number in order}
    groups = [
        {**state["param_groups"][place], "params": [order[number] for number in group]}
        for place, group in zip(places, chosen)
    ]
    moved = places if places != tuple(range(len(places))) else ()
    return Matched(
        state={"state": dict(sorted(moments.items())), "param_groups": groups}, groups=moved, unnamed=unnamed
    )


def rates_in_order(schedule: Any, state: Any, groups: Sequence[int]) -> Any:
    """The state of a schedule whose optimizer has its groups in another order now; None for a class not of torch."""
    if not isinstance(schedule, LRScheduler | ReduceLROnPlateau) or not isinstance(state, Mapping):
        return None
    return _in_order(state, groups)


def _in_order(value: Any, groups: Sequence[int]) -> Any:
    def item(key: Any, each: Any) -> Any:
        if key in PER_GROUP and isinstance(each, list | tuple) and len(each) == len(groups):
            return type(each)(each[place] for place in groups)
        return [_in_order(inner, groups) for inner in each] if key == "_schedulers" else each

    return {key: item(key, each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _named_in(part: Any, path: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a part that an optimizer may have, by names that are the same in each process."""
    match part:
        case nn.Module():
            plain = plain_names(part)
            yield from ((plain(name), each) for name, each in part.named_parameters())
        case torch.Tensor():
            yield path, part
        case dict():
            for key, item in part.items():
                if isinstance(item, MAY_HOLD_TENSORS):  # counters may be a million
                    yield from _named_in(item, f"{path}.{key}".lstrip("."))
        case list() | tuple():
            for place, item in enumerate(part):
                if isinstance(item, MAY_HOLD_TENSORS):
                    yield from _named_in(item, f"{path}[{place}]")


def load_exactly(optimizer: Optimizer, state: Mapping[str, Any]) -> None:
    """Load a state, and give each moment the type that it was saved with: float32 beside weights in bfloat16."""
    order = [number for group in state["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    moments = dict(state["state"])
    for number, parameter in zip(order, parameters):
        if number in moments:
            moments[number] = _placed_like(moments[number], parameter)
    state = {**state, "state": moments}
    optimizer.load_state_dict(state)
    if state["state"]:  # it has stepped; torch's schedules, which ask that, would warn where an epoch's end comes first
        optimizer._opt_called = True  # type: ignore[attr-defined]  # as torch sets it itself
    for number, parameter in zip(order, parameters):
        if number in state["state"] and parameter in optimizer.state:
            optimizer.state[parameter] = _as_saved(optimizer.state[parameter], state["state"][number])


def _placed_like(moments: Any, parameter: torch.Tensor) -> Any:
    """The moments of a parameter, those of its shape sharded as it is."""
    if not isinstance(moments, Mapping):
        return moments
    alike = {key: parameter for key, each in moments.items() if getattr(each, "shape", None) == parameter.shape}
    return all_placed_like(moments, alike)


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


@dataclass(frozen=True, kw_only=True)
class Regrouping:
    """How another program groups an optimizer's parameters, as its attribute `regrouping` says it.

    Args:
        groups: Numbers of our parameters in each of its groups, in its order; none comes twice.
        settings: What it writes of each group, where ours has something else in the same place.
    """

    groups: tuple[tuple[int, ...], ...]
    settings: Mapping[str, Any] = field(default_factory=dict)


def regroup(state: Mapping[str, Any], by: Regrouping) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state in the other program's groups, and what `put_back` needs to make it what it was."""
    numbers = [number for group in by.groups for number in group]
    moments: Mapping[int, Any] = state["state"]
    places = iter(range(len(numbers)))
    groups = [
        {**{key: by.settings.get(key, value) for key, value in ours.items()}, "params": [next(places) for _ in theirs]}
        for ours, theirs in zip(state["param_groups"], by.groups, strict=True)
    ]
    theirs = {place: moments[number] for place, number in enumerate(numbers) if number in moments}
    rest = {number: found for number, found in moments.items() if number not in set(numbers)}
    kept = {"numbers": numbers, "param_groups": state["param_groups"], "state": rest}
    return {"state": theirs, "param_groups": groups}, kept


def put_back(theirs: Mapping[str, Any], kept: Mapping[str, Any]) -> dict[str, Any]:
    """The state that was regrouped; KeyError, IndexError, TypeError or AttributeError where the two do not fit."""
    numbers = kept["numbers"]
    moments = {numbers[place]: found for place, found in theirs["state"].items()} | kept["state"]
    return {"state": dict(sorted(moments.items())), "param_groups": kept["param_groups"]}
