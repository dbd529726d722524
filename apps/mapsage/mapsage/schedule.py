"""Learning rates, step by step, to the last bit those of MMEngine.

No torch here, so that a launch can show numbers at once. Words: a *phase* changes the rate during steps
[begin, end). The phases are *chained*: each multiplies the rate that it finds, in float64, so a value depends
on all roundings before it and is reached by replay, not by a closed formula. Step t = 0, 1, ... is the number
of optimizer steps already taken; the rate at t serves the step numbered t + 1 in logs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from unbroken import Blend, Extension
from unbroken.errors import ConfigError, Incompatible

if TYPE_CHECKING:
    from mapsage.config import MapSageConfig


@dataclass(frozen=True, kw_only=True)
class LinearLR:
    """Warm-up: from `start_factor` times the rate at `begin` to `end_factor` times it at step `end - 1`."""

    begin: int = 0
    end: int
    start_factor: float
    end_factor: float = 1.0

    def __post_init__(self) -> None:
        _check_span(self.begin, self.end)
        if not 0.0 < self.start_factor <= 1.0 or not 0.0 <= self.end_factor <= 1.0:
            raise ConfigError(
                "param_scheduler (LinearLR)",
                "a factor is out of range",
                expected="0 < start_factor <= 1 and 0 <= end_factor <= 1",
                found=f"{self.start_factor} and {self.end_factor}",
            )

    def next_rate(self, rate: float, last_step: int) -> float:
        """The rate at the phase's own step `last_step`, from the rate before."""
        if last_step == 0:
            return rate * self.start_factor
        rise = self.end_factor - self.start_factor
        length = self.end - self.begin - 1
        return rate * (1.0 + rise / (length * self.start_factor + (last_step - 1) * rise))


@dataclass(frozen=True, kw_only=True)
class PolyLR:
    """Decay: `eta_min + (rate - eta_min) * (1 - k / T) ** power`, T = end - begin - 1, k = step - begin.

    The last step of the phase runs at `eta_min`; at 0 it changes nothing.
    """

    begin: int = 0
    end: int
    power: float = 1.0
    eta_min: float = 0.0

    def __post_init__(self) -> None:
        _check_span(self.begin, self.end)

    def next_rate(self, rate: float, last_step: int) -> float:
        """The rate at the phase's own step `last_step`, from the rate before."""
        if last_step == 0:
            return rate
        length = self.end - self.begin - 1
        # The quotient of two neighbouring values of that formula, in the form that rounds as MMEngine does.
        decay: float = (1 - 1 / (length - last_step + 1)) ** self.power
        return (rate - self.eta_min) * decay + self.eta_min


Phase = LinearLR | PolyLR


def phases_of(config: MapSageConfig) -> tuple[Phase, ...]:
    """The learning-rate phases of a config."""
    return phases_in(phase.model_dump() for phase in config.param_scheduler)


def phases_in(scheduler: Iterable[Mapping[str, Any]]) -> tuple[Phase, ...]:
    """The same of the `param_scheduler` of a canonical config."""
    return tuple(
        LinearLR(begin=p["begin"], end=p["end"], start_factor=p["start_factor"], end_factor=p["end_factor"])
        if p["type"] == "LinearLR"
        else PolyLR(begin=p["begin"], end=p["end"], power=p["power"], eta_min=p["eta_min"])
        for p in scheduler
    )


def _check_span(begin: int, end: int) -> None:
    if not 0 <= begin < end:
        raise ConfigError("param_scheduler", "a phase is empty", expected="0 <= begin < end", found=(begin, end))


def rates_at(rates: Sequence[float], phases: Sequence[Phase], step: int) -> list[float]:
    """One link of the chain: the rates (one per parameter group) at `step`, from those of the step before."""
    chained = list(rates)
    for phase in phases:
        if phase.begin <= step < phase.end:
            chained = [phase.next_rate(rate, step - phase.begin) for rate in chained]
    return chained


def _turns(rates: Sequence[float], phases: Sequence[Phase], step: int) -> list[list[float]]:
    """The rates at `step` right after each phase had its turn, which MMEngine's state holds too."""
    turns: list[list[float]] = []
    for phase in phases:
        turns.append(rates_at(turns[-1] if turns else rates, (phase,), step))
    return turns


