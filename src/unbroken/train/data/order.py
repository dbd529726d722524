"""Which sample comes at which position: pure, so that skipping to any position costs nothing.

A *position* counts samples from 0 since the run began, over all processes. Position p is in epoch p // size. Counting
samples and not batches keeps the order when the batch size or the number of processes changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from unbroken.errors import UsageError
from unbroken.train.data.keyed_permutation import KeyedPermutation
from unbroken.train.data.rng import seed_for_sample

Key = tuple[int, int]  # (epoch, sample); where a sampler draws the epochs, (epoch, place in what it drew)
Shuffle = Literal["epoch", "stream", "none"]
LARGE = 2**22  # samples; from here on no permutation is drawn as a whole


@dataclass(frozen=True, kw_only=True)
class Order:
    """How a data set of `size` samples is walked through.

    `shuffle`: "epoch" makes each epoch's permutation from (seed, epoch); "stream" draws one permutation after the
    other from a single generator and lets batches straddle epochs (the order of MMEngine's InfiniteSampler);
    "none" keeps the data set's order. `keyed` permutations are those of `KeyedPermutation`.
    `drawn` gives what a sampler draws for an epoch: at most `size` indices, or lists of them.
    Epochs before number `since` go by the order `before`: one that was begun ends as it began.
    """

    size: int
    seed: int
    shuffle: Shuffle = "epoch"
    drop_last: bool = False
    keyed: bool = False
    drawn: Callable[[int], Sequence[Any]] | None = None
    before: Order | None = None
    since: int = 0

    @property
    def straddles(self) -> bool:
        """Whether a batch may hold the end of one epoch and the beginning of the next."""
        return self.shuffle == "stream"

    def of(self, epoch: int) -> Order:
        """The order that is in force in an epoch."""
        return self.before if self.before is not None and epoch < self.since else self

    def held(self, before: Order, *, since: int) -> Order:
        """This order from epoch `since` on, another one before that."""
        return replace(self, before=before, since=since)


class Permutations:
    """The permutation of each epoch; remembers the last one, because positions mostly move forward."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._epoch = -1
        self._current: Sequence[int] = ()
        self._stream = torch.Generator()
        self._drawn = -1  # the epoch that the stream has come to

    def of(self, epoch: int) -> Sequence[int]:
        """The samples of one epoch in their order."""
        if epoch != self._epoch:
            self._current = self._draw(epoch)
            self._epoch = epoch
        return self._current

    def _draw(self, epoch: int) -> Sequence[int]:
        order = self._order.of(epoch)
        if order.drawn is not None:
            return range(len(order.drawn(epoch)))
        if order.shuffle == "none":
            return range(order.size)
        if order.keyed:
            return KeyedPermutation(order.size, seed_for_sample(order.seed, epoch, -1))
        if order.shuffle == "epoch":
            generator = torch.Generator().manual_seed(seed_for_sample(order.seed, epoch, -1))
            return _permutation(order.size, generator)
        if epoch <= self._drawn or self._drawn < 0:
            self._stream.manual_seed(order.seed)
            self._drawn = -1
        for _ in range(self._drawn + 1, epoch):
            torch.randperm(order.size, generator=self._stream)
        self._drawn = epoch
        return _permutation(order.size, self._stream)


def micro_batches(
    order: Order,
    position: int,
    *,
    batch_size: int,
    permutations: Permutations | None = None,
) -> Iterator[tuple[list[Key], int]]:
    """Endless pairs of (samples, position after them), from `position` on.

    Whoever asks again and again keeps the `permutations`, which cost an epoch's drawing.
    """
    permutations, wanted = permutations or Permutations(order), batch_size
    position = _past_what_is_left_out(order, position, wanted, permutations)
    while True:
        epoch, begun = divmod(position, order.size)
        now = order.of(epoch)
        if not now.straddles:  # the batches of an epoch, one behind the other
            here, length = permutations.of(epoch), _length(now, epoch, permutations)
            while position // order.size == epoch:
                end = min(begun + wanted, length)
                keys = [(epoch, sample) for sample in here[begun:end]]
                begun, position = end, position + end - begun
                if length - end < wanted:  # perhaps the last one
                    position = _past_what_is_left_out(order, position, wanted, permutations)
                yield keys, position
            continue
        last = order.since * order.size if now is not order else position + wanted  # an order that is held ends there
        taken = min(wanted, last - position)
        keys = []
        place = position
        while place < position + taken:
            epoch, begun = divmod(place, order.size)
            end = min(order.size, begun + position + taken - place)
            here = permutations.of(epoch)[begun:end]
            keys += [(epoch, sample) for sample in here]
            place += len(here)
        position = _past_what_is_left_out(order, position + taken, wanted, permutations)
        yield keys, position


def _length(order: Order, epoch: int, permutations: Permutations) -> int:
    """How many samples an epoch has; only a sampler may draw fewer than there are."""
    return order.size if order.drawn is None else len(permutations.of(epoch))


def _past_what_is_left_out(order: Order, position: int, wanted: int, permutations: Permutations) -> int:
    """An epoch ends with what its sampler drew, and with `drop_last` where no whole batch is left."""
    epoch, begun = divmod(position, order.size)
    now = order.of(epoch)
    if now.drop_last and not now.straddles and wanted > now.size:
        raise UsageError(
            "run.batches",
            "with drop_last not one batch can be made",
            expected=f"batches of at most {order.size} samples",
            found=wanted,
            do="Choose a smaller batch_size, or drop_last=False.",
        )
    if not begun or now.straddles:
        return position
    left = _length(now, epoch, permutations) - begun
    return (epoch + 1) * order.size if left <= 0 or (now.drop_last and left < wanted) else position


def steps_in_epoch(order: Order, *, batch_size: int) -> int:
    """Micro-batches that one epoch has."""
    return order.size // batch_size if order.drop_last else -(-order.size // batch_size)


def steps_left(order: Order, position: int, *, epochs: int, batch_size: int, accumulate: int) -> int:
    """Optimizer steps from `position` to the end of the last epoch, where a step ends with its epoch at the latest."""
    done, begun = divmod(position, order.size)
    left = order.size - begun if begun else 0
    in_this = left // batch_size if order.drop_last else -(-left // batch_size)
    in_each = steps_in_epoch(order, batch_size=batch_size)
    whole = max(epochs - done - (begun > 0), 0)
    return -(-in_this // accumulate) + whole * -(-in_each // accumulate)


def _permutation(size: int, generator: torch.Generator) -> list[int]:
    return [int(item) for item in torch.randperm(size, generator=generator).tolist()]
