"""Data sets that draw from the global streams now and then: each item is that of its name, whatever was read before."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import lru_cache
from itertools import islice
from operator import methodcaller
from typing import Any

import numpy as np
import pytest
import torch

from unbroken.train.data.loader import EXCLUDED, load
from unbroken.train.data.order import Order
from unbroken.train.data.rng import seed_cpu_streams, seed_for_sample

SIZE, SEED = 97, 20261130
look = methodcaller("getstate")  # nothing in the code that calls it tells that a stream is looked at
WORKERS = pytest.mark.parametrize("workers", [0, 2])


def of_python() -> float:
    return random.random()


def of_python_in_pairs() -> float:
    return random.gauss(0, 1)


def of_numpy() -> float:
    return float(np.random.normal())


def of_torch() -> float:
    return float(torch.rand(()))


def seeded_by_hand() -> float:
    random.seed(5)
    return random.random()


def from_the_seed_of_torch() -> float:
    return float(np.random.default_rng(torch.initial_seed()).random())


def put_back() -> float:
    state = np.random.get_state()
    number = float(np.random.random())
    np.random.set_state(state)
    with torch.random.fork_rng(devices=()):
        return number + float(torch.rand(()))


def shuffled() -> float:
    numbers = [*range(9)]
    random.shuffle(numbers)
    return float(numbers[0] + 10 * np.random.permutation(9)[0])


WAYS = [of_python, of_python_in_pairs, of_numpy, of_torch, seeded_by_hand, from_the_seed_of_torch, put_back, shuffled]
SOME: dict[str, Callable[[int], bool]] = {
    "each": lambda _index: True,
    "every 7th": lambda index: index % 7 == 3,
    "one": lambda index: index == 61,
    "some by chance": lambda index: random.Random(index).random() < 0.1,
    "late ones": lambda index: index > 90,
}


class Now(torch.utils.data.Dataset[list[float]]):
    """Draws for some samples, in one way."""

    def __init__(self, draw: Callable[[], float], some: Callable[[int], bool]) -> None:
        self.draw, self.some = draw, some

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> list[float]:
        return [float(index), *((self.draw(), self.draw(), self.draw()) if self.some(index) else (0.0, 0.0, 0.0))]


def by_name(dataset: Any, epoch: int, sample: int) -> list[float]:
    """The item as it is when nothing else was ever read."""
    seed_cpu_streams(seed_for_sample(SEED, epoch, sample))
    item: list[float] = dataset[sample]
    return item


def read(dataset: Any, workers: int, *, batch_size: int, position: int = 0, count: int = 40, **more: Any) -> list[Any]:
    """Pairs of key and item, from the position on."""
    more = {"collate": list, **more}
    loads = load(dataset, Order(size=SIZE, seed=SEED), position, batch_size=batch_size, workers=workers, **more)
    return [pair for loaded in islice(loads, count) for pair in zip(loaded.keys, loaded.batch)]


@pytest.mark.parametrize("some", SOME)
@pytest.mark.parametrize("draw", WAYS, ids=lambda way: way.__name__)
def test_an_item_is_that_of_its_name_whatever_was_read_before(draw: Callable[[], float], some: str) -> None:
    dataset = Now(draw, SOME[some])
    for batch_size, position in ((1, 0), (8, 5), (16, 30), (97, 0)):
        found = read(dataset, 0, batch_size=batch_size, position=position, count=-(-200 // batch_size))
        assert len({epoch for (epoch, _), _ in found}) > 1
        assert [item for _, item in found] == [by_name(dataset, *key) for key, _ in found]


@pytest.mark.parametrize("some", ["every 7th", "late ones"])
def test_workers_read_the_same(some: str) -> None:
    for draw in (of_python, of_numpy, of_torch):
        dataset = Now(draw, SOME[some])
        assert read(dataset, 2, batch_size=5) == read(dataset, 0, batch_size=5)
        assert read(dataset, 2, batch_size=5, position=50) == read(dataset, 0, batch_size=5, position=50)


class Remembering(Now):
    """Each item is loaded once, and remembered by a function."""

    def __init__(self, draw: Callable[[], float], draws: Callable[[int], bool]) -> None:
        super().__init__(draw, draws)
        self.loads = 0
        self.load = lru_cache(maxsize=None)(self.loaded)

    def loaded(self, index: int) -> list[float]:
        self.loads += 1
        return super().__getitem__(index)

    def __getitem__(self, index: int) -> list[float]:
        return self.load(index)


@pytest.mark.parametrize("some", ["each", "every 7th", "one", "late ones"])
@pytest.mark.parametrize("draw", [of_python, of_numpy, of_torch], ids=lambda way: way.__name__)
def test_what_is_remembered_of_a_sample_that_draws_is_drawn_anew_in_each_epoch(
    draw: Callable[[], float], some: str
) -> None:
    for batch_size in (5, 40):
        found = read(Remembering(draw, SOME[some]), 0, batch_size=batch_size, count=-(-290 // batch_size))
        assert [item for _, item in found] == [by_name(Now(draw, SOME[some]), *key) for key, _ in found]


def test_what_is_only_loaded_is_loaded_once() -> None:
    dataset = Remembering(of_python, lambda _index: False)
    assert len(read(dataset, 0, batch_size=16, count=21)) == 3 * SIZE
    assert dataset.loads == SIZE


@WORKERS
def test_a_collation_that_draws_begins_where_the_last_sample_ended(workers: int) -> None:
    for draw in (of_python, of_numpy, of_torch):
        for some in ("one", "every 7th"):
            dataset = Now(draw, SOME[some])

            def mixed(items: list[list[float]], draw: Callable[[], float] = draw) -> list[list[float]]:
                return [[*item, draw()] for item in items]

            found = read(dataset, workers, batch_size=8, collate=mixed)
            for at in range(0, len(found) - 8, 8):
                part = found[at : at + 8]
                if part[0][0][0] != part[-1][0][0]:
                    break  # the last batch of an epoch is smaller
                by_name(dataset, *part[-1][0])
                assert [item[-1] for _, item in part] == [draw() for _ in part]


@WORKERS
def test_samples_that_fail_by_chance_fail_under_their_names(workers: int) -> None:
    class Frail(Now):
        def __getitem__(self, index: int) -> list[float]:
            if index > 60 and random.random() < 0.5:
                raise ValueError("no luck")
            return super().__getitem__(index)

    dataset = Frail(of_torch, SOME["each"])

    def fails(key: tuple[int, int]) -> bool:
        try:
            by_name(dataset, *key)
        except ValueError:
            return True
        return False

    excluded = frozenset([(0, 62), (1, 70)])
    loads = load(
        dataset,
        Order(size=SIZE, seed=SEED),
        0,
        batch_size=8,
        workers=workers,
        collate=list,
        on_bad="skip",
        excluded=excluded,
    )
    for loaded in islice(loads, 24):
        for bad in loaded.bad:
            assert bad.reason == EXCLUDED if (bad.epoch, bad.sample) in excluded else fails((bad.epoch, bad.sample))
        assert not any(map(fails, loaded.keys))
        assert list(loaded.batch or []) == [by_name(dataset, *key) for key in loaded.keys]


@pytest.mark.parametrize("draw", [of_python, of_numpy], ids=lambda way: way.__name__)
def test_a_data_set_that_draws_from_the_beginning_is_asked_once_for_each_item(draw: Callable[[], float]) -> None:
    class Counting(Now):
        reads = 0

        def __getitem__(self, index: int) -> list[float]:
            self.reads += 1
            return super().__getitem__(index)

    for some, again in (("each", 0), ("every 7th", 8)):
        dataset = Counting(draw, SOME[some])
        assert len(read(dataset, 0, batch_size=8, count=12)) == 96
        assert dataset.reads in (96, 96 + again)


def test_a_data_set_that_draws_nothing_is_read_without_seeding_all_three() -> None:
    class Watching(Now):
        def __init__(self) -> None:
            super().__init__(of_python, lambda _index: False)
            self.states: list[Any] = []

        def __getitem__(self, index: int) -> list[float]:
            self.states.append(look(random._inst))
            return super().__getitem__(index)

    dataset = Watching()
    assert len(read(dataset, 0, batch_size=8, count=3)) == 24
    assert len(set(dataset.states[:8])) == 8
    assert len(set(dataset.states[8:])) == 1
