"""What a sampler draws for an epoch: under the epoch's name, so that it is the same in every session."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np
import torch

from unbroken.errors import UsageError
from unbroken.train.data.random_holders import begin, random_holders
from unbroken.train.data.rng import preserved, seed_all, seed_for_sample
from unbroken.train.state.held import attributes

LONGEST = 2**26  # indices of an epoch whose number no one says
MOST_KEPT = 2**22  # that a checkpoint holds, in four bytes each
MOST = 2**28  # that are drawn at once: more would fill a computer's memory before the first batch
DEEPEST = 3  # samplers within samplers
DATA = ("dataset", "data_source")  # a sampler's name for what it is not


@dataclass(kw_only=True, eq=False)
class EpochIndices:
    """The indices of each epoch, or its lists of indices; the last epoch asked for is remembered.

    All generators, also those that the sampler holds, are seeded from (seed, epoch) before it is asked, and it is told
    the epoch where it has a `set_epoch`.
    """

    sampler: Iterable[Any]
    seed: int
    size: int = 0  # the most that an epoch may have
    _epoch: int = field(default=-1, repr=False)
    _indices: list[Any] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        if iter(self.sampler) is self.sampler:
            self._refuse("it can be gone through once only", do="Give it a class with __iter__, or a list of indices.")
        if (length := _length(self.sampler)) > MOST:
            self._refuse(
                f"it gives {length} indices, and those of an epoch are drawn when it begins",
                do="Give num_samples=len(dataset), and how long to train by run.batches(..., steps=...).",
            )
        self.size = length or len(self._draw(0))

    def __call__(self, epoch: int) -> list[Any]:
        """What is drawn for an epoch."""
        if epoch != self._epoch:
            first = self._epoch < 0
            self._indices, self._epoch = self._draw(epoch), epoch
            if first and self._draw(epoch) != self._indices:
                self._refuse(
                    f"asked twice for epoch {epoch}, it gives two orders: what it remembers is lost at a resume",
                    do="Let its order follow from the epoch: give it set_epoch(epoch).",
                )
        return self._indices

    def digest(self, epoch: int) -> int:
        """What tells the order of an epoch from another one."""
        return zlib.crc32(repr(self(epoch)).encode())

    def kept(self, epoch: int) -> dict[str, torch.Tensor] | None:
        """What a checkpoint holds of an epoch in progress: a sampler may follow what the training has changed since.

        Nothing where they are no numbers, or too many.
        """
        batches = [each if isinstance(each, list) else [each] for each in self(epoch)]
        flat = [*chain.from_iterable(batches)]
        if len(flat) > MOST_KEPT or not all(type(each) is int and 0 <= each < 2**31 for each in flat):
            return None
        kept = {"indices": torch.tensor(flat, dtype=torch.int32)}
        if any(isinstance(each, list) for each in self(epoch)):
            kept["lengths"] = torch.tensor([*map(len, batches)], dtype=torch.int32)
        return kept

    def hold(self, epoch: int, kept: Any, *, crc32: int) -> bool:
        """Go on in an epoch with what was drawn for it; returns whether what was `kept` is that."""
        if not isinstance(kept, dict) or not all(isinstance(each, torch.Tensor) for each in kept.values()):
            return False
        indices = kept["indices"].tolist()
        if "lengths" in kept:
            flat = iter(indices)
            indices = [[*islice(flat, length)] for length in kept["lengths"].tolist()]
        if zlib.crc32(repr(indices).encode()) != crc32:
            return False
        self._indices, self._epoch = indices, epoch
        return True

    def _draw(self, epoch: int) -> list[Any]:
        with preserved():
            number = seed_for_sample(self.seed, epoch, -1)
            seed_all(number)
            for path, generator in random_holders(self.sampler):
                begin(generator, hashlib.sha256(f"{number}:{path}".encode()).digest())
            for thing in _inside(self.sampler):
                if callable(set_epoch := getattr(thing, "set_epoch", None)):
                    set_epoch(epoch)
            most = self.size or LONGEST
            indices = list(islice(self.sampler, most + 1))
        if len(indices) > most:
            self._refuse(
                f"in epoch {epoch} it gives more than {most} indices and perhaps never ends",
                do="Give the data set itself, with shuffle=True or shuffle='stream', or a sampler that ends.",
            )
        if not indices:
            self._refuse(f"in epoch {epoch} it gives no index", do="Look at what it is made of.")
        return indices

    def _refuse(self, what: str, *, do: str) -> None:
        raise UsageError(f"run.batches: sampler {type(self.sampler).__name__}", what, do=do)


def _length(sampler: Any) -> int:
    try:
        return len(sampler)
    except (TypeError, NotImplementedError):
        return 0


def _inside(sampler: Any) -> list[Any]:
    """The sampler and what it is made of."""
    found, layer = [sampler], [sampler]
    for _ in range(DEEPEST):
        held = [item for thing in layer for name, item in attributes(thing) if name not in DATA]
        layer = [item for item in held if not isinstance(item, torch.Tensor | np.ndarray | str | list | tuple | dict)]
        found += layer
    return found
