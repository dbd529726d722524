"""What all processes say of a step, as one: whether it is the last, what they logged, that their weights are the same.

Whether to go on is asked at each boundary: each says what it wishes (`wish_of`), all take the wish of the lowest rank
that has one (`World.agree`), and it means the same to all (`meaning_of`), so that they end after the same step. What
comes to a process later than it was asked waits for the next boundary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from unbroken.errors import UsageError
from unbroken.train.distributed.world import World
from unbroken.train.record.probe import crc32_of
from unbroken.train.record.recorder import EndedStep


def wish_of(*, stop: str | None, ended: str, left: int | None) -> str | None:
    """What a process asks of all at a boundary: a stop, the end of the training, or (its rank) a loop that it left."""
    if stop is not None:
        return f"stop:{stop}"
    if ended:
        return f"end:{ended}"
    return None if left is None else f"left:the loop of process {left}, which was left,"


def meaning_of(agreed: str | None, *, left: bool) -> tuple[str | None, str]:
    """Why a process stops after this step, and why the training ends with it; `left`: its own loop was left."""
    kind, _, words = (agreed or "").partition(":")
    return words if kind == "stop" or (kind == "left" and not left) else None, words if kind == "end" else ""


def logged_together(
    world: World, ended: EndedStep, weights: list[Any], *, step: int, said: bool, sharded: bool
) -> tuple[EndedStep, list[Any]]:
    """What was logged of a step, over all processes, and what was looked at of the weights.

    It stands as it is where each has `said` the same. Of `sharded` weights each has another part.
    Raises UsageError where the weights after the step are not the same everywhere: of such a training one checkpoint
    cannot be the state. Weights on a device are not asked for, as that would wait for it.
    """
    on_device = any(isinstance(each, Tensor) for each in weights)
    values = {} if said else {name: [float(each) for each in some] for name, some in ended.logged.items()}
    rows = world.gather_values((tuple(ended.weights), values, None if on_device else crc32_of(weights)))
    if sharded and not on_device:
        weights = [repr([there for _, _, there in rows]).encode()]
    for rank, (_, _, there) in enumerate(rows):
        if there != rows[0][2] and not sharded:
            raise UsageError(
                f"step {step}",
                f"after it the weights of process {rank} are not those of process 0: nothing of it is saved",
                expected="the same weights in all processes",
                do="Wrap the model in DistributedDataParallel and call the wrapper, or add the gradients up before "
                "each optimizer step; draw random numbers that all need in the same way.",
            )
    together = ended if said else ended._replace(logged=means([(parts, said) for parts, said, _ in rows]))
    return together, weights


def means(rows: Sequence[tuple[Sequence[float], Mapping[str, Sequence[float]]]]) -> dict[str, list[float]]:
    """What the processes logged of a step, over all their samples: of each value, micro-batch by micro-batch.

    A row is what one process says, by rank: the weights of its parts, its values by name. What all of them say alike
    stays as it is, and what only some say is the mean over those.
    """
    found: dict[str, list[float]] = {}
    for name in dict.fromkeys(name for _, values in rows for name in values):
        said = [(weights, values[name]) for weights, values in rows if name in values]
        count = min(len(values) for _, values in said)
        found[name] = [
            _mean([(_weight(weights, turn, count), values[turn]) for weights, values in said]) for turn in range(count)
        ]
    return found


def _weight(weights: Sequence[float], turn: int, count: int) -> float:
    return weights[turn] if count == len(weights) else weights[-1]


def _mean(weighed: Sequence[tuple[float, float]]) -> float:
    values = [value for _, value in weighed]
    if all(value == values[0] for value in values):
        return values[0]
    weight = sum(each for each, _ in weighed)
    return sum(each * value for each, value in weighed) / weight if weight else values[0]
