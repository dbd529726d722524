"""Which sample comes at which position."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice, pairwise
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken.train.data.feed import Feed, FeedOptions, feed_of
from unbroken.train.data.keyed_permutation import KeyedPermutation
from unbroken.train.data.order import LARGE, Key, Order, Permutations, micro_batches, steps_in_epoch
from unbroken.train.progress import Progress

Shuffle = Literal["epoch", "stream", "none"]


def keys(order: Order, position: int, count: int, *, batch_size: int = 1) -> list[Key]:
    batches = islice(micro_batches(order, position, batch_size=batch_size), count)
    return [key for batch, _ in batches for key in batch]


def test_the_stream_is_the_order_of_mmengines_infinite_sampler() -> None:
    order = Order(size=5, seed=0, shuffle="stream")
    assert [sample for _, sample in keys(order, 0, 15)] == [4, 0, 1, 3, 2, 3, 4, 0, 1, 2, 2, 4, 1, 3, 0]


def test_without_shuffling_the_order_is_that_of_the_data_set() -> None:
    assert keys(Order(size=3, seed=9, shuffle="none"), 0, 4) == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_epochs_are_shuffled_differently_and_reproducibly() -> None:
    order = Order(size=50, seed=3)
    epochs = [Permutations(order).of(epoch) for epoch in range(4)]
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert epochs == [Permutations(Order(size=50, seed=3)).of(epoch) for epoch in range(4)]
    assert epochs[0] != Permutations(Order(size=50, seed=4)).of(0)


@pytest.mark.parametrize("shuffle", ["epoch", "stream", "none"])
def test_permutations_may_be_asked_for_in_any_sequence(shuffle: Shuffle) -> None:
    print("seed 5")
    order = Order(size=13, seed=2, shuffle=shuffle)
    straight = Permutations(order)
    expected = [straight.of(epoch) for epoch in range(12)]
    jumping, chance = Permutations(order), random.Random(5)
    for epoch in [chance.randrange(12) for _ in range(60)]:
        assert jumping.of(epoch) == expected[epoch]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    size=st.integers(1, 40),
    batch_size=st.integers(1, 9),
    shuffle=st.sampled_from(["epoch", "stream", "none"]),
    seed=st.integers(0, 2**31),
)
def test_each_sample_is_used_once_per_epoch_for_any_batch_size(
    size: int, batch_size: int, shuffle: Shuffle, seed: int
) -> None:
    order = Order(size=size, seed=seed, shuffle=shuffle)
    used: list[Key] = []
    source = micro_batches(order, 0, batch_size=batch_size)
    while len(used) < 3 * size:
        used += next(source)[0]
    for epoch in range(3):
        assert sorted(sample for place, sample in used if place == epoch) == list(range(size))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    size=st.integers(1, 30),
    batch_size=st.integers(1, 8),
    steps=st.integers(0, 40),
    shuffle=st.sampled_from(["epoch", "stream", "none"]),
    drop_last=st.booleans(),
)
def test_skipping_to_a_position_is_walking_there(
    size: int, batch_size: int, steps: int, shuffle: Shuffle, drop_last: bool
) -> None:
    order = Order(size=size, seed=1, shuffle=shuffle, drop_last=drop_last and batch_size <= size)
    walked = list(islice(micro_batches(order, 0, batch_size=batch_size), steps + 5))
    position = walked[steps - 1][1] if steps else 0
    assert list(islice(micro_batches(order, position, batch_size=batch_size), 5)) == walked[steps:]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(size=st.integers(1, 30), sizes=st.lists(st.integers(1, 8), min_size=1, max_size=6))
def test_changing_the_batch_size_on_the_way_neither_repeats_nor_skips_a_sample(size: int, sizes: list[int]) -> None:
    order, position, used = Order(size=size, seed=4), 0, []
    for batch_size in sizes:
        for batch, reached in list(islice(micro_batches(order, position, batch_size=batch_size), 3)):
            used, position = used + batch, reached
    assert used == keys(order, 0, len(used))
    assert position == len(used)


def test_a_batch_straddles_epochs_only_in_a_stream() -> None:
    for shuffle, lengths in (("stream", [4, 4, 4]), ("epoch", [4, 1, 4]), ("none", [4, 1, 4])):
        order = Order(size=5, seed=0, shuffle=shuffle)  # type: ignore[arg-type]
        assert [len(batch) for batch, _ in islice(micro_batches(order, 0, batch_size=4), 3)] == lengths


def test_what_is_dropped_at_the_end_of_an_epoch_is_passed_with_its_last_batch() -> None:
    order = Order(size=10, seed=0, drop_last=True)
    walked = list(islice(micro_batches(order, 0, batch_size=4), 4))
    assert [position for _, position in walked] == [4, 10, 14, 20]
    assert [{epoch for epoch, _ in batch} for batch, _ in walked] == [{0}, {0}, {1}, {1}]


@pytest.mark.parametrize(("size", "batch_size", "kept", "dropped"), [(10, 4, 3, 2), (8, 4, 2, 2), (3, 4, 1, 0)])
def test_an_epoch_has_as_many_batches_as_it_says(size: int, batch_size: int, kept: int, dropped: int) -> None:
    assert steps_in_epoch(Order(size=size, seed=0), batch_size=batch_size) == kept
    assert steps_in_epoch(Order(size=size, seed=0, drop_last=True), batch_size=batch_size) == dropped


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 64, 1000, 4097])
def test_a_keyed_permutation_has_each_number_once_and_gives_any_part_alone(size: int) -> None:
    whole = KeyedPermutation(size, 3)
    assert sorted(whole[:]) == list(range(size)) and len(whole) == size
    assert [whole[place] for place in range(size)] == whole[:]
    assert whole[size // 3 : size : 2] == whole[:][size // 3 : size : 2]
    assert whole[:] == KeyedPermutation(size, 3)[:] and (size < 5 or whole[:] != KeyedPermutation(size, 4)[:])


def test_a_keyed_permutation_looks_drawn() -> None:
    """Neighbours end far apart, and each tenth of the places gets about a tenth of each tenth of the numbers."""
    size, seed = 100_000, 12
    print("seed", seed)
    whole = KeyedPermutation(size, seed)[:]
    apart = sum(abs(one - other) for one, other in pairwise(whole)) / size
    assert abs(apart / (size / 3) - 1) < 0.02
    table = Counter((10 * place // size, 10 * number // size) for place, number in enumerate(whole))
    assert len(table) == 100 and all(abs(count - 1000) < 150 for count in table.values())


def test_the_keyed_permutation_is_for_ever() -> None:
    """Runs go on with it: another algorithm needs another name in their records."""
    assert KeyedPermutation(10**9, 1)[:4] == [45854697, 349353949, 203524301, 731683303]


@pytest.mark.parametrize("shuffle", ["epoch", "stream"])
def test_an_order_of_a_billion_samples_begins_anywhere_at_once(shuffle: Shuffle) -> None:
    order = Order(size=10**9, seed=2, shuffle=shuffle, keyed=True)
    found = keys(order, 3 * 10**9 - 6, 3, batch_size=4)
    assert [epoch for epoch, _ in found] == ([2] * 6 + [3] * 6 if shuffle == "stream" else [2] * 6 + [3] * 4)
    assert len({sample for _, sample in found}) == len(found) and keys(order, 5, 1, batch_size=4) != keys(order, 9, 1)


@pytest.mark.parametrize(
    ("size", "before", "keyed"),
    [
        (LARGE, Progress(), True),
        (LARGE - 1, Progress(), False),
        (LARGE, Progress(dataset_size=LARGE, position=5), False),  # of a version that knew no keyed ones
        (LARGE, Progress(dataset_size=LARGE, position=5, order={"shuffle": "epoch", "keyed": False}), False),
        (LARGE, Progress(dataset_size=LARGE, position=5, order={"shuffle": "epoch", "keyed": True}), True),
        (LARGE, Progress(dataset_size=LARGE, position=5, order={"shuffle": "none", "keyed": False}), True),
        (LARGE, Progress(dataset_size=9, position=5, order={"shuffle": "epoch", "keyed": False}), True),
        (LARGE - 1, Progress(dataset_size=LARGE, position=5, order={"shuffle": "epoch", "keyed": True}), False),
    ],
)
def test_a_run_keeps_the_kind_of_permutation_that_it_has(size: int, before: Progress, keyed: bool) -> None:
    for said, expected in (({}, keyed), ({"shuffle": False}, False)):
        feed = feed_of(range(size), {"batch_size": 4, **said}, FeedOptions(seed=1), progress=before)
        assert isinstance(feed, Feed) and feed.order.keyed == expected
