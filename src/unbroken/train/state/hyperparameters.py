"""What optimizers and schedules are built with, kept with their state, so that what was changed since is applied.

A restored state brings its learning rate and weight decay along. The values that the script builds with in this launch
are compared with those of the launch that began the run: the same, and the restored ones count; others, and they do.

So does what a config says: an optimizer's state carries every setting of its groups (weight decay, betas, eps), a
scaler's its factors, and loading either puts back what the config said when the state was saved.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CyclicLR, LambdaLR, LRScheduler, OneCycleLR

from unbroken.train.state.tree import to_plain

NOT_BUILT = ("params", "param_names", "initial_lr")
ABSOLUTE = (LambdaLR, OneCycleLR, CyclicLR)  # each rate follows from the step alone
RATES = ("lr", "max_lr", "min_lr")
# Of a schedule what moves with its steps, and what it has from its optimizer.
MOVING = ("last_epoch", "best", "num_bad_epochs", "cooldown_counter", "T_cur", "T_i", "base_lrs", "max_lrs")
PRIVATE = ("_milestones", "_schedule_phases", "_anneal_func_type")  # settings all the same
LONGEST = 60  # of a setting that is said
OF_SCHEDULES = frozenset({"params", "lr", "initial_lr"})


def built_with(tracked: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of each tracked optimizer by group, and of each schedule of torch, before anything is restored."""
    found: dict[str, Any] = {}
    for name, part in tracked.items():
        if isinstance(part, Optimizer):
            found[name] = [_of_group(group) for group in part.param_groups]
        elif isinstance(part, LRScheduler):
            ruling = _ruling(part)
            found[name] = to_plain(_of_schedule(part) | ({"rates": _ruled(ruling)} if ruling is not None else {}))
    return found


def settings_in_words(optimizer: Optimizer) -> str:
    """The rates and decays that an optimizer has now: `lr 0.1 and 0.01, weight_decay 0.05`."""
    groups = [_of_group(dict(group) | {"initial_lr": group.get("lr")}) for group in optimizer.param_groups]
    found = {
        key: dict.fromkeys(f"{group[key]}" for group in groups) for key in ("lr", "weight_decay") if key in groups[0]
    }
    return ", ".join(f"{key} {' and '.join(values)}" for key, values in found.items())


def apply_changes(tracked: Mapping[str, Any], built: Mapping[str, Any], recorded: Mapping[str, Any]) -> list[str]:
    """Give restored parts the settings that were changed since the run began; returns what to say of them.

    `recorded` is what `built_with` gave when it began, its groups in the order of this process. A schedule that is
    tracked later may say which rates its optimizer has: until it is here nothing is applied.
    """
    if any(isinstance(was, Mapping) and name not in tracked for name, was in recorded.items()):
        return []
    said = []
    for name, part in tracked.items():
        if name not in built or name not in recorded:
            continue
        was, now = recorded[name], built[name]
        if isinstance(part, Optimizer):
            for schedule, ruling in tracked.items():
                rules = isinstance(ruling, LRScheduler) and _ruling(ruling) is not None and ruling.optimizer is part
                if rules and "rates" in recorded.get(schedule, {}):
                    was, now = (_under(*each) for each in ((was, recorded[schedule]), (now, built[schedule])))
            said += list(_apply(name, part, was, now, [*tracked.values()]))
        else:
            said += [
                f"{name}: {key} {_short(was[key])} -> {_short(now[key])} is not applied: a resumed schedule keeps what "
                "it was saved with. Choose another --tag for another schedule"
                for key in now
                if key in was and key != "rates" and was[key] != now[key]
            ]
    return said


