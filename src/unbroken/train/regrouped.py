"""An optimizer's state in the parameter groups of another program, and what that program's groups leave out.

Its tools take a state only if its groups have their parameters, in their order. So under their key stands such a state,
and the rest (our groups, which of our parameters each number means, moments that they have not) is kept apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Regrouping:
    """The numbers of our parameters in each of the other program's groups, in its order; none comes twice.

    Each of its groups has the settings of ours in the same place, but for `settings`, which are as it writes them.
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
