"""The data side of a run: one data set's micro-batches from the exact position on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from unbroken.train.loader import Collate, Loaded, load, size_of
from unbroken.train.order import Order, steps_in_epoch
from unbroken.train.progress import Progress

Shuffle = Literal["epoch", "stream", "none"]


@dataclass(kw_only=True)
class Feed:
    """Workers run ahead of `position`, which counts only what was handed out; they live as long as the feed."""

    dataset: Any
    order: Order
    batch_size: int
    workers: int
    collate: Collate | None
    pin_memory: bool
    position: int = 0
    _loaded: Iterator[Loaded] | None = field(default=None, repr=False)

    def next(self) -> tuple[list[int], Any]:
        """The next micro-batch: its samples' indices, and what the loader made of them."""
        if self._loaded is None:
            self._loaded = load(
                self.dataset,
                self.order,
                self.position,
                batch_size=self.batch_size,
                workers=self.workers,
                collate=self.collate,
                pin_memory=self.pin_memory,
            )
        keys, self.position, batch = next(self._loaded)
        return [sample for _, sample in keys], batch

    def micro_batches(self, epochs: int) -> int:
        """How many micro-batches so many epochs have."""
        return epochs * steps_in_epoch(self.order, batch_size=self.batch_size)

    def continue_from(self, progress: Progress, *, own: bool) -> str | None:
        """Take the position of a run over; returns what to say if the data is not what it was.

        A file of another program (`own` False) counted steps only; its samples are counted from these.
        """
        size, before = self.order.size, progress.dataset_size
        fingerprint = self.dataset.fingerprint() if hasattr(self.dataset, "fingerprint") else ""
        said = None
        if not own:
            progress.position = progress.step * self.batch_size
            said = f"data position taken from the step: {progress.position} samples were used"
        elif before and before != size:
            said = (
                f"the data set had {before} samples and now has {size}: epoch {progress.epoch} is not continued, "
                f"epoch {progress.epoch + 1} begins"
            )
            progress.position = (progress.epoch + 1) * size
        elif progress.fingerprint and fingerprint and progress.fingerprint != fingerprint:
            said = "the files of the data set are not those the run was trained on: exactness starts anew here"
        progress.dataset_size, progress.fingerprint = size, fingerprint
        self.position = progress.position
        return said


def feed_of(
    dataset: Any,
    *,
    seed: int,
    batch_size: int,
    workers: int,
    shuffle: bool | Shuffle,
    drop_last: bool,
    collate: Collate | None,
    pin_memory: bool,
) -> Feed:
    """A feed from what a loop says about its data; raises UsageError for a data set that cannot be indexed."""
    kind: Shuffle = ("epoch" if shuffle else "none") if isinstance(shuffle, bool) else shuffle
    order = Order(size=size_of(dataset), seed=seed, shuffle=kind, drop_last=drop_last)
    return Feed(
        dataset=dataset,
        order=order,
        batch_size=batch_size,
        workers=workers,
        collate=collate,
        pin_memory=pin_memory,
    )
