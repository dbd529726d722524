"""Training states in MMEngine's form: what its checkpoints hold otherwise than ours, in both directions.

MMEngine saves an *optimizer wrapper*, not an optimizer: beside moments and groups it holds the gradient scaler of mixed
precision and, where there are several parameter groups, one more group of no parameter, from which its logs take the
learning rate. Its EMA hook swaps weights when it saves: the averaged ones stand where the trained ones are looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from mapsage.schedule import IterationSchedule, unknown_schedules
from unbroken.errors import Incompatible
from unbroken.train import Translated

OF_A_MODULE = "module."  # before each name in the state of an averaged model
ITERATIONS_ARE_BATCHES = (
    "its optimizer has stepped {steps} times in {iterations} iterations: with gradient accumulation MMEngine counts "
    "each batch as an iteration; here an iteration is a step with all its batches, so as many iterations train longer"
)


def spell_as_here(parts: Mapping[str, Any], where: str, *, amp: bool) -> Translated:
    """The parts of an MMEngine checkpoint as the parts here spell them, and what is to be said of that.

    `parts` may hold tensors or their references; `amp` says whether a gradient scaler is tracked here. Raises
    Incompatible for a training with several optimizers.
    """
    spelled, remarks = dict(parts), list[str]()
    optimizer = parts.get("optimizer")
    inside = optimizer if isinstance(optimizer, Mapping) and "param_groups" not in optimizer else {}
    several = [str(name) for name, inner in inside.items() if isinstance(inner, Mapping) and "param_groups" in inner]
    if several:  # of MMEngine's OptimWrapperDict
        raise Incompatible(
            where,
            "it was trained by several optimizers, nothing was loaded",
            expected="one optimizer, with its param_groups",
            found=", ".join(several),
            do="Take only its weights under a new tag: --pretrained_model.",
        )
    if isinstance(optimizer, Mapping) and optimizer.get("loss_scaler"):
        spelled["scaler"] = optimizer["loss_scaler"]
        if not amp:
            remarks.append("its gradient scaler is not used: the config has no mixed precision")
    if "scheduler" in parts and (unknown := unknown_schedules(parts["scheduler"])):
        del spelled["scheduler"]
        names = ", ".join(dict.fromkeys(unknown))
        remarks.append(f"its learning-rate schedule is not known here ({names}): the config's counts")
    averaged, weights = parts.get("ema"), parts.get("model")
    if isinstance(averaged, Mapping) and isinstance(weights, Mapping):
        # The file has the averaged weights where the trained ones are looked for.
        named = {name: value for name, value in averaged.items() if isinstance(name, str)}
        trained = {name.removeprefix(OF_A_MODULE): named[name] for name in named if name.startswith(OF_A_MODULE)}
        spelled["model"] = {**weights, **trained}
        remarks.append("the trained weights are continued; the average of its EMA hook ends here")
    remarks += _counts_of_steps(parts)
    return Translated(parts=spelled, remarks=tuple(remarks))


def beside_optimizer(schedule: IterationSchedule, optimizer: Optimizer, scaler: GradScaler | None) -> dict[str, Any]:
    """What MMEngine keeps in the optimizer's entry beside moments and groups."""
    found: dict[str, Any] = {}
    if schedule.default_group is not None:
        found["base_param_settings"] = {"params": torch.zeros(1), **optimizer.defaults, **schedule.default_group}
    if scaler is not None and scaler.is_enabled():
        found["loss_scaler"] = scaler.state_dict()
    return found


def _counts_of_steps(parts: Mapping[str, Any]) -> list[str]:
    """A sentence where the optimizer did not step in each iteration; nothing where the numbers are not read yet."""
    optimizer, schedule = parts.get("optimizer"), parts.get("scheduler")
    moments = optimizer.get("state") if isinstance(optimizer, Mapping) else None
    states = moments.values() if isinstance(moments, Mapping) else ()
    counts = [state.get("step") for state in states if isinstance(state, Mapping)]
    steps = max((int(count) for count in counts if isinstance(count, torch.Tensor) and count.numel() == 1), default=0)
    last = schedule[-1] if isinstance(schedule, list) and schedule else None
    iterations = last.get("_global_step") if isinstance(last, Mapping) else None
    if not steps or not isinstance(iterations, int) or iterations < 2 * steps:
        return []
    return [ITERATIONS_ARE_BATCHES.format(steps=steps, iterations=iterations)]
