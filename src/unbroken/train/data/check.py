"""Reading every sample of a data set once, to find those that a training would fail on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from unbroken.errors import UnreadableSample, WorkersKilled
from unbroken.train.data.loader import BadSample, load, size_of
from unbroken.train.data.order import Order


@dataclass(kw_only=True)
class Checked:
    """What came of reading a whole data set.

    Args:
        samples: How many the data set has.
        bad: Those that cannot be read.
    """

    samples: int
    bad: list[BadSample] = field(default_factory=list)


def check_dataset(dataset: Any, *, workers: int, progress: Callable[[int], None] = lambda _read: None) -> Checked:
    """Read each sample once, as the first epoch would; a sample that cannot be read does not end it.

    Args:
        dataset: What has `__len__` and `__getitem__`, or `sample(index, rng)`.
        workers: Processes that read; 0: this one.
        progress: Told after each sample how many were read.
    Returns:
        The samples that cannot be read, with the reason; one over which three workers die is among them.
    Raises:
        UsageError: The data set has no samples with numbers.
    """
    found = Checked(samples=size_of(dataset))
    order, position = Order(size=found.samples, seed=0, shuffle="none"), 0
    while position < found.samples:
        batches = load(dataset, order, position, batch_size=1, workers=workers, collate=len, on_bad="list")
        try:
            for loaded in batches:
                found.bad += loaded.bad
                position = loaded.position
                progress(position)
                if position >= found.samples:
                    break
        except (UnreadableSample, WorkersKilled) as error:
            found.bad.append(BadSample(epoch=0, sample=position, reason=str(error)))
            position += 1
        finally:
            batches.close()
    return found
