"""Which process computes which samples of a micro-batch: pure, the same in all of them.

A micro-batch is cut into *shards* of nearly equal size, in its order; each process computes some that follow each
other. With as many shards as processes each has one; with more, their number can stay while that of the processes
changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from unbroken.errors import UsageError
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


def require_enough(samples: int, sharing: Sharing, *, where: str) -> None:
    """Raise UsageError where a batch has fewer samples than shards."""
    if samples < sharing.shards:
        raise UsageError(
            where,
            "a batch has fewer samples than there are processes to share it",
            expected=f"at most {samples} processes, or a larger batch",
            found=f"{sharing.shards} shares of a batch of {samples}",
            do="The batch size counts the samples that all processes take together.",
        )


def sharing_of(rank: int, size: int, shards: int | None = None) -> Sharing:
    """How `size` processes share micro-batches, of which this is number `rank`; UsageError where they cannot.

    Without a number of `shards` there is one for each process.
    """
    shards = size if shards is None else shards
    if shards % size:
        fits = [number for number in range(1, shards + 1) if shards % number == 0]
        raise UsageError(
            "processes",
            f"{shards} shards cannot be dealt out evenly to {size} processes",
            expected=f"a number of processes that divides {shards}: {', '.join(map(str, fits))}",
            found=size,
            do="Start so many, or choose other shards for a new run (--exact-processes).",
        )
    if shards == 1:
        return WHOLE
    each = shards // size
    return Sharing(shards=shards, mine=range(rank * each, (rank + 1) * each))
