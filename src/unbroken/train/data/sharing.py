"""Which process computes which samples of a micro-batch: pure, the same in all of them.

A micro-batch is cut into *shards* of nearly equal size, in its order; each process computes some that follow each
other. With as many shards as processes each has one; with more, their number can stay while that of the processes
changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unbroken.launch.options import require_dealt_out
from unbroken.train.data.order import Key


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """The `shards` of each micro-batch, and which of them this process computes."""

    shards: int = 1
    mine: range = field(default_factory=lambda: range(1))

    @property
    def is_whole(self) -> bool:
        """Whether micro-batches are not cut."""
        return self.shards == 1

    def part(self, keys: Sequence[Key], shard: int) -> Sequence[Key]:
        """The samples of a shard; none where there are fewer samples than shards."""
        return keys[len(keys) * shard // self.shards : len(keys) * (shard + 1) // self.shards]

    def number(self, turn: int) -> int:
        """The number in its step of what this process computes in its turn, over the shards of all micro-batches."""
        micro_batch, place = divmod(turn, len(self.mine))
        return micro_batch * self.shards + self.mine[place]


WHOLE = Sharing()


def sharing_of(rank: int, size: int, shards: int | None = None) -> Sharing:
    """How `size` processes share micro-batches, of which this is number `rank`; UsageError where they cannot.

    Without a number of `shards` there is one for each process.
    """
    shards = size if shards is None else shards
    require_dealt_out(shards, size, where="processes")
    if shards == 1:
        return WHOLE
    each = shards // size
    return Sharing(shards=shards, mine=range(rank * each, (rank + 1) * each))
