"""Batches are the same from any number of workers, and loading leaves no trace."""

from __future__ import annotations

import random
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch

from unbroken.errors import UsageError
from unbroken.train import one_pass, preserved
from unbroken.train.data import rng
from unbroken.train.data.loader import load, size_of
from unbroken.train.data.order import Order


class FromGlobalStreams(torch.utils.data.Dataset[Any]):
    """Draws from all three global streams, as augmentation code in the world does."""

    def __len__(self) -> int:
        return 11

    def __getitem__(self, index: int) -> tuple[int, float, float, float]:
        return index, random.random(), float(np.random.rand()), float(torch.rand(()))


class WithItsOwnStream:
    def __len__(self) -> int:
        return 11

    def sample(self, index: int, stream: np.random.Generator) -> np.ndarray:
        return np.array([index, stream.random(), stream.normal()])


def batches(dataset: Any, workers: int, *, position: int = 0, batch_size: int = 4, count: int = 7) -> list[Any]:
    loaded = load(dataset, Order(size=11, seed=8), position, batch_size=batch_size, workers=workers)
    return [
        (keys, reached, [part.tolist() for part in batch] if isinstance(batch, list) else batch.tolist())
        for keys, reached, batch, *_ in islice(loaded, count)
    ]


class CallsItsShareSample(FromGlobalStreams):
    sample = 0.5


class DrawsExamples(FromGlobalStreams):
    def sample(self, count: int, rng: Any = None) -> list[int]:
        raise AssertionError("this is the data set's own affair")


class PassesOn(FromGlobalStreams):
    def __getattr__(self, name: str) -> Any:
        return getattr(DrawsExamples(), name) if name == "sample" else object.__getattribute__(self, name)


class OfTorch(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """It inherits a `__getitem__` that gives nothing."""

    __len__, sample = WithItsOwnStream.__len__, WithItsOwnStream.sample


@pytest.mark.parametrize("dataset", [CallsItsShareSample(), DrawsExamples(), PassesOn()])
def test_what_an_indexed_data_set_calls_sample_is_its_own(dataset: Any) -> None:
    assert batches(dataset, 0) == batches(FromGlobalStreams(), 0)


def test_a_data_set_of_torch_that_cannot_be_indexed_is_read_by_sample() -> None:
    assert batches(OfTorch(), 0) == batches(WithItsOwnStream(), 0)


@pytest.mark.parametrize("dataset", [FromGlobalStreams(), WithItsOwnStream()], ids=lambda item: type(item).__name__)
def test_any_number_of_workers_gives_the_same_batches(dataset: Any) -> None:
    alone = batches(dataset, 0)
    assert batches(dataset, 2) == alone
    assert alone[0][2] != alone[3][2]


@pytest.mark.parametrize("dataset", [FromGlobalStreams(), WithItsOwnStream()], ids=lambda item: type(item).__name__)
def test_beginning_in_the_middle_gives_what_would_have_come(dataset: Any) -> None:
    whole = batches(dataset, 0)
    assert batches(dataset, 0, position=whole[2][1], count=4) == whole[3:]


def test_a_samples_augmentation_differs_between_epochs_and_not_with_the_batch_size() -> None:
    def by_key(batch_size: int) -> dict[Any, float]:
        found = {}
        for keys, _, parts in batches(FromGlobalStreams(), 0, batch_size=batch_size, count=30):
            found |= dict(zip(map(tuple, keys), parts[3]))
        return found

    one, four = by_key(1), by_key(4)
    shared = one.keys() & four.keys()
    assert len(shared) >= 22
    assert all(one[key] == four[key] for key in shared)
    assert all(one[0, sample] != one[1, sample] for sample in range(8) if (1, sample) in one)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_evaluation_draws_the_same_between_its_batches_with_any_number_of_workers(workers: int) -> None:
    def drawn() -> list[float]:
        return [random.random(), float(np.random.rand()), float(torch.rand(()))]

    with preserved():
        rng.seed_all(1)
        expected = [drawn() for _ in range(3)]
        rng.seed_all(1)
        threads = torch.get_num_threads()
        assert [drawn() for _ in one_pass(FromGlobalStreams(), batch_size=4, workers=workers)] == expected
        assert torch.get_num_threads() == threads


def test_a_data_set_that_cannot_be_indexed_is_refused_with_what_to_do() -> None:
    with pytest.raises(UsageError, match="can be indexed"):
        size_of(iter([1, 2, 3]))
    with pytest.raises(UsageError, match="empty"):
        size_of([])
    assert size_of(WithItsOwnStream()) == 11
