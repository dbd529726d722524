"""Random streams begin from a seed and a name."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from unbroken.train import preserved
from unbroken.train.data import rng


def draw() -> list[Any]:
    return [
        torch.rand(5).tolist(),
        torch.randn(3).tolist(),
        np.random.rand(3).tolist(),
        float(np.random.normal()),
        random.random(),
        random.gauss(0, 1),
    ]


@pytest.fixture(autouse=True)
def streams_of_others() -> Any:
    with preserved():
        yield


@pytest.mark.parametrize("warm_up", range(3))
def test_seeded_streams_begin_anew_with_no_half_used_pair_of_normals(warm_up: int) -> None:
    rng.seed_streams(rng.seed_for(3, "step", 5, 0))
    expected = draw()
    for _ in range(warm_up):
        np.random.normal(), random.gauss(0, 1), torch.randn(1)
    rng.seed_streams(rng.seed_for(3, "step", 5, 0))
    assert draw() == expected
    rng.seed_streams(rng.seed_for(3, "step", 5, 1))
    assert draw() != expected


def test_what_is_drawn_inside_preserved_leaves_no_trace_not_even_after_an_error() -> None:
    rng.seed_all(5)
    expected = draw()
    rng.seed_all(5)
    with preserved():
        draw()
    with pytest.raises(ZeroDivisionError), preserved():
        draw()
        _ = 1 / 0
    assert draw() == expected


def test_seeding_makes_every_stream_begin_again() -> None:
    rng.seed_all(2**40 + 7)
    first = draw()
    rng.seed_all(2**40 + 7)
    assert draw() == first


def test_samples_have_streams_of_their_own_that_depend_on_nothing_else() -> None:
    numbers = {
        rng.seed_for_sample(seed, epoch, sample) for seed in range(5) for epoch in range(20) for sample in range(20)
    }
    assert len(numbers) == 2000
    assert all(0 <= number < 2**63 for number in numbers)
    draw()
    first = rng.generator_for_sample(1, 2, 3).random(4).tolist()
    draw()
    assert rng.generator_for_sample(1, 2, 3).random(4).tolist() == first
    assert rng.generator_for_sample(1, 2, 4).random(4).tolist() != first


def test_neighbouring_seeds_share_nothing() -> None:
    """seed 1, epoch 11 is not seed 11, epoch 1."""
    assert rng.seed_for_sample(1, 11, 0) != rng.seed_for_sample(11, 1, 0)
    assert rng.seed_for_sample(0, 1, -1) != rng.seed_for_sample(0, 1, 1)


@pytest.mark.parametrize(
    "draws",
    [
        random.random,
        lambda: random.gauss(0, 1),
        lambda: [random.getrandbits(32) for _ in range(624)],  # as many words as there are: the place is the same again
        np.random.rand,
        np.random.randn,
        lambda: np.random.randint(0, 2**32, 624, dtype=np.uint32),
        lambda: torch.rand(1),
        lambda: torch.randperm(3),
        lambda: torch.empty(624, dtype=torch.int32).random_(),
    ],
)
def test_a_stream_that_was_drawn_from_is_told_from_one_that_stands_at_its_beginning(
    draws: Callable[[], object],
) -> None:
    for stream in rng.CPU_STREAMS:
        stream.watch(77)
    assert [stream.is_drawn() for stream in rng.CPU_STREAMS] == [False] * 3
    draws()
    assert sum(stream.is_drawn() for stream in rng.CPU_STREAMS) == 1


@pytest.mark.parametrize("before", ["nothing", "it was watched", "it was watched and drawn", "another was watched"])
def test_streams_begin_where_their_libraries_begin_them_whatever_was_seen_of_them_before(before: str) -> None:
    number = rng.seed_for(3, "step", 5, 0)
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.manual_seed(number)
    expected = draw()
    if before != "nothing":
        for stream in rng.CPU_STREAMS:
            stream.watch(number if before.startswith("it") else 1)
    if before == "it was watched and drawn":
        draw()
    rng.seed_streams(number)
    assert draw() == expected
