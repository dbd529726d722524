"""A ready DataLoader: everything that says which batches come is taken over, what cannot be is refused by its name."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from tests.unbroken.train.sessions_of_loops import Loop, Net, cut, difference, said, steps, train
from unbroken.train import TrainingRun

SIZE = 24


class Noisy(Dataset[torch.Tensor]):
    """Each item is drawn anew."""

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> torch.Tensor:
        return index + torch.rand(1) + np.random.rand() + 0.0


class TellsEpoch(Noisy):
    """Its items depend on the epoch that it is told."""

    epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __getitem__(self, index: int) -> torch.Tensor:
        return super().__getitem__(index) + 100 * self.epoch


class Halves(Sampler[int]):
    """A sampler of one's own: another half of the data in each epoch, in an order of its own generator."""

    def __init__(self) -> None:
        self.rng, self.epoch = np.random.default_rng(), 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return SIZE // 2

    def __iter__(self) -> Iterator[int]:
        return iter((2 * self.rng.permutation(SIZE // 2) + self.epoch % 2).tolist())


class Buckets(Sampler[list[int]]):
    """Batches of unequal lengths, in another sequence in each epoch."""

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[list[int]]:
        cuts = [0, 1, 4, 9, 13, 20, SIZE]
        batches = [list(range(first, last)) for first, last in pairwise(cuts)]
        return iter([batches[place] for place in torch.randperm(6).tolist()])


def doubled(items: list[torch.Tensor]) -> torch.Tensor:
    return 2 * torch.stack(items)


def over(make: Callable[[], tuple[Any, dict[str, Any]]]) -> Loop:
    """A loop over a loader of this data set with these settings."""

    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net, (dataset, settings) = Net(run), make()
        for batch in run.batches(DataLoader(dataset, num_workers=workers, **settings), epochs=3):
            yield net.step(batch)

    return loop


def weighted() -> WeightedRandomSampler:
    return WeightedRandomSampler([float(1 + place % 3) for place in range(SIZE)], num_samples=20)


LOADERS: dict[str, Loop] = {
    name: over(make)
    for name, make in {
        "shuffled": lambda: (Noisy(), {"batch_size": 5, "shuffle": True, "drop_last": True, "collate_fn": doubled}),
        "weighted": lambda: (Noisy(), {"batch_size": 5, "sampler": weighted()}),
        "subset": lambda: (Subset(Noisy(), range(20)), {"batch_size": 3, "sampler": SubsetRandomSampler(range(4, 20))}),
        "own sampler": lambda: (Noisy(), {"batch_size": 3, "sampler": Halves()}),
        "own batches": lambda: (Noisy(), {"batch_sampler": Buckets()}),
        "batches of a sampler": lambda: (Noisy(), {"batch_sampler": BatchSampler(weighted(), 4, drop_last=False)}),
        "no batches": lambda: (Noisy(), {"batch_size": None, "shuffle": True}),
        "told its epoch": lambda: (Subset(TellsEpoch(), range(SIZE)), {"batch_size": 5}),
    }.items()
}


def by_epochs(run: TrainingRun, workers: int) -> Iterator[None]:
    """The data set is told its epoch by the loop, each epoch has a collate function, weights change at its end."""
    net, dataset, sampler = Net(run), TellsEpoch(), weighted()
    for epoch in run.epochs(3):
        dataset.set_epoch(3 * epoch)
        sampler.weights = torch.arange(SIZE, dtype=torch.double) + 10 * epoch

        def scaled(items: list[torch.Tensor], by: int = epoch + 1) -> torch.Tensor:
            return by * torch.stack(items)

        loader = DataLoader(dataset, batch_size=4, sampler=sampler, num_workers=workers, collate_fn=scaled)
        for batch in run.batches(loader):
            yield net.step(batch)


def harder(run: TrainingRun, workers: int) -> Iterator[None]:
    """A curriculum: each epoch makes its own data set, as long as the one before, of other samples."""
    net = Net(run)
    for epoch in run.epochs(3):
        easiest = Subset(Noisy(), [(place + 5 * epoch) % SIZE for place in range(16)])
        for batch in run.batches(easiest, batch_size=4, workers=workers):
            yield net.step(batch)


def one_by_one(run: TrainingRun, workers: int) -> Iterator[None]:
    """Without batches, said as a `DataLoader` has it."""
    net = Net(run)
    for item in run.batches(Noisy(), batch_size=None, workers=workers, steps=11):
        assert item.shape == (1,)
        yield net.step(item)


class Hardest(Sampler[Any]):
    """Its order follows the weights, which the training changes within the epoch; with a size it gives batches."""

    def __init__(self, weights: torch.Tensor, size: int = 0) -> None:
        self.weights, self.size = weights, size

    def __iter__(self) -> Iterator[Any]:
        order = (1000 * self.weights.detach().sum() * torch.arange(SIZE)).sin().argsort().tolist()
        return iter([order[at : at + self.size] for at in range(0, SIZE, self.size)] if self.size else order)

    def __len__(self) -> int:
        return -(-SIZE // self.size) if self.size else SIZE


def mined(size: int) -> Loop:
    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net = Net(run)
        sampler = Hardest(net.model[2].weight, size)
        given: dict[str, Any] = {"batch_sampler": sampler} if size else {"sampler": sampler, "batch_size": 3}
        for batch in run.batches(DataLoader(Noisy(), num_workers=workers, **given), epochs=2):
            yield net.step(batch)

    return loop


@pytest.mark.parametrize("size", [0, 3], ids=["samples", "batches"])
def test_a_sampler_that_follows_the_training_ends_its_epoch_in_the_order_in_which_it_began(
    tmp_path: Path, size: int
) -> None:
    assert train(tmp_path / "peace", mined(size), workers=2) == 0, said(tmp_path / "peace")
    cut(tmp_path / "cut", mined(size), workers=(2, 0, 2))
    told = said(tmp_path / "cut")
    assert not (found := difference(tmp_path / "peace", tmp_path / "cut")), (found, told)
    assert (
        "Hardest gives another order for epoch 1 by now than it did when the epoch began: it ends in that one" in told
    )


LOADERS |= {"by epochs": by_epochs, "a curriculum": harder, "no batches of a data set": one_by_one}


@pytest.mark.parametrize(
    ("longer", "larger", "words"),
    [(3, 0, "another number of samples than the one before. Expected 16, found 19"), (0, 1, "another batch_size")],
)
def test_an_epoch_that_cannot_follow_the_one_before_says_why(
    tmp_path: Path, longer: int, larger: int, words: str
) -> None:
    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net = Net(run)
        for epoch in run.epochs(2):
            data = Subset(Noisy(), range(16 + longer * epoch))
            for batch in run.batches(data, batch_size=4 + larger * epoch, workers=workers):
                yield net.step(batch)

    assert train(tmp_path / "run", loop, workers=0) == 2
    assert f"epoch 2 has {words}" in said(tmp_path / "run"), said(tmp_path / "run")


@pytest.mark.parametrize("how", ["shuffle", "sampler", "batch_sampler"])
def test_a_generator_that_was_given_to_a_loader_is_not_told_as_untracked(tmp_path: Path, how: str) -> None:
    """As PyTorch's page on reproducibility has it: its draws are drawn under a name, so it needs no state."""

    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net, order, data = Net(run), torch.Generator().manual_seed(0), Noisy()
        sampler = RandomSampler(data, generator=order)
        given: dict[str, Any] = {
            "shuffle": {"batch_size": 5, "shuffle": True, "generator": order},
            "sampler": {"batch_size": 5, "sampler": sampler},
            "batch_sampler": {"batch_sampler": BatchSampler(sampler, 5, drop_last=False)},
        }[how]
        for batch in run.batches(DataLoader(data, num_workers=workers, **given), epochs=2):
            yield net.step(batch)

    assert train(tmp_path / "run", loop, workers=0) == 0, said(tmp_path / "run")
    assert "not tracked" not in said(tmp_path / "run"), said(tmp_path / "run")


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_is_the_same_for_any_workers_and_wherever_it_is_cut(tmp_path: Path, name: str) -> None:
    assert train(tmp_path / "peace", LOADERS[name], workers=0) == 0, said(tmp_path / "peace")
    cut(tmp_path / "cut", LOADERS[name], workers=(2, 0, 2))
    assert not (found := difference(tmp_path / "peace", tmp_path / "cut")), (found, said(tmp_path / "cut"))


def test_a_loop_of_epochs_tells_data_set_collate_and_sampler_what_each_epoch_is(tmp_path: Path) -> None:
    assert train(tmp_path / "run", by_epochs, workers=2) == 0, said(tmp_path / "run")
    sums = [record["batch"] for record in steps(tmp_path / "run").values()]
    assert len(sums) == 15
    for epoch in range(3):  # four items a batch, 300 more in each epoch, by an epoch's factor
        inside = sums[5 * epoch : 5 * epoch + 5]
        assert all(4 * 300 * epoch <= each / (epoch + 1) <= 4 * (300 * epoch + SIZE + 2) for each in inside)


def test_batches_are_those_that_torch_would_make(tmp_path: Path) -> None:
    """The order is the run's own; what is in a batch, and how many there are, is torch's."""

    class Plain(Noisy):
        def __getitem__(self, index: int) -> torch.Tensor:
            return torch.tensor([float(index)])

    kinds: list[dict[str, Any]] = [
        {"batch_size": 5},
        {"batch_size": 5, "drop_last": True},
        {"batch_sampler": BatchSampler(SequentialSampler(range(SIZE)), 7, drop_last=True)},
        {"batch_size": 6, "sampler": [3, 1, 4, 1, 5, 9, 2, 6]},
        {"batch_size": None},
    ]
    for place, settings in enumerate(kinds):
        expected = [float(batch.double().sum()) for _ in range(2) for batch in DataLoader(Plain(), **settings)]

        def loop(run: TrainingRun, workers: int, settings: dict[str, Any] = settings) -> Iterator[None]:
            net = Net(run)
            for batch in run.batches(DataLoader(Plain(), **settings), epochs=2):
                yield net.step(batch)

        assert train(tmp_path / str(place), loop, workers=0) == 0, said(tmp_path / str(place))
        assert [record["batch"] for record in steps(tmp_path / str(place)).values()] == expected


class OwnWay(DataLoader[Any]):
    def __iter__(self) -> Any:
        return iter([torch.zeros(2)])


class Endless(Sampler[int]):
    def __len__(self) -> int:
        return SIZE

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from range(SIZE)


class Remembers(Sampler[int]):
    times = 0

    def __iter__(self) -> Iterator[int]:
        self.times += 1
        return iter([(place + self.times) % SIZE for place in range(SIZE)])


@pytest.mark.parametrize(
    ("loader", "given", "words"),
    [
        (OwnWay(Noisy()), {}, ["OwnWay", "way of its own", "Give the data set itself"]),
        (DataLoader(Noisy()), {"batch_size": 4, "shuffle": True}, ["batch_size=, shuffle=", "DataLoader already"]),
        (DataLoader(Noisy(), sampler=Endless()), {}, ["Endless", "never ends", "shuffle="]),
        (DataLoader(Noisy(), sampler=Remembers()), {}, ["Remembers", "two orders", "set_epoch"]),
        (DataLoader(Noisy(), sampler=iter(range(SIZE))), {}, ["range_iterator", "once only", "__iter__"]),
        (DataLoader(Noisy(), sampler=[]), {}, ["list", "no index"]),
        (
            DataLoader(Noisy(), sampler=RandomSampler(Noisy(), replacement=True, num_samples=10**10)),
            {},
            ["RandomSampler", "10000000000 indices", "num_samples=len(dataset)", "steps="],
        ),
        (Noisy(), {}, ["batch_size", "how many samples"]),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, Dataset | DataLoader) else "",
)
def test_what_cannot_be_taken_over_is_refused_by_its_name(
    tmp_path: Path, loader: Any, given: dict[str, Any], words: list[str]
) -> None:
    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net = Net(run)
        for batch in run.batches(loader, epochs=2, **given):
            yield net.step(batch)

    assert train(tmp_path / "run", loop, workers=0) == 2
    text = said(tmp_path / "run")
    assert all(word in text for word in words), text
    assert not (tmp_path / "run/t/unbroken/run.json").exists()


def begins(folder: Path, number: int) -> None:
    (folder / f"worker{number}").write_text(str(os.getpid()), "utf-8")


def test_a_worker_begins_with_worker_init_fn_and_a_timeout_is_obeyed(tmp_path: Path) -> None:
    class Sleeps(Noisy):
        def __getitem__(self, index: int) -> torch.Tensor:
            if index == 17:
                signal.pause()
            return super().__getitem__(index)

    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net, begin = Net(run), partial(begins, tmp_path)
        settings: dict[str, Any] = {"worker_init_fn": begin, "timeout": 1.5, "prefetch_factor": 1}
        for batch in run.batches(DataLoader(Sleeps(), batch_size=4, num_workers=2, **settings), epochs=1):
            yield net.step(batch)

    assert train(tmp_path / "run", loop, workers=2) != 0
    assert {path.name for path in tmp_path.glob("worker*")} == {"worker0", "worker1"}
    assert "within 1.5 s, the timeout of the loader" in said(tmp_path / "run"), said(tmp_path / "run")


def test_a_random_sampler_with_replacement_is_drawn_as_it_says(tmp_path: Path) -> None:
    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net = Net(run)
        sampler = RandomSampler(range(SIZE), replacement=True, num_samples=2 * SIZE)
        for batch in run.batches(DataLoader(Noisy(), batch_size=8, sampler=sampler), epochs=1):
            yield net.step(batch)

    assert train(tmp_path / "run", loop, workers=0) == 0, said(tmp_path / "run")
    assert len(steps(tmp_path / "run")) == 6


class Billion(Dataset[torch.Tensor]):
    """More samples than a permutation of them could be held of."""

    def __len__(self) -> int:
        return 10**9

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index / 1e9])


def test_a_billion_samples_are_begun_and_resumed_like_any(tmp_path: Path) -> None:
    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net, loader = Net(run), DataLoader(Billion(), batch_size=4, shuffle=True, num_workers=workers)
        for batch in run.batches(loader, steps=11):
            yield net.step(batch)

    assert train(tmp_path / "peace", loop, workers=2) == 0, said(tmp_path / "peace")
    cut(tmp_path / "cut", loop)
    assert not difference(tmp_path / "peace", tmp_path / "cut"), said(tmp_path / "cut")
    used = [sample for record in steps(tmp_path / "cut").values() for sample in record["samples"]]
    assert len(set(used)) == 44 and max(used) > 10**8
