"""The gradients of a step whose micro-batches are cut into shards: formed one by one, added up in the shards' order.

Each shard is computed as if it were alone: from the running statistics with which the step began, into gradients of
its own. Then the gradients of all shards of all processes are added in their order, and of the running statistics (of
batch normalisation) the mean is taken, weighed by samples. So the same shards give the same bits, whether one process
computes all of them or each has a process of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from unbroken.train.data.sharing import Sharing
from unbroken.train.distributed.world import World


@dataclass(kw_only=True)
class Shard:
    """What the passes over one shard of each micro-batch of a step left."""

    weight: float = 0.0  # of its samples, among those of the step
    gradients: list[Tensor | None] = field(default_factory=list)
    buffers: list[Tensor] = field(default_factory=list)  # as they are after it
    values: dict[str, float] = field(default_factory=dict)  # its share of each named value


class Shards:
    """Those of one step that this process computes. `buffers` are what a forward pass may change, as the step began."""

    def __init__(
        self, world: World, sharing: Sharing, weights: Sequence[nn.Parameter], buffers: Sequence[Tensor]
    ) -> None:
        self._world, self._sharing, self._weights, self._live = world, sharing, weights, list(buffers)
        self._began = [each.clone() for each in buffers]
        self._done: list[Shard] = []

    @contextmanager
    def computing(self, turn: int) -> Iterator[Shard]:
        """The passes over this process's part number `turn` of the step."""
        place = turn % len(self._sharing.mine)
        if place == len(self._done):
            self._done.append(Shard(gradients=[None] * len(self._weights), buffers=[*map(torch.clone, self._began)]))
        shard = self._done[place]
        for weight, gradient in zip(self._weights, shard.gradients):
            weight.grad = gradient
        self._put(shard.buffers)
        yield shard
        shard.gradients = [weight.grad for weight in self._weights]
        shard.buffers = [*map(torch.clone, self._live)]

    def add_up(self) -> dict[str, float]:
        """Leave the sums in the gradients, the means in the buffers; returns the mean of each named value.

        Every process calls it, in the same step.
        """
        rows = self._world.gather_values([(each.weight, each.values) for each in self._done])
        told = [one for row in rows for one in row]
        self._add_gradients()
        self._average_buffers()
        self._done = []
        values: dict[str, float] = {}
        for _, said in told:
            for name, value in said.items():
                values[name] = values.get(name, 0.0) + value
        return values

    def _add_gradients(self) -> None:
        here = torch.tensor([[each is not None for each in shard.gradients] for shard in self._done], dtype=torch.uint8)
        used = torch.stack(self._world.gather(here)).flatten(0, 1).any(dim=0).tolist()
        for weight in self._weights:
            weight.grad = None
        for kind in dict.fromkeys((weight.device, weight.dtype) for weight in self._weights):
            numbers = [
                number
                for number, weight in enumerate(self._weights)
                if used[number] and (weight.device, weight.dtype) == kind
            ]
            if numbers:
                flat = [self._flat(shard, numbers) for shard in self._done]
                self._spread(self._world.ordered_sum(flat), numbers)

    def _flat(self, shard: Shard, numbers: Sequence[int]) -> Tensor:
        pieces = ((shard.gradients[number], self._weights[number]) for number in numbers)
        return torch.cat([(torch.zeros_like(of) if one is None else one).reshape(-1) for one, of in pieces]).detach()

    def _spread(self, flat: Tensor, numbers: Sequence[int]) -> None:
        sizes = [self._weights[number].numel() for number in numbers]
        for number, piece in zip(numbers, torch.split(flat, sizes)):
            self._weights[number].grad = piece.view_as(self._weights[number])

    def _average_buffers(self) -> None:
        """Those with fractions, where a shard changed them; of counters the first shard's count, which all share."""
        changed = torch.tensor(
            [[not torch.equal(one, began) for one, began in zip(shard.buffers, self._began)] for shard in self._done],
            dtype=torch.uint8,
        ).reshape(len(self._done), len(self._began))
        somewhere = torch.stack(self._world.gather(changed)).flatten(0, 1).any(dim=0).tolist()
        after = [*self._began]
        for number, began in enumerate(self._began):
            if not somewhere[number]:
                continue
            if began.is_floating_point():
                weighed = [(shard.buffers[number] * shard.weight).reshape(-1) for shard in self._done]
                after[number] = self._world.ordered_sum(weighed).view_as(began)
            else:
                first = self._done[0].buffers[number].cpu().contiguous()
                after[number] = self._world.gather(first)[0].to(began.device)
        self._put(after)

    @torch.no_grad()
    def _put(self, values: Sequence[Tensor]) -> None:
        for live, value in zip(self._live, values):
            live.copy_(value)
