"""The one-cycle schedule (Smith, 2018) of learning rate and momentum, as FocalSST's `adam_onecycle` has it.

No torch here, so that a launch can show numbers at once. Step t = 0, 1, ... is the number of optimizer steps
already taken; rate and momentum at t serve the step after it. The *horizon* is the number of optimizer steps of
the whole training: micro-batches whose gradients are summed into one step count once. Up to `pct_start` of the
horizon the rate climbs along half a cosine from lr / div_factor to lr, then falls along another to lr /
div_factor / 10 000, while momentum (Adam's first beta) goes the opposite way. Every value is a function of t alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from unbroken import Extension
from unbroken.errors import ConfigError, Incompatible

_LAST_SHARE = 1e4  # the last rate is the first one divided by this


@dataclass(frozen=True, kw_only=True)
class OneCycle:
    """`lr` at the peak, (`moms` at the ends, `moms` at the peak), over `horizon` optimizer steps."""

    horizon: int
    lr: float
    moms: tuple[float, float] = (0.95, 0.85)
    div_factor: float = 10.0
    pct_start: float = 0.4

    def __post_init__(self) -> None:
        sound = {
            "a horizon of 1 step or more": self.horizon >= 1,
            "LR above 0": 0 < self.lr < math.inf,
            "two MOMS in [0, 1)": len(self.moms) == 2 and all(0 <= mom < 1 for mom in self.moms),
            "DIV_FACTOR of 1 or more": 1 <= self.div_factor < math.inf,
            "PCT_START in [0, 1]": 0 <= self.pct_start <= 1,
        }
        if broken := [rule for rule, holds in sound.items() if not holds]:
            raise ConfigError("OPTIMIZATION", "no cycle can be made of this", expected=", ".join(broken), found=self)

    @property
    def peak(self) -> int:
        """The step with the highest rate."""
        return int(self.pct_start * self.horizon)

    def lr_at(self, step: int) -> float:
        """The learning rate after `step` steps; past the horizon it stays at the last value."""
        low = self.lr / self.div_factor
        return self._between(step, start=low, top=self.lr, end=low / _LAST_SHARE)

    def momentum_at(self, step: int) -> float:
        """Adam's first beta after `step` steps; past the horizon it stays at the last value."""
        ends, top = self.moms
        return self._between(step, start=ends, top=top, end=ends)

    def _between(self, step: int, *, start: float, top: float, end: float) -> float:
        if step < self.peak:
            return _half_cosine(start, top, step / self.peak)
        if step >= self.horizon:
            return _half_cosine(top, end, 1.0)
        return _half_cosine(top, end, (step - self.peak) / (self.horizon - self.peak))


