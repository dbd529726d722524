"""Which process computes which samples, up to a thousand processes that come and go."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken.errors import UsageError
from unbroken.train.data.order import Key, Order, micro_batches
from unbroken.train.data.sharing import Sharing, sharing_of


@settings(max_examples=150, deadline=None, derandomize=True)
@given(samples=st.integers(1, 70), size=st.integers(1, 12), each=st.integers(1, 4))
def test_the_shards_of_a_micro_batch_are_its_samples_in_their_order(samples: int, size: int, each: int) -> None:
    keys: list[Key] = [(0, sample) for sample in range(samples)]
    everyone = [sharing_of(rank, size, size * each) for rank in range(size)]
    parts = [sharing.part(keys, shard) for sharing in everyone for shard in sharing.mine]
    assert [key for part in parts for key in part] == keys
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@settings(max_examples=150, deadline=None, derandomize=True)
@given(shards=st.integers(1, 24), micro_batches=st.integers(1, 5))
def test_what_is_drawn_for_a_shard_is_named_alike_by_any_number_of_processes(shards: int, micro_batches: int) -> None:
    alone = sharing_of(0, 1, shards)
    names = {alone.number(turn): divmod(turn, shards) for turn in range(micro_batches * shards)}
    assert sorted(names) == list(range(micro_batches * shards))
    for size in (number for number in range(1, shards + 1) if shards % number == 0):
        for rank in range(size):
            sharing = sharing_of(rank, size, shards)
            for turn in range(micro_batches * len(sharing.mine)):
                micro_batch, place = divmod(turn, len(sharing.mine))
                assert names[sharing.number(turn)] == (micro_batch, sharing.mine[place])


def test_shards_that_cannot_be_dealt_out_evenly_are_refused_with_the_numbers_that_can() -> None:
    with pytest.raises(UsageError, match=r"divides 12: 1, 2, 3, 4, 6, 12"):
        sharing_of(0, 5, 12)


def test_without_shards_of_its_own_a_run_has_one_for_each_process() -> None:
    assert sharing_of(2, 7) == Sharing(shards=7, mine=range(2, 3))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_thousand_processes_that_are_killed_and_come_back_as_others_use_each_sample_once(seed: int) -> None:
    """Between two saves any number of steps is lost; the next session has any number of processes."""
    print("seed", seed)
    chance = random.Random(seed)
    size, batch = 200_000, 2_048
    order = Order(size=size, seed=seed)
    used = list[list[Key]]()  # the micro-batches, as the last save knows them
    while (position := sum(map(len, used))) < 2 * size:
        world = chance.choice([1, 2, 3, 8, 64, 100, 512, 1_000, 1_024])
        everyone = [sharing_of(rank, world) for rank in range(world)]
        session = list[list[Key]]()
        for keys, reached in islice(micro_batches(order, position, batch_size=batch), chance.randint(1, 40)):
            session.append([key for sharing in everyone for key in sharing.part(keys, sharing.mine[0])])
            if reached >= 2 * size:
                break
        killed = chance.random() < 0.6 and reached < 2 * size  # what was done since the last save is done again
        used += session[: chance.randint(0, len(session))] if killed else session
    times = Counter(key for keys in used for key in keys)
    assert len(times) == 2 * size
    assert set(times.values()) == {1}
