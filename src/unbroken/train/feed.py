"""The data side of a run: one data set's micro-batches from the exact position on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from unbroken.errors import DamagedFile, UnbrokenError
from unbroken.train.loader import BadSample, Collate, Loaded, OnBad, load, size_of
from unbroken.train.order import Key, Order, Permutations, micro_batches, steps_in_epoch, steps_left
from unbroken.train.progress import Progress
from unbroken.train.takeover import Foreign, place_in_data

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
    on_bad: OnBad = "stop"
    position: int = 0
    excluded: frozenset[Key] = frozenset()  # left out as if they could not be read; set before the first is read
    _loaded: Iterator[Loaded] | None = field(default=None, repr=False)
    _failed: UnbrokenError | None = field(default=None, repr=False)  # what reading ahead met
    _ahead: Loaded | None = field(default=None, repr=False)
    _permutations: Permutations | None = field(default=None, repr=False)

    @property
    def at_end_of_epoch(self) -> bool:
        """Whether what was handed out last ends an epoch, and batches do."""
        return not self.order.straddles and self.position > 0 and self.position % self.order.size == 0

    def next(self) -> tuple[Loaded, tuple[BadSample, ...]]:
        """The next micro-batch that has samples, and all that was left out on the way past it.

        Batches of which nothing can be read are passed over right after the one before them, so that the position
        is at the end of an epoch once its last readable sample was used.
        """
        failed, self._failed = self._failed, None
        if failed is not None:
            raise failed
        found, self._ahead = self._ahead or self._pull(), None
        bad = list(found.bad)
        while not found.keys:
            found = self._pull()
            bad += found.bad
            self._require_some_readable(bad)
        self.position = found.position
        if self.on_bad == "skip" or self.excluded:
            try:
                self._look_ahead(bad)
            except UnbrokenError as error:
                self._failed = error  # that is the next batch's affair
        return found, tuple(bad)

    def _look_ahead(self, bad: list[BadSample]) -> None:
        """Pass over what cannot be read, as far as this epoch goes."""
        self._ahead = self._pull()
        while not self._ahead.keys and not self.at_end_of_epoch:
            bad += self._ahead.bad
            self.position = self._ahead.position
            self._ahead = self._pull()

    def _require_some_readable(self, bad: list[BadSample]) -> None:
        if len(bad) >= self.order.size:
            raise DamagedFile("data set", f"not one of its {self.order.size} samples can be read", found=bad[0].reason)

    def _pull(self) -> Loaded:
        if self._loaded is None:
            self._loaded = load(
                self.dataset,
                self.order,
                self.position,
                batch_size=self.batch_size,
                workers=self.workers,
                collate=self.collate,
                pin_memory=self.pin_memory,
                on_bad=self.on_bad,
                excluded=self.excluded,
            )
        return next(self._loaded)

    def coming(self, *, count: int) -> list[Key]:
        """The samples of the next `count` micro-batches, as the order has them; none is read for that."""
        self._permutations = self._permutations or Permutations(self.order)
        ahead = micro_batches(self.order, self.position, batch_size=self.batch_size, permutations=self._permutations)
        return [key for keys, _ in islice(ahead, count) for key in keys]

    def steps_left(self, epochs: int, *, accumulate: int) -> int:
        """Steps from here to the end of the last epoch."""
        return steps_left(self.order, self.position, epochs=epochs, batch_size=self.batch_size, accumulate=accumulate)

    def last_step(self, epochs: int | None, done: int, accumulate: int) -> int | None:
        """The step that ends the last epoch; None where the length is no number of epochs."""
        return None if epochs is None else done + self.steps_left(epochs, accumulate=accumulate)

    def micro_batches(self, epochs: int) -> int:
        """How many micro-batches so many epochs have."""
        return epochs * steps_in_epoch(self.order, batch_size=self.batch_size)

    def continue_from(self, progress: Progress, *, foreign: Foreign | None, accumulate: int) -> str | None:
        """Take the position of a run over; returns what to say if the data is not what it was.

        A `foreign` file, of another program, counted steps; its samples are counted from these.
        """
        size, before = self.order.size, progress.dataset_size
        fingerprint = self.dataset.fingerprint() if hasattr(self.dataset, "fingerprint") else ""
        said = None
        if foreign is not None:
            progress.position, said = place_in_data(
                foreign, self.order, batch_size=self.batch_size, accumulate=accumulate
            )
        elif before and before != size:
            epochs = -(-progress.position // before)  # the one that was begun counts as done
            said = (
                f"the data set had {before} samples and now has {size}: what was begun is not continued, "
                f"epoch {epochs + 1} begins"
            )
            progress.position = epochs * size
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
    on_bad: OnBad = "stop",
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
        on_bad=on_bad,
    )
