"""The parts of a training state: checked against a checkpoint before any of them is touched, then restored.

A *part* is anything with `state_dict` and `load_state_dict`, a random generator of torch, numpy or Python, or a dict,
list or deque of plain values (restored in place).
Loading is exact: every key of the checkpoint is used, every key of the part is filled, every shape agrees - or nothing
is loaded and all disagreements are listed.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from unbroken.errors import DamagedFile, Incompatible, UnbrokenError, UsageError
from unbroken.train.state.in_place import (
    CONTAINERS,
    Difference,
    as_its_base,
    begins_anew,
    differences,
    fill,
    form,
    kind_of,
    misfits,
    storages_of,
)
from unbroken.train.state.modes import buffers_of, misplaced, put_buffers
from unbroken.train.state.optimizer_state import Regrouping, load_exactly
from unbroken.train.state.placement import all_placed_like
from unbroken.train.state.state_checks import LIKE_PARAMETERS, REFUSALS, Shaped
from unbroken.train.state.tree import from_plain, to_plain
from unbroken.train.state.wrappers import load_plain, named_alike, plain_state

MOST_SHOWN = 8
Generator = torch.Generator | np.random.Generator | random.Random
States = Mapping[str, Mapping[str, Any]]  # by the name of the part
NONE: States = {}
GENERATORS = (torch.Generator, np.random.Generator, random.Random)


def state_of(part: Any, name: str = "", *, typed: bool = True) -> Any:
    """The state of one part as a plain tree; UsageError names the place of what cannot come back exactly."""
    match part:
        case torch.Generator():
            return {"state": part.get_state()}
        case np.random.Generator():
            return to_plain(part.bit_generator.state)
        case random.Random():
            return to_plain(part.getstate())
        case nn.Module():
            return to_plain(plain_state(part), name, exact=True)
    if hasattr(part, "state_dict"):
        return to_plain(part.state_dict(), name, exact=True)
    return to_plain(as_its_base(part), name, exact=True, typed=typed)


def regroupings_of(parts: Mapping[str, Any]) -> dict[str, Regrouping]:
    """How the states of these parts stand in a file where another program's tools look for theirs.

    An optimizer of a class of one's own says so by its attribute `regrouping`.
    """
    found = {name: getattr(part, "regrouping", None) for name, part in parts.items() if isinstance(part, Optimizer)}
    return {name: value for name, value in found.items() if isinstance(value, Regrouping)}


def require_new(tracked: Mapping[str, Any], known: Mapping[str, Any], *, began: bool) -> None:
    """Raise unless all of this can be tracked now, beside what is known: in this session and in each one after it."""
    for name, part in tracked.items():
        require_part(name, part)
        if name in known:
            do = f"Give each its own name: {name}=..., other_{name}=...."
            raise UsageError("run.track", f"`{name}` is tracked already, and would be lost", do=do)
        if began:
            raise UsageError(
                "run.track",
                f"`{name}` is tracked after the loop began, where no later session could restore it",
                do="Make it before the loop and track it there: an average may count from any step on.",
            )


def require_part(name: str, part: Any) -> None:
    """Raise if a thing cannot be a part."""
    if isinstance(part, type):
        raise UsageError(
            name, "this is a class, and no object of it", found=part.__name__, do=f"Make one: {name}=...()."
        )
    stateful = hasattr(part, "state_dict") and hasattr(part, "load_state_dict")
    if not stateful and not isinstance(part, (*CONTAINERS, *GENERATORS)):
        raise UsageError(
            name,
            "this cannot be tracked",
            expected="state_dict and load_state_dict, a random generator, or a dict, list or deque of plain values",
            found=type(part).__name__,
            do="Put single numbers into a dict: run.track(counters={...}).",
        )
    if isinstance(part, nn.Module) and any(map(nn.parameter.is_lazy, (*part.parameters(), *part.buffers()))):
        raise UsageError(
            name,
            "it has lazy layers, whose shapes are not known yet: no later session could restore it",
            do="Let it see one batch before run.track(...).",
        )
    if isinstance(part, Optimizer) and not hasattr(part, "_optimizer_step_pre_hooks"):
        raise UsageError(
            name,
            f"{type(part).__name__} stands before another optimizer and does not tell when that steps",
            do=f"Track the one that it holds: run.track({name}=....optimizer).",
        )
    try:
        state_of(part, name)  # what cannot be saved is said now, and not at the first save
    except UnbrokenError:
        raise
    except Exception as error:
        raise UsageError(
            name,
            f"{type(part).__name__} does not tell its state: {type(error).__name__}: {error}"[:400],
            do="Track what tells all of its state when it is asked (state_dict()). Optimizer state that is shared out "
            "over processes is kept where weights are sharded by fully_shard (docs/many-processes.md).",
        ) from error


def check(
    parts: Mapping[str, Any], saved: Mapping[str, Any], where: str, buffers: States = NONE, known: Sequence[str] = ()
) -> None:
    """Raise Incompatible, listing every disagreement, unless `saved` fits `parts` exactly.

    `buffers` are those of modules that their states leave out, `known` are disagreements that were found before.
    A part of a class of one's own may say so itself: `check_state_dict` raises what its `load_state_dict` would.
    """
    problems = [*known]
    for name, part in parts.items():
        if name not in saved:
            problems.append(f"{name}: the checkpoint has no state for it")
        elif isinstance(part, nn.Module):
            problems += _module_problems(name, part, saved[name])
            problems += [f"{name}.{problem}" for problem in misplaced(part, buffers.get(name, {}))]
        elif isinstance(part, Optimizer):
            problems += _optimizer_problems(name, part, saved[name])
        elif hasattr(part, "check_state_dict"):
            problems += _refused_by(name, part, saved[name], where)
        elif isinstance(part, CONTAINERS) and kind_of(part) != kind_of(saved[name]):
            problems.append(f"{name}: expected a {kind_of(part)}, found a {kind_of(saved[name])}")
        elif isinstance(part, CONTAINERS):
            problems += misfits(name, part, saved[name])
    problems += [f"{name}: in the checkpoint, but not tracked" for name in saved if name not in parts]
    if problems:
        shown = "\n  ".join(problems[:MOST_SHOWN])
        more = f"\n  and {len(problems) - MOST_SHOWN} more" if len(problems) > MOST_SHOWN else ""
        raise Incompatible(
            where,
            f"the state does not fit what is being trained, nothing was loaded:\n  {shown}{more}",
            do="Undo the change, choose another --tag, or fine-tune with --pretrained_model.",
        )


def restore(
    parts: Mapping[str, Any],
    saved: Mapping[str, Any],
    where: object,
    *,
    buffers: States = NONE,
    beside: Iterable[Any] = (),
    ours: bool = False,
) -> None:
    """Put the saved states into the parts, all or none; `check` has passed. `beside` is what was restored before them.

    Of states that are `ours` each part must say afterwards, to the bit, what was saved. Where one does not, or refuses
    its state (DamagedFile), those before it get back what they had.
    """
    before = {name: copy.deepcopy((state_of(part), buffers_of(part))) for name, part in parts.items()}
    known, done = [*parts.values(), *beside], list[str]()
    try:
        for name in sorted(parts, key=lambda name: isinstance(parts[name], CONTAINERS)):  # what shares weights is last
            done.append(name)  # before: the one that fails may have taken half
            _put_back(parts[name], saved[name], buffers.get(name, {}), known)
        for name, part in parts.items() if ours else ():
            require_restored(name, part, (saved[name], buffers.get(name, {})), where)
    except BaseException as error:
        for name in done:
            with suppress(*REFUSALS):  # one that takes nothing at all must not keep the others from what they had
                _put_back(parts[name], *before[name], known)
        if isinstance(error, REFUSALS):
            raise _refused(where, done[-1], parts[done[-1]], error) from error
        raise


def require_restored(name: str, part: Any, saved: tuple[Any, Mapping[str, Any]], where: object) -> None:
    """Raise Incompatible unless a part says of its state, and of its buffers, what was saved."""
    for place, expected, found in differences_of(part, *saved):
        raise Incompatible(
            where,
            f"{name} does not have the state that it was given ({type(part).__name__}), nothing was loaded",
            expected=f"{place} to be {expected}" if place else expected,
            found=found,
            do="Let its load_state_dict put back all that its state_dict gives, or do not track it.",
        )


def differences_of(part: Any, saved: Any, buffers: Mapping[str, Any]) -> Iterator[Difference]:
    """Where a part is not as it was saved; one that begins anew is as it should be."""
    if not begins_anew(part):
        saved = named_alike(saved, part) if isinstance(part, nn.Module) else saved
        yield from differences(to_plain(from_plain(saved), exact=True), state_of(part, typed=False))
        yield from differences(buffers, buffers_of(part))


def _refused_by(name: str, part: Any, saved: Any, where: object) -> list[str]:
    """Why a part does not take its state, as it says itself."""
    try:
        part.check_state_dict(from_plain(saved))
    except Incompatible as error:
        return [f"{name}: {error}"]
    except REFUSALS as error:
        raise _refused(where, name, part, error) from error
    return []


def _refused(where: object, name: str, part: Any, error: BaseException) -> DamagedFile:
    return DamagedFile(
        where,
        f"the state of {name} is refused by its {type(part).__name__}, nothing was loaded",
        found=f"{type(error).__name__}: {error}"[:300],
        do="If its code was changed since the save, undo that; else take an older checkpoint.",
    )


def _put_back(part: Any, plain: Any, buffers: Mapping[str, torch.Tensor], known: Iterable[Any]) -> None:
    state = from_plain(plain)
    put_buffers(part, buffers)
    if isinstance(part, GENERATORS):
        _set_generator(part, state)
    elif isinstance(part, Optimizer):
        load_exactly(part, state)
    elif isinstance(part, nn.Module):
        load_plain(part, all_placed_like(named_alike(state, part), plain_state(part)))
    elif hasattr(part, "load_state_dict"):
        part.load_state_dict(state)
    else:
        fill(part, state, storages_of(known))


def _set_generator(part: Generator, state: Any) -> None:
    match part:
        case torch.Generator():
            part.set_state(state["state"])
        case np.random.Generator():
            part.bit_generator.state = state
        case random.Random():
            part.setstate(state)


def tensors_in(state: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tensors of a state by name."""
    return {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}


