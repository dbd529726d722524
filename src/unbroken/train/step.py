"""The step in progress: what it was handed, and whether the state is still that after the step before it.

Until its optimizer steps, a step changes little: running statistics, counters, generators. Where nothing was changed,
the state after the step before can still be saved when the step fails or never gets its data.
"""

from __future__ import annotations

import random
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from unbroken.errors import UsageError
from unbroken.journal import Samples, as_recorded
from unbroken.quantities import counted
from unbroken.train.data import rng
from unbroken.train.data.order import Key
from unbroken.train.data.random_holders import Holders
from unbroken.train.data.sharing import WHOLE
from unbroken.train.progress import Progress
from unbroken.train.rates import RateWatch
from unbroken.train.record.probe import Probe
from unbroken.train.record.recorder import EndedStep
from unbroken.train.state.gradients import GradientWatch
from unbroken.train.state.modes import Modes
from unbroken.train.state.module_attributes import Attributes

PLAIN = frozenset((bool, int, float, str, type(None)))
DEEPEST = 4  # values within values that are looked at
MANY = 10  # batches of a step of which no optimizer will tell
MODULES, PARAMETERS, BUFFERS, VERSION = map(attrgetter, ("_modules", "_parameters", "_buffers", "_version"))


class StepInProgress:
    """Micro-batches of a step that has not ended; `tracked` grows while parts are named."""

    def __init__(self, seed: int, tracked: Mapping[str, Any], rates: RateWatch) -> None:
        self.samples: list[Key] = []
        self.logged: dict[str, list[Any]] = {}  # what the loop says of the step, in the order in which it came
        self.turns = 0  # micro-batches handed out since the last step
        self.weights: list[float] = []  # of each of them, among what all processes take in this turn
        self.sharing = WHOLE
        self.is_shared = False  # whether what is logged is of all processes already
        self._before = 0  # samples of the step before its last micro-batch
        self.skipped = 0  # samples that were left out since the last step
        self.lr: float | None = None
        self.waits = False  # the loop has asked for a batch
        self.finished = 0  # steps of this session
        self.stepped = False  # a tracked optimizer has stepped since the last step ended
        self._most_turns = 0  # of the steps so far
        self.by_hand = False  # the loop says itself when a step ends
        self._by_itself = False  # so the last step ended
        self._ended: EndedStep | None = None  # the step that ended in this body, until it is written down
        self._settled = 0  # of them, by the last boundary
        self.probe, self.gradients, self.modes = Probe(tracked), GradientWatch(tracked), Modes(tracked)
        self.attributes = Attributes(tracked)
        self.holders: Holders | None = None
        self._seed, self._tracked, self._rates = seed, tracked, rates
        self._named, self._number = "", 0  # the micro-batch whose number was asked for last
        self._modules: dict[str, list[nn.Module]] = {}  # inside each one that is tracked
        self._inner: dict[str, list[int]] = {}  # what these hold: another module among them is looked for
        self._tensors: dict[str, list[torch.Tensor]] = {}  # of each module, at the last mark; no id comes twice
        self._steps: Counter[str] = Counter()  # begun by each optimizer, which may write where no version counts
        self._first: Optimizer | None = None  # the one whose rate is recorded
        self._seen: dict[str, Callable[[], Any]] = {}  # what tells a part from what it was
        self._mark: dict[str, Any] = {}  # that, at the last mark

    def follow(self, tracked: Mapping[str, Any]) -> None:
        """Hear of the steps that newly tracked optimizers take."""
        for name, part in tracked.items():
            self._seen[name] = self._way_to_see(name, part)
            if isinstance(part, nn.Module):
                self._look_into(name, part)
            if isinstance(part, Optimizer):
                self._first = self._first or part
                part.register_step_pre_hook(self._begins(name))
                self.gradients.follow(name, part)

    def _look_into(self, name: str, module: nn.Module) -> None:
        self._modules[name] = list(module.modules())
        self._inner[name] = _inner(self._modules[name])

    def _begins(self, name: str) -> Callable[[Optimizer, Any, Any], None]:
        """What hears that a step of this optimizer begins."""

        def begins(optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
            self._steps[name] += 1
            self.stepped = True
            if optimizer is self._first:
                self.lr = float(optimizer.param_groups[0]["lr"])  # the body may have set another since it was entered

        return begins

    def say_if_endless(self, say: Callable[[str], None]) -> None:
        """Say of many batches without a step that none will end, where nothing would tell of one."""
        if self._first is None and not self.finished:
            say(
                f"warning: no step has ended in {MANY} batches, and nothing is saved before one does: no optimizer of "
                "torch is tracked. Where the loop changes its weights itself, run.end_step(...) says that a step ends"
            )

    @property
    def is_longest(self) -> bool:
        """Whether no step before had as many micro-batches as this one has by now."""
        return self.turns > self._most_turns

    def settle(self) -> None:
        """A boundary: between two steps, everything that belongs to the one before is done by now."""
        self._settled, self._ended = self.finished, None
        if not self.turns:
            self.stepped = False  # whatever stepped after the step had ended belongs to it
            self.mark()

    @property
    def ended(self) -> bool:
        """Whether a step was finished since the last boundary."""
        return self.finished > self._settled

    @property
    def is_at_boundary(self) -> bool:
        """Whether the state is still the one of the last boundary."""
        return not self.ended and not self.changed()

    def enter(self, samples: list[Key], *, step: int, skipped: int = 0, weight: float = 1.0) -> None:
        """A micro-batch is handed out; what it draws depends on nothing that was drawn before.

        Of a shared one this process computes a part, which has `weight` of the samples.
        """
        self.waits = False
        rng.seed_streams(self.number(step))
        if self.holders is not None:
            turn = self.turns if self.sharing is WHOLE else self.sharing.number(self.turns)
            self.holders.seed(self._seed, "step", step, turn)
        self.turns += 1
        self.weights.append(weight)
        self._before = len(self.samples)
        self.samples += samples
        self.skipped += skipped
        self.lr = self._rates.look(self._first, self._tracked, step=step)

    def number(self, step: int) -> int:
        """From which the next micro-batch draws, in that step."""
        turn = self.turns if self.sharing is WHOLE else self.sharing.number(self.turns)
        name = f"{self._seed}:step:{step}:{turn}"
        if name != self._named:  # it is asked for where the batch is read, and where it is handed out
            self._named, self._number = name, rng.number_of(name)
        return self._number

    def recorded(self, before: Progress) -> Samples:
        """What is recorded of its samples; `before` is how far the run was when it began."""
        follow = not (self.skipped or before.excluded)
        return as_recorded([sample for _, sample in self.samples], first=before.position if follow else None)

    @property
    def is_to_be_written(self) -> bool:
        """Whether the step that ended in this body is not written down yet."""
        return self._ended is not None

    def leave_body(self) -> None:
        """The loop was left: a micro-batch that no step came of was not used."""
        if self.turns and not self.stepped:
            self.turns -= 1
            self.weights.pop()
            del self.samples[self._before :]

    def log(self, values: Mapping[str, Any]) -> None:
        """Values of the step in progress, or of the one that ended in this body."""
        if not self.turns and self._ended is None:
            do = "It belongs into the loop over the batches; what is known of a whole epoch into run.record_evaluation."
            raise UsageError("run.log", "there is no step that this is of", do=do)
        logged = self._ended.logged if self._ended is not None else self.logged
        for name, value in values.items():
            logged.setdefault(name, []).append(value)

    def end_by_hand(self, values: Mapping[str, Any]) -> bool:
        """The loop says that a step ends here; returns whether it had not ended by itself, before an evaluation.

        Raises UsageError where no step is in progress, or where the steps of the session end by themselves.
        """
        early = self.ended and self._by_itself
        if not self.turns and not early:
            raise UsageError("run.end_step", "no batch was taken since the last step", do="Iterate run.batches(...).")
        if self.finished - early and not self.by_hand:
            ended = counted(self.finished - early, "step")
            raise UsageError(
                "run.end_step",
                f"the steps of this loop end by themselves when its optimizer has stepped: {ended} did, without this",
                do="Call it in each step or in none; what is to be recorded goes into run.log(...).",
            )
        self.log(values)
        self.by_hand, self._by_itself = True, False
        return not early

    def finish(self, before: Progress, *, by_itself: bool) -> None:
        """The step has ended: its optimizer has stepped, or the loop says so. `before` is how far the run was."""
        self._by_itself = by_itself
        self._ended = EndedStep(self.recorded(before), self.logged, self.lr, self.weights)
        self._most_turns = max(self._most_turns, self.turns)
        self.samples, self.logged, self.turns, self.skipped, self.weights = [], {}, 0, 0, []
        self.stepped = False
        self.finished += 1

    def take_ended(self) -> EndedStep | None:
        """The step that ended in this body, to be written down once."""
        ended, self._ended = self._ended, None
        return ended

    def seed(self, *name: object) -> None:
        """Begin the random streams for what has this name, and the data set's generators: a loop may use them too."""
        rng.seed_streams(rng.seed_for(self._seed, *name))
        if self.holders is not None:
            self.holders.seed(self._seed, *name)

    def seed_outside(self, *name: object) -> None:
        """The same for what is no step: what it changes of attributes is state from the next boundary on."""
        self.attributes.hold()
        self.seed(*name)

    def mark(self) -> None:
        """The state is that after the last step."""
        for name, inside in self._modules.items():
            if _inner(inside) != self._inner[name]:
                self._look_into(name, self._tracked[name])
            self._tensors[name] = _tensors_of(self._modules[name])
        self.modes.note(self._modules.values())
        self.gradients.mark()
        self.attributes.settle()
        for name, seen in self._seen.items():
            self._mark[name] = seen()

    def changed(self) -> list[str]:
        """The parts that are not, or may not be, as the last step left them."""
        if self.waits and not self.turns:
            return []
        found = [
            name
            for name, part in self._tracked.items()
            if _plain(self._mark.get(name)) != _plain(self._seen[name]()) or self._has_other_tensors(name, part)
        ]
        return [*found, *(["gradients"] if self.gradients.changed else [])]

    def _way_to_see(self, name: str, part: Any) -> Callable[[], Any]:
        """What gives, at each boundary, what tells a part from what it was."""
        match part:
            case nn.Module():
                return lambda: _versions(self._tensors.get(name, ()))
            case Optimizer():
                settings = [SettingsWatch() for _ in part.param_groups]

                def of_optimizer() -> Any:
                    while len(settings) < len(part.param_groups):
                        settings.append(SettingsWatch())
                    return self._steps[name], [each.of(group) for each, group in zip(settings, part.param_groups)]

                return of_optimizer
            case LRScheduler() if type(part).__module__.startswith("torch."):
                return lambda: Attributed(vars(part).values())
        return lambda: _seen(part)

    def _has_other_tensors(self, name: str, part: Any) -> bool:
        if not isinstance(part, nn.Module):
            return False
        now = _tensors_of(list(part.modules()))
        return list(map(id, now)) != list(map(id, self._tensors.get(name, ())))


def _inner(modules: Sequence[nn.Module]) -> list[int]:
    """Which modules these hold; no registration is heard of where a list inserts one."""
    return [*map(id, chain.from_iterable(map(dict.values, map(MODULES, modules))))]


def _tensors_of(modules: Sequence[nn.Module]) -> list[torch.Tensor]:
    """Parameters and buffers, buffers that each forward pass makes anew among them; kept, so that no id comes twice."""
    held = chain(map(PARAMETERS, modules), map(BUFFERS, modules))
    return [tensor for tensor in chain.from_iterable(map(dict.values, held)) if tensor is not None]


def _versions(tensors: Sequence[torch.Tensor]) -> list[int]:
    try:
        return [*map(VERSION, tensors)]
    except RuntimeError:  # those of inference mode have none
        return [_version(tensor) for tensor in tensors]


class SettingsWatch:
    """What tells the settings of one group of parameters from what they were; most are plain values, in few moves."""

    def __init__(self) -> None:
        self._kinds: list[type] = []
        self._others: list[tuple[int, bool]] = []  # the places of what is not plain, and whether it is the parameters

    def of(self, group: Mapping[str, Any]) -> list[Any]:
        """The values; of the parameters only their number."""
        values = [*group.values()]
        if (kinds := [*map(type, values)]) != self._kinds:
            named = enumerate(group.items())
            self._others = [(at, name == "params") for at, (name, value) in named if type(value) not in PLAIN]
            self._kinds = kinds
        for at, is_parameters in self._others:
            values[at] = len(values[at]) if is_parameters else _seen(values[at])
        return values


class Attributed(list[Any]):
    """The values of all attributes of a schedule; only the plain ones are compared."""


def _plain(seen: Any) -> Any:
    return [value for value in seen if type(value) in PLAIN] if isinstance(seen, Attributed) else seen


def _version(tensor: torch.Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _seen(value: Any, depth: int = DEEPEST) -> Any:
    """What tells a changed value at little cost: of long lists the length and the end, of tensors their version."""
    match value:
        case torch.Tensor():
            return id(value), _version(value)
        case float():
            return repr(value)  # a NaN is itself
        case bool() | int() | str() | bytes() | None:
            return value
        case Mapping() if depth:
            return [(key, _seen(each, depth - 1)) for key, each in value.items()]
        case list() | tuple() | deque() if depth:
            return len(value), [_seen(each, depth - 1) for each in _few(value)]
        case torch.Generator():
            return bytes(value.get_state().tolist())
        case np.random.Generator():
            return repr(value.bit_generator.state)
        case np.random.RandomState() | random.Random():
            return repr(value.get_state() if isinstance(value, np.random.RandomState) else value.getstate())
        case Optimizer() | nn.Module():
            return id(value)
        case GradScaler():  # what it notes of a step in progress is no state
            return [(key, _seen(each)) for key, each in vars(value).items() if key != "_per_optimizer_states"]
    return _seen(vars(value), depth - 1) if depth and hasattr(value, "__dict__") else id(value)


def _few(values: Sequence[Any]) -> list[Any]:
    return list(values) if len(values) <= 8 else [values[0], values[-1]]