def optimizer_steps(*, batches: int, epochs: int, accumulate: int) -> int:
    """How many optimizer steps `epochs` epochs of `batches` micro-batches have, `accumulate` to a step.

    What is left at the end of an epoch makes a smaller step of its own. The horizon of a cycle is counted by this.
    """
    if min(batches, epochs, accumulate) < 1:
        raise ConfigError(
            "OPTIMIZATION",
            "there is nothing to train on",
            expected="micro-batches, NUM_EPOCHS and GRAD_ACCUMULATION_STEPS of 1 or more",
            found=(batches, epochs, accumulate),
        )
    return -(-batches // accumulate) * epochs


class ParameterGroups(Protocol):
    """All that a schedule needs of an optimizer."""

    param_groups: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Extended:
    """An extension and the values at its seam, one per parameter group."""

    by: Extension
    lr: list[float]
    momentum: list[float]

    def values(self, cycle: OneCycle, group: int, step: int) -> tuple[float, float]:
        """Rate and momentum of a group after `step` steps."""
        place = self.by.place(step)
        lr = place.mix(self.lr[group], cycle.lr_at(place.step))
        return lr, place.mix(self.momentum[group], cycle.momentum_at(place.step))

    def as_plain(self) -> dict[str, Any]:
        """Plain values."""
        return {"by": self.by.as_plain(), "lr": list(self.lr), "momentum": list(self.momentum)}


class OneCycleSchedule:
    """The open schedule of one optimizer: sets `lr` and the first of `betas` in every group, after each `step()` too.

    `load_state_dict` goes on exactly as the saved run would have, its cycle and extension included, whatever the
    present config says; `rebuild_at` takes the present config's word instead. Ask `follows_config` which one is in
    force.
    """

    def __init__(self, optimizer: ParameterGroups, cycle: OneCycle) -> None:
        self._optimizer = optimizer
        self._configured = cycle
        self._extended: Extended | None = None
        self.rebuild_at(0)

    @property
    def cycle(self) -> OneCycle:
        """The cycle in force."""
        return self._cycle

    @property
    def follows_config(self) -> bool:
        """Whether the cycle in force is the one given at construction."""
        return self._cycle == self._configured

    @property
    def extension(self) -> Extension | None:
        """The extension in force."""
        return self._extended.by if self._extended else None

    @property
    def taken(self) -> int:
        """How many optimizer steps the schedule has counted."""
        return self._taken

    def step(self) -> None:
        """Count one optimizer step and set rate and momentum of the next one."""
        self._go_to(self._cycle, self._extended, self._taken + 1)

    def rebuild_at(self, step: int, extension: Extension | None = None) -> None:
        """Set what a run of the present config would have after `step` steps.

        With an extension that is not in force yet, the values that the optimizer has now are those at the seam.
        """
        extended = self._extended
        if extension is None:
            extended = None
        elif extension != self.extension:
            now = [(float(group["lr"]), float(group["betas"][0])) for group in self._optimizer.param_groups]
            extended = Extended(by=extension, lr=[lr for lr, _ in now], momentum=[momentum for _, momentum in now])
        self._go_to(self._configured, extended, step)

    def state_dict(self) -> dict[str, Any]:
        """Plain values: the steps taken, the cycle in force, and its extension if there is one."""
        cycle = self._cycle
        extension = {"extension": self._extended.as_plain()} if self._extended else {}
        return {
            **extension,
            "type": "adam_onecycle",
            "taken": self._taken,
            "horizon": cycle.horizon,
            "lr": cycle.lr,
            "moms": list(cycle.moms),
            "div_factor": cycle.div_factor,
            "pct_start": cycle.pct_start,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Go on from `state_dict()`; raises `Incompatible`, before anything changes, for anything else."""
        cycle, taken = _cycle_of(saved)
        extended = None
        if "extension" in saved:
            entry, groups = saved["extension"], len(self._optimizer.param_groups)
            known = isinstance(entry, Mapping) and set(entry) == {"by", "lr", "momentum"}
            by = Extension.from_plain(entry["by"]) if known else None
            values = [entry["lr"], entry["momentum"]] if known else []
            if by is None or not all(isinstance(value, list) and len(value) == groups for value in values):
                raise _not_ours(saved)
            lr, momentum = ([float(number) for number in value] for value in values)
            extended = Extended(by=by, lr=lr, momentum=momentum)
        self._go_to(cycle, extended, taken)

    def _go_to(self, cycle: OneCycle, extended: Extended | None, step: int) -> None:
        self._cycle, self._extended, self._taken = cycle, extended, step
        for i, group in enumerate(self._optimizer.param_groups):
            lr, momentum = extended.values(cycle, i, step) if extended else (cycle.lr_at(step), cycle.momentum_at(step))
            group["lr"] = lr
            group["betas"] = (momentum, *group["betas"][1:])


def _half_cosine(start: float, end: float, share: float) -> float:
    """From `start` at share 0 to `end` at share 1, in the form that rounds as FocalSST does."""
    return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)


_NUMBERS = ("lr", "div_factor", "pct_start")
_KEYS = {"type", "taken", "horizon", "moms", *_NUMBERS}


def _cycle_of(saved: Mapping[str, Any]) -> tuple[OneCycle, int]:
    """The cycle and the steps taken that a saved schedule describes; every key must be known."""
    if not isinstance(saved, Mapping) or set(saved) - {"extension"} != _KEYS or saved["type"] != "adam_onecycle":
        raise _not_ours(saved)
    taken, horizon, moms = saved["taken"], saved["horizon"], saved["moms"]
    whole = all(isinstance(value, int) and value >= 0 for value in (taken, horizon))
    numbers = isinstance(moms, list | tuple) and all(
        isinstance(value, int | float) for value in (*moms, *(saved[key] for key in _NUMBERS))
    )
    if not (whole and numbers):
        raise _not_ours(saved)
    try:
        return OneCycle(horizon=horizon, moms=tuple(moms), **{key: saved[key] for key in _NUMBERS}), taken
    except ConfigError as error:
        raise _not_ours(saved) from error


def _not_ours(saved: object) -> Incompatible:
    return Incompatible(
        "scheduler",
        "not a one-cycle schedule that is known here",
        expected=f"the keys {sorted(_KEYS)}, type adam_onecycle, and a cycle that can be",
        found=dict(saved) if isinstance(saved, Mapping) else repr(saved),
        do="Rebuild the schedule at the step of the checkpoint instead.",
    )