class ParameterGroups(Protocol):
    """All that a schedule needs of an optimizer."""

    param_groups: list[dict[str, Any]]
    defaults: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Extended:
    """An extension after `taken` steps, and the rates at its seam, one per parameter group."""

    by: Extension
    rates: list[float]
    taken: int

    @property
    def place(self) -> Blend:
        """Where the next step stands."""
        return self.by.place(self.taken)

    def mix(self, chain: Sequence[float]) -> list[float]:
        """The rates of the next step, from those of the chain at its place."""
        return [self.place.mix(start, rate) for start, rate in zip(self.rates, chain, strict=True)]

    def as_plain(self) -> dict[str, Any]:
        """Plain values."""
        return {"extension": self.by.as_plain(), "rates": list(self.rates), "taken": self.taken}


class IterationSchedule:
    """The open schedule of one optimizer: sets `lr` of its groups at construction and after each `step()`.

    Build it with the optimizer of the present config, before any state is loaded: each group's `initial_lr`
    at that moment, or else its `lr`, is its base rate. `load_state_dict` goes on exactly as the saved run
    would have, phases and extension included, whatever the present config says; `rebuild_at` takes the present
    config's word instead. Ask `follows_config` which one is in force.

    An optimizer of several groups has one more base rate, that of no parameter: MMEngine keeps its configured rate in a
    group of its own, which is scheduled with the others (`default_group`).

    The *chain* is the schedule itself. It is at the step that was taken, unless an extension asks for another one, and
    then the rates in the optimizer are a mixture of the chain's and of those at the seam.
    """

    def __init__(self, optimizer: ParameterGroups, phases: Sequence[Phase]) -> None:
        self._optimizer = optimizer
        self.default_group = {"lr": optimizer.defaults["lr"]} if len(optimizer.param_groups) > 1 else None
        self._configured_phases = tuple(phases)
        self._configured_bases = [float(group.setdefault("initial_lr", group["lr"])) for group in self._groups]
        self._extended: Extended | None = None
        self.rebuild_at(0)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases in force."""
        return self._phases

    @property
    def follows_config(self) -> bool:
        """Whether phases and base rates in force are those given at construction."""
        return self._phases == self._configured_phases and self._bases == self._configured_bases

    @property
    def _groups(self) -> list[dict[str, Any]]:
        """All groups that are scheduled; loading a state gives an optimizer new ones."""
        groups = self._optimizer.param_groups
        return groups if self.default_group is None else [*groups, self.default_group]

    @property
    def taken(self) -> int:
        """How many optimizer steps the schedule has counted."""
        return self._taken

    @property
    def extension(self) -> Extension | None:
        """The extension in force."""
        return self._extended.by if self._extended else None

    def step(self) -> None:
        """Count one optimizer step and set the rates of the next one."""
        self._go_to(self._taken + 1)

    def rebuild_at(self, step: int, extension: Extension | None = None) -> None:
        """Set the rates that a run of the present config would have after `step` steps, replayed from 0.

        With an extension that is not in force yet, the rates that the optimizer has now are those at the seam.
        """
        if extension is None:
            self._extended = None
        elif extension != self.extension:
            rates = [float(group["lr"]) for group in self._groups]
            self._extended = Extended(by=extension, rates=rates, taken=step)
        self._phases = self._configured_phases
        self._bases = list(self._configured_bases)
        self._last_values = [list(self._bases) for _ in self._phases]
        self._chain, self._chain_step = list(self._bases), -1
        for group, base in zip(self._groups, self._bases, strict=True):
            group["initial_lr"] = base
        self._go_to(step)

    def state_dict(self) -> list[dict[str, Any]]:
        """Plain values under MMEngine's names, one dict per phase: what its tools expect under `param_schedulers`.

        An extension is one more entry after those, which its tools pass over.
        """
        phases = [self._phase_state(i) for i in range(len(self._phases))]
        return [*phases, self._extended.as_plain()] if self._extended else phases

    def check_state_dict(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Raise what `load_state_dict` would; changes nothing."""
        self._read(saved)

    def load_state_dict(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Go on from `state_dict()`, or from what MMEngine keeps under `param_schedulers`.

        Raises `Incompatible`, before anything changes, for entries that describe no phase known here, for
        another number of parameter groups, and for counts that contradict each other.
        """
        self._phases, self._bases, self._chain_step, self._last_values, self._extended = self._read(saved)
        for group, base in zip(self._groups, self._bases, strict=True):
            group["initial_lr"] = base
        constant = self._bases if self._extended else [float(group["lr"]) for group in self._groups]
        self._chain = list(self._last_values[-1] if self._last_values else constant)
        self._go_to(self._extended.taken if self._extended else self._chain_step)

    def _go_to(self, step: int) -> None:
        """Bring the chain to where this step needs it, and set the rates."""
        if self._extended is not None:
            self._extended = replace(self._extended, taken=step)
        wanted = self._extended.place.step if self._extended else step
        while self._chain_step < wanted:
            self._chain_step += 1
            self._last_values = _turns(self._chain, self._phases, self._chain_step)
            self._chain = self._last_values[-1] if self._phases else self._chain
        self._taken = step
        rates = self._extended.mix(self._chain) if self._extended else self._chain
        for group, rate in zip(self._groups, rates, strict=True):
            group["lr"] = rate

    def _read(
        self, saved: Sequence[Mapping[str, Any]]
    ) -> tuple[tuple[Phase, ...], list[float], int, list[list[float]], Extended | None]:
        """The phases that a saved schedule has, its base rates, step, rates after each phase's turn, and extension.

        Raises Incompatible where it cannot be that of this optimizer.
        """
        entries = [entry for entry in saved if not (isinstance(entry, Mapping) and "extension" in entry)]
        known = [_known_phase(entry) for entry in entries]
        phases = tuple(phase for phase in known if phase is not None)
        if len(phases) < len(known):
            raise _not_known(f"param_schedulers[{known.index(None)}]", entries[known.index(None)])
        groups, several = len(self._groups), len(self._optimizer.param_groups)
        step, bases = self._chain_step, list(self._bases)
        if entries:
            step, bases = int(entries[0]["_global_step"]), [float(value) for value in entries[0]["base_values"]]
        last_values = [[float(value) for value in entry["_last_value"]] for entry in entries]
        for i, (entry, phase) in enumerate(zip(entries, phases)):
            same = entry["_global_step"] == step and [float(value) for value in entry["base_values"]] == bases
            counted = entry["last_step"] == _own_steps(phase, step)
            if not (same and counted and len(bases) == len(last_values[i]) and len(bases) in (several, groups)):
                counts = f"{len(entry['base_values'])} and {len(entry['_last_value'])} rates"
                raise Incompatible(
                    f"param_schedulers[{i}]",
                    "the saved schedule contradicts itself or belongs to another optimizer",
                    expected=f"step {step} and the rates of {groups} parameter groups throughout",
                    found=f"step {entry['_global_step']}, of its own {entry['last_step']}, {counts}",
                    do="Resume with the parameter groups of the config that wrote it, or take only its weights.",
                )
        if len(bases) < groups:  # by a version of ours that did not schedule the default rate
            bases.append(self._configured_bases[-1])
            for values, rate in zip(last_values, _replayed(bases[-1], phases, step)):
                values.append(rate)
        if len(entries) == len(saved):
            return phases, bases, step, last_values, None
        last = saved[-1]
        by, taken, rates = Extension.from_plain(last["extension"]), last.get("taken"), last.get("rates")
        if (
            by is None
            or not isinstance(taken, int)
            or not isinstance(rates, list)
            or len(rates) not in (several, groups)
        ):
            raise _not_known("param_schedulers (extension)", last)
        if phases and by.place(taken).step != step:
            raise _not_known("param_schedulers (extension)", last)
        rates = [float(rate) for rate in rates] + bases[-1:] * (len(rates) < groups)
        return phases, bases, step, last_values, Extended(by=by, rates=rates, taken=taken)

    def _phase_state(self, i: int) -> dict[str, Any]:
        phase = self._phases[i]
        match phase:
            case LinearLR():
                own = {"start_factor": phase.start_factor, "end_factor": phase.end_factor}
            case PolyLR():
                own = {"eta_min": phase.eta_min, "power": phase.power}
        return {
            **own,
            "total_iters": phase.end - phase.begin - 1,
            "param_name": "lr",
            "begin": phase.begin,
            "end": phase.end,
            "by_epoch": False,
            "base_values": list(self._bases),
            "last_step": _own_steps(phase, self._chain_step),
            "_global_step": self._chain_step,
            "verbose": False,
            "_last_value": list(self._last_values[i]),
        }


def _replayed(base: float, phases: Sequence[Phase], step: int) -> list[float]:
    """One rate right after each phase had its turn at `step`, from the base rate on."""
    rate, turns = [base], [[base] for _ in phases]
    for each in range(step + 1 if phases else 0):
        turns = _turns(rate, phases, each)
        rate = turns[-1]
    return [turn for (turn,) in turns]


def _own_steps(phase: Phase, taken: int) -> int:
    """The phase's own counter after `taken` steps: -1 before it begins, then from 0 up to its end."""
    return min(taken, phase.end - 1) - phase.begin if taken >= phase.begin else -1


# The entries of each of MMEngine's schedules.
_ALWAYS = frozenset((
    "total_iters", "param_name", "begin", "end", "by_epoch", "base_values", "last_step", "_global_step", "verbose",
    "_last_value",
))  # fmt: skip
# MMEngine's schedules by the entries of their states that no other has.
_SCHEDULES = {
    frozenset({"start_factor", "end_factor", "total_iters"}): "LinearLR",
    frozenset({"eta_min", "power", "total_iters"}): "PolyLR",
    frozenset({"factor", "total_iters"}): "ConstantLR",
    frozenset({"T_max", "eta_min", "eta_min_ratio"}): "CosineAnnealingLR",
    frozenset({"T_max", "eta_min"}): "CosineAnnealingLR",
    frozenset({"gamma"}): "ExponentialLR",
    frozenset({"milestones", "gamma"}): "MultiStepLR",
    frozenset({"step_size", "gamma"}): "StepLR",
}


def unknown_schedules(saved: object) -> list[str]:
    """The schedules of a checkpoint that this module does not have, each by its name as far as that can be told."""
    if not isinstance(saved, Sequence):
        return ["several optimizers' schedules" if isinstance(saved, Mapping) else "what is no list of schedules"]
    unknown = []
    for entry in saved:
        # A phase that is here, with a value that it cannot have, is none of them: that is refused.
        with suppress(ConfigError, TypeError, ValueError):
            unknown += [_name_of(entry)] if _known_phase(entry) is None else []
    return unknown


def _name_of(entry: object) -> str:
    if not isinstance(entry, Mapping):
        return "what is no schedule"
    own = frozenset(entry) - (_ALWAYS - {"total_iters"}) - {"use_betas"}
    name = _SCHEDULES.get(own, f"a schedule with {', '.join(sorted(map(str, own))[:4]) or 'nothing'}")
    if entry.get("param_name") == "momentum":
        name = f"{name.removesuffix('LR')}Momentum"
    return f"{name} by epochs" if entry.get("by_epoch") else name


def _known_phase(entry: object) -> Phase | None:
    """The phase that a saved scheduler describes, every key of which must be known; None where it describes none."""
    if not isinstance(entry, Mapping) or not entry.keys() >= _ALWAYS:  # torch's own schedules are saved otherwise
        return None
    span = {"begin": int(entry["begin"]), "end": int(entry["end"])}
    known: Phase | None = None
    match set(entry) - _ALWAYS:
        case own if own == {"start_factor", "end_factor"}:
            known = LinearLR(**span, start_factor=entry["start_factor"], end_factor=entry["end_factor"])
        case own if own == {"eta_min", "power"}:
            known = PolyLR(**span, eta_min=entry["eta_min"], power=entry["power"])
    consistent = known is not None and entry["total_iters"] == known.end - known.begin - 1
    return known if consistent and entry["param_name"] == "lr" and not entry["by_epoch"] else None


def _not_known(where: str, entry: object) -> Incompatible:
    return Incompatible(
        where,
        "not a per-iteration learning-rate schedule that is known here",
        expected="the entries of LinearLR or PolyLR, param_name lr, by_epoch False",
        found=_name_of(entry),
        do="Take only its weights under a new tag: --pretrained_model.",
    )