def class_name(part: Any) -> str:
    """The class of a part as the guides show it: `<class 'torch.optim.adamw.AdamW'>`."""
    return str(GradScaler if isinstance(part, GradScaler) else type(part))  # ours differ in what they load alone


def _module_problems(name: str, module: nn.Module, saved: Any) -> list[str]:
    if not isinstance(saved, Mapping):
        return [f"{name}: expected weights by name, found {type(saved).__name__}"]
    own = tensors_in(plain_state(module))
    theirs = {key: value for key, value in named_alike(saved, module).items() if isinstance(value, Shaped)}
    problems = [f"{name}.{key}: missing in the checkpoint" for key in own if key not in theirs]
    problems += [f"{name}.{key}: only in the checkpoint" for key in theirs if key not in own]
    problems += [
        f"{name}.{key}: expected {form(own[key])}, found {form(theirs[key])}"
        for key in own
        if key in theirs and form(own[key]) != form(theirs[key])
    ]
    return problems


def _optimizer_problems(name: str, optimizer: Optimizer, saved: Any) -> list[str]:
    groups = saved.get("param_groups") if isinstance(saved, Mapping) else None
    if not isinstance(groups, Sequence):
        return [f"{name}: expected an optimizer state, found none"]
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    found = [len(group["params"]) for group in groups]
    if sizes != found:
        return [f"{name}: expected parameter groups of {sizes} parameters, found {found}"]
    order = [index for group in groups for index in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    return [
        f"{name}.state[{index}].{key}: expected {tuple(parameter.shape)}, found {tuple(moment.shape)}"
        for index, parameter in zip(order, parameters, strict=True)
        for key, moment in saved.get("state", {}).get(index, {}).items()
        if key in LIKE_PARAMETERS and isinstance(moment, Shaped) and tuple(moment.shape) != tuple(parameter.shape)
    ]
