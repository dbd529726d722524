"""Which sample comes at which position: pure, so that skipping to any position costs nothing.

A *position* counts samples from 0 since the run began, over all processes. Position p is in epoch p // size. Counting
samples and not batches keeps the order when the batch size or the number of processes changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from unbroken.errors import UsageError
from unbroken.train.rng import seed_for_sample

Key = tuple[int, int]  # (epoch, sample)


@dataclass(frozen=True, kw_only=True)
class Order:
    """How a data set of `size` samples is walked through.

    `shuffle`: "epoch" makes each epoch's permutation from (seed, epoch); "stream" draws one permutation after the
    other from a single generator and lets batches straddle epochs (the order of MMEngine's InfiniteSampler);
    "none" keeps the data set's order.
    """

    size: int
    seed: int
    shuffle: Literal["epoch", "stream", "none"] = "epoch"
    drop_last: bool = False

    @property
    def straddles(self) -> bool:
        """Whether a batch may hold the end of one epoch and the beginning of the next."""
        return self.shuffle == "stream"


class Permutations:
    """The permutation of each epoch; remembers the last one, because positions mostly move forward."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._epoch = -1
        self._current: list[int] = []
        self._stream = torch.Generator().manual_seed(order.seed)

    def of(self, epoch: int) -> list[int]:
        """The samples of one epoch in their order."""
        if epoch != self._epoch:
            self._current = self._draw(epoch)
            self._epoch = epoch
        return self._current

    def _draw(self, epoch: int) -> list[int]:
        order = self._order
        if order.shuffle == "none":
            return list(range(order.size))
        if order.shuffle == "epoch":
            generator = torch.Generator().manual_seed(seed_for_sample(order.seed, epoch, -1))
            return _permutation(order.size, generator)
        if epoch < self._epoch or self._epoch < 0:
            self._stream.manual_seed(order.seed)
            self._epoch = -1
        for _ in range(self._epoch + 1, epoch):
            torch.randperm(order.size, generator=self._stream)
        return _permutation(order.size, self._stream)


def micro_batches(
    order: Order,
    position: int,
    *,
    batch_size: int,
    rank: int = 0,
    world_size: int = 1,
    permutations: Permutations | None = None,
) -> Iterator[tuple[list[Key], int]]:
    """Endless pairs of (this process's samples, position after the batch), from `position` on.

    All processes together take `batch_size * world_size` consecutive positions; process `rank` takes every
    `world_size`-th of them. Whoever asks again and again keeps the `permutations`, which cost an epoch's drawing.
    """
    permutations = permutations or Permutations(order)
    wanted = batch_size * world_size
    position = _past_what_is_dropped(order, position, wanted)
    while True:
        left = order.size - position % order.size
        taken = wanted if order.straddles else min(wanted, left)
        keys = [
            (place // order.size, permutations.of(place // order.size)[place % order.size])
            for place in range(position + rank, position + taken, world_size)
        ]
        position = _past_what_is_dropped(order, position + taken, wanted)
        yield keys, position


def _past_what_is_dropped(order: Order, position: int, wanted: int) -> int:
    """With `drop_last`, an epoch ends where no whole batch is left."""
    if not order.drop_last or order.straddles:
        return position
    if wanted > order.size:
        raise UsageError(
            "run.batches",
            "with drop_last not one batch can be made",
            expected=f"batches of at most {order.size} samples",
            found=wanted,
            do="Choose a smaller batch_size, or drop_last=False.",
        )
    left = order.size - position % order.size
    return position + left if left < wanted else position


def steps_in_epoch(order: Order, *, batch_size: int, world_size: int = 1) -> int:
    """Micro-batches that one epoch has."""
    wanted = batch_size * world_size
    return order.size // wanted if order.drop_last else -(-order.size // wanted)


def steps_left(
    order: Order, position: int, *, epochs: int, batch_size: int, accumulate: int, world_size: int = 1
) -> int:
    """Optimizer steps from `position` to the end of the last epoch, where a step ends with its epoch at the latest."""
    wanted = batch_size * world_size
    done, begun = divmod(position, order.size)
    left = order.size - begun if begun else 0
    in_this = left // wanted if order.drop_last else -(-left // wanted)
    in_each = steps_in_epoch(order, batch_size=batch_size, world_size=world_size)
    whole = max(epochs - done - (begun > 0), 0)
    return -(-in_this // accumulate) + whole * -(-in_each // accumulate)


def _permutation(size: int, generator: torch.Generator) -> list[int]:
    return [int(item) for item in torch.randperm(size, generator=generator).tolist()]
