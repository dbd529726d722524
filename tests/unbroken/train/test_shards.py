"""What the shards of a step add up to: the step over its samples, and what one process says for all."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest
import torch
from torch import nn

from unbroken.errors import DamagedFile
from unbroken.train.data.batching import Batching
from unbroken.train.data.feed import Feed
from unbroken.train.data.loader import load
from unbroken.train.data.order import Order
from unbroken.train.data.sharing import sharing_of
from unbroken.train.distributed.agreement import means
from unbroken.train.distributed.shards import Shards
from unbroken.train.distributed.world import World

BATCH = torch.tensor([[1.0, 2.0], [3.0, 5.0], [8.0, 13.0], [21.0, 34.0], [55.0, 89.0]], dtype=torch.float64)


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[World], Any], int], list[Any]]:
    """What each rank of so many gives, as they meet over Gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setitem(os.environ, "MASTER_PORT", str(free.getsockname()[1]))
    monkeypatch.setitem(os.environ, "MASTER_ADDR", "127.0.0.1")

    def ask(what: Callable[[World], Any], size: int) -> list[Any]:
        worlds = [World(rank, size) for rank in range(size)]
        with ThreadPoolExecutor(size) as pool:
            said = list(pool.map(what, worlds))
        for world in reversed(worlds):
            world.close()
        return said

    return ask


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_shard_weighs_as_many_of_its_samples_as_it_has_also_in_a_short_last_batch(size: int) -> None:
    dataset = list(range(10))
    found = list[list[tuple[int, float]]]()
    for rank in range(size):
        sharing = sharing_of(rank, size, 4)
        loaded = load(dataset, Order(size=10, seed=1), 0, batch_size=7, workers=0, sharing=sharing)
        shards = list(islice(loaded, 2 * len(sharing.mine)))
        found.append([(len(each.batch), each.weight) for each in shards])
    turns = 4 // size
    first, last = ([each for of_rank in found for each in of_rank[at : at + turns]] for at in (0, turns))
    assert [weight for _, weight in first] == [1 / 7, 2 / 7, 2 / 7, 2 / 7]
    assert [weight for _, weight in last] == [0.0, 1 / 3, 1 / 3, 1 / 3]  # of the first, another one's sample is read
    assert [count for count, _ in (*first, *last)] == [1, 2, 2, 2, 1, 1, 1, 1]


class Numbers:
    """Ten numbers, of which two cannot be read."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> float:
        if index in (1, 5):
            raise DamagedFile(f"frame {index}", "it is truncated")
        return float(index)


def test_a_shard_weighs_what_could_be_read_of_it_among_what_could_be_read_of_its_batch() -> None:
    order = Order(size=10, seed=1, shuffle="none")
    sharing = sharing_of(0, 1, 3)
    feed = Feed(dataset=Numbers(), order=order, batching=Batching(batch_size=5), on_bad="skip", sharing=sharing)
    shards = [(found, feed.position) for found, _ in (feed.next() for _ in range(6))]
    assert [found.weight for found, _ in shards] == [1 / 4, 1 / 4, 2 / 4, 0.0, 2 / 4, 2 / 4]
    assert [found.batch.tolist() for found, _ in shards] == [[0], [2], [3, 4], [6], [6, 7], [8, 9]]
    assert [sample for found, _ in shards for _, sample in found.keys] == [0, 2, 3, 4, 6, 7, 8, 9]
    assert [position for _, position in shards] == [0, 0, 5, 5, 5, 10]


def added_up(world: World) -> tuple[list[torch.Tensor], dict[str, float]]:
    """The gradients and running statistics of a step over three shards of 1, 2 and 2 samples, and its mean loss."""
    model = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(model.weight)
    mean = torch.zeros(2, dtype=torch.float64)
    sharing = sharing_of(world.rank, world.size, 3)
    shards = Shards(world, sharing, [*model.parameters()], [mean])
    for turn, number in enumerate(sharing.mine):
        part = torch.stack([*sharing.part(list(BATCH), number)])  # type: ignore[arg-type]  # samples, as keys are
        with shards.computing(turn) as shard:
            weight = len(part) / len(BATCH)
            shard.weight += weight
            mean += part.mean(dim=0)
            loss = model(part).square().mean()
            (loss * weight).backward()
            shard.values["loss"] = loss.item() * weight
    values = shards.add_up()
    [gradient] = [each.grad for each in model.parameters()]
    assert gradient is not None
    return [gradient, mean], values


@pytest.mark.parametrize("size", [1, 3])
def test_shards_of_unequal_size_add_up_to_the_step_over_all_their_samples(together: Any, size: int) -> None:
    whole = nn.Linear(2, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(whole.weight)
    expected = whole(BATCH).square().mean()
    expected.backward()
    assert whole.weight.grad is not None
    for (gradient, mean), values in together(added_up, size):
        torch.testing.assert_close(gradient, whole.weight.grad)
        torch.testing.assert_close(mean, BATCH.mean(dim=0))
        assert values["loss"] == pytest.approx(expected.item())


def test_what_processes_logged_is_weighed_by_their_samples_micro_batch_by_micro_batch() -> None:
    rows = [([0.25, 0.5], {"loss": [1.0, 2.0], "lr": [0.1]}), ([0.75, 0.5], {"loss": [3.0, 4.0], "lr": [0.1]})]
    assert means(rows) == {"loss": [2.5, 3.0], "lr": [0.1]}


def test_the_reason_of_the_lowest_rank_that_has_one_is_that_of_all(together: Any) -> None:
    reasons = [None, "SIGTERM", "the deadline", None]
    assert together(lambda world: world.agree(reasons[world.rank]), 4) == ["SIGTERM"] * 4
    assert together(lambda world: world.agree(None), 2) == [None, None]
