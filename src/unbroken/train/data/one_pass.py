"""A data set once from its beginning to its end, as a validation reads it; several processes share it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from unbroken.train.data.loader import BadSample, Collate, OnBad, load, size_of
from unbroken.train.data.order import Order
from unbroken.train.data.rng import preserved


def one_pass(
    dataset: Any,
    *,
    batch_size: int,
    workers: int,
    collate: Collate | None = None,
    seed: int = 0,
    skipped: Callable[[BadSample], None] | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Any]:
    """Yield every sample once, in the data set's order, as validation reads it; or this process's share of the batches.

    Args:
        dataset: What has `__len__` and `__getitem__`, or `sample(index, rng)`.
        batch_size: Samples of a batch; the last one may be smaller.
        workers: Processes that read; 0: this one. The batches are the same with any number.
        collate: Makes a batch of a list of samples; None: as torch does.
        seed: What a data set's own randomness begins from: the same in each pass.
        skipped: Told of each sample that cannot be read, which is then left out; None: it ends the pass.
        share: Which of how many shares to read, (rank, world size): they follow each other, and hold whole batches.
    Yields:
        What `collate` makes.
    Raises:
        UsageError: The data set has no samples with numbers.
        UnreadableSample: A sample cannot be read, and there is no `skipped`.
        WorkersKilled: Loader workers were killed three times over the same samples.
    Example:
        for x, y in one_pass(data, batch_size=16, workers=0):
            assert x.shape == (16, 3)
    """
    size = size_of(dataset)
    order = Order(size=size, seed=seed, shuffle="none")
    on_bad: OnBad = "stop" if skipped is None else "skip"
    rank, shares = share
    batches = -(-size // batch_size)
    begin, end = (min(batches * each // shares * batch_size, size) for each in (rank, rank + 1))
    if begin == end:
        return
    loads = load(dataset, order, begin, batch_size=batch_size, workers=workers, collate=collate, on_bad=on_bad)
    while True:
        with preserved():  # what is drawn between the batches is the same with any number of workers
            loaded = next(loads)
        if skipped is not None:
            for bad in loaded.bad:
                skipped(bad)
        if loaded.keys:
            yield loaded.batch
        if loaded.position >= end:
            return