def _under(groups: Sequence[Mapping[str, Any]], schedule: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings of groups whose rates a schedule says."""
    own = [{key: value for key, value in group.items() if key not in RATES} for group in groups]
    return [{**group, **rates} for group, rates in zip(own, schedule["rates"])]


def _ruling(schedule: LRScheduler) -> OneCycleLR | CyclicLR | None:
    """This or one in it, that says which rates there are, whatever the optimizer was built with."""
    if isinstance(schedule, CyclicLR):
        return schedule
    return next((each for each in [*_with_parts(schedule)][::-1] if isinstance(each, OneCycleLR)), None)


def _ruled(schedule: OneCycleLR | CyclicLR) -> list[dict[str, float]]:
    """The rates that a schedule gives to each group."""
    found = [{"lr": float(rate)} for rate in schedule.base_lrs]
    groups = schedule.optimizer.param_groups
    for place, rates in enumerate(found):
        if isinstance(schedule, CyclicLR):
            rates["max_lr"] = float(schedule.max_lrs[place])
        else:
            rates |= {key: float(groups[place][key]) for key in ("max_lr", "min_lr")}
    return found


def _of_schedule(schedule: Any) -> dict[str, Any]:
    """What a schedule is built with, and the schedules that it is made of."""
    found = {key: _set(value) for key, value in schedule.state_dict().items() if _is_setting(key, value)}
    for place, inner in enumerate(getattr(schedule, "_schedulers", ())):
        found |= {f"{place}.{key}": value for key, value in _of_schedule(inner).items()}
        if isinstance(inner, CyclicLR):  # no group of the optimizer tells its rates
            found |= {f"{place}.base_lrs": [*inner.base_lrs], f"{place}.max_lrs": [*inner.max_lrs]}
    return found


def _apply(
    name: str, optimizer: Optimizer, recorded: Sequence[Any], now: Sequence[Any], tracked: Sequence[Any]
) -> Iterator[str]:
    if any(hasattr(part, "follows_config") for part in tracked):
        return  # an application whose schedule and optimizer compare the configs themselves
    schedules = [part for part in tracked if getattr(part, "optimizer", None) is optimizer]
    changed: dict[str, str] = {}
    for place, (group, was, new) in enumerate(zip(optimizer.param_groups, recorded, now)):
        for key in [key for key in new if key in was and _differs(was[key], new[key])]:
            cyclic = [each for each in schedules if isinstance(each, CyclicLR)] if key == "max_lr" else []
            if key == "lr":
                _rebase(group, place, was[key], new[key], schedules)
            elif cyclic:
                cyclic[0].max_lrs[place] = new[key]
            else:
                group[key] = new[key]
            changed[f"{key} {was[key]} -> {new[key]}"] = ""
    if not changed:
        return
    _set_rates(optimizer, schedules)
    rates = ", ".join(dict.fromkeys(f"{float(group['lr']):.6g}" for group in optimizer.param_groups))
    yield f"{name}: {', '.join(changed)} applied: the next step trains at learning rate {rates}"


def _rebase(group: dict[str, Any], place: int, was: Any, new: Any, schedules: Sequence[Any]) -> None:
    """The rate of a group on another base: what made it smaller or larger since the beginning stays."""
    rate = float(group["lr"]) * float(new) / float(was) if float(was) else float(new)
    _set_rate(group, float(new) if float(group["lr"]) == float(was) else rate)
    if "initial_lr" in group:
        group["initial_lr"] = float(new)
    for schedule in schedules:
        for each in _with_parts(schedule):
            within = isinstance(each, CyclicLR) and each is not schedule  # its rates are its own
            bases = [] if within else getattr(each, "base_lrs", [])
            if len(bases) > place:
                bases[place] = float(new)


def _set_rates(optimizer: Optimizer, schedules: Sequence[Any]) -> None:
    """The rates that a schedule itself computes for where it is, if it can say so without its past."""
    for schedule in schedules:
        rates = _computed(schedule) if len(schedules) == 1 else None
        for group, rate in zip(optimizer.param_groups, rates or ()):
            _set_rate(group, float(rate))
        if hasattr(schedule, "_last_lr"):
            schedule._last_lr = [float(group["lr"]) for group in optimizer.param_groups]


def _computed(schedule: Any) -> list[Any] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is asked outside of its own step
        if hasattr(schedule, "_get_closed_form_lr"):
            return list(schedule._get_closed_form_lr())
        return list(schedule.get_lr()) if isinstance(schedule, ABSOLUTE) else None


def _set_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def _of_group(group: Mapping[str, Any]) -> dict[str, Any]:
    """Its settings; a schedule that was built already has kept the rate that the optimizer was built with."""
    values = {key: value for key, value in group.items() if key not in NOT_BUILT}
    found = to_plain(values | {"lr": group.get("initial_lr", values.get("lr"))})
    return {key: float(value) if _is_scalar(value) else value for key, value in found.items()}


def _is_setting(key: str, value: Any) -> bool:
    is_own = key in PRIVATE or not (key.startswith("_") or key in MOVING)
    return is_own and isinstance(value, int | float | str | list | tuple | dict)


def _set(value: Any) -> Any:
    """A setting as it is compared: the steps that a Counter holds in their order."""
    return sorted(value.elements()) if isinstance(value, Counter) else value


def _short(value: Any) -> str:
    words = str(value)
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}..."


def _is_scalar(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.numel() == 1


def _differs(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor) or isinstance(other, torch.Tensor):
        return False
    return bool(one != other)


def _with_parts(schedule: Any) -> Iterator[Any]:
    yield schedule
    for part in getattr(schedule, "_schedulers", ()):
        yield from _with_parts(part)


class GroupSettings:
    """The settings of an optimizer's groups as it was built, but for rates and what else a schedule moves.

    Args:
        optimizer: The one just built from the present config, before a state is loaded.
        moved: Further settings that a schedule moves, such as "weight_decay": these are left alone.
    """

    def __init__(self, optimizer: Optimizer, *, moved: Collection[str] = ()) -> None:
        self._optimizer = optimizer
        apart = OF_SCHEDULES | set(moved)
        self._built = [{key: value for key, value in g.items() if key not in apart} for g in optimizer.param_groups]

    def put_back(self) -> list[str]:
        """Set them again after a state was loaded, so that the present config counts.

        Returns:
            What that changed, as `weight_decay 0.01 -> 0.05`.
        """
        changed = dict[str, str]()
        for group, built in zip(self._optimizer.param_groups, self._built, strict=True):
            for key, value in built.items():
                before = group.get(key, value)
                if _plain(before) != _plain(value):
                    changed.setdefault(key, f"{key} {_plain(before)} -> {_plain(value)}")
                group[key] = value
        return list(changed.values())


class ConfiguredScaler(GradScaler):
    """A gradient scaler that begins anew where its config says something else than the one that was saved.

    Args:
        device: Where the gradients are: "cuda", "cpu".
        init_scale: Factor of the loss in the first step; adapts afterwards, as in torch.
        static: Keep `init_scale` in every step.
    """

    def __init__(self, device: str, *, init_scale: float = 2.0**16, static: bool = False) -> None:
        super().__init__(device, init_scale=init_scale)
        self._configured = {"configured_scale": init_scale, "static": static}
        self.begins_anew = False  # under another config than that of the state it was given

    def update(self, new_scale: Any = None) -> None:
        """Set the scale of the next step, as torch does; a static one stays.

        Args:
            new_scale: The scale to set, None: as the last steps ask for; not used where the scale is static.
        """
        super().update(self._configured["configured_scale"] if self._configured["static"] else new_scale)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that torch's scaler has, with what the config said."""
        return {**super().state_dict(), **self._configured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with a saved scale; one that was saved under another config is not loaded, and `begins_anew` says so.

        Args:
            state_dict: What `state_dict` gave, or that of torch's `GradScaler`.
        """
        self.begins_anew = not {**self._configured, **state_dict}.items() >= self._configured.items()
        if not self.begins_anew:
            super().load_state_dict({key: value for key, value in state_dict.items() if key not in self._configured})


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
