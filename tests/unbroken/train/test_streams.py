"""Data without numbers: what has a state is resumed by it, what has none is read again; nothing begins anew unsaid."""

from __future__ import annotations

import random
import signal
import sys
import sysconfig
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from tests.unbroken.train.sessions_of_loops import Loop, Net, cut, difference, said, steps, train
from unbroken.errors import UsageError
from unbroken.train import TrainingRun
from unbroken.train.data.stream import stream_of

SIZE = 24


class Lines(IterableDataset[torch.Tensor]):
    """An iterable data set without a state; random, with a generator of its own too, shared out among workers."""

    def __init__(self) -> None:
        self.rng, self.epoch = np.random.default_rng(), 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[torch.Tensor]:
        info = get_worker_info()
        first, step = (info.id, info.num_workers) if info is not None else (0, 1)
        for number in range(first, SIZE, step):
            noise = torch.rand(1) + random.random() + self.rng.random() * (info is None)
            yield number + 100 * self.epoch + noise


class WithState:
    """A stream with a state of its own: a place, and a shuffling generator."""

    def __init__(self) -> None:
        self.at, self.generator = 0, torch.Generator().manual_seed(1)
        self.order: list[int] = []

    def __iter__(self) -> Iterator[torch.Tensor]:
        if not self.order:
            self.order = torch.randperm(SIZE, generator=self.generator).tolist()
        while self.at < SIZE:
            self.at += 1
            yield self.order[self.at - 1] + torch.rand(1)
        self.at, self.order = 0, []

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "order": self.order, "generator": self.generator.get_state()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at, self.order = state["at"], list(state["order"])
        self.generator.set_state(state["generator"])


class IterableWithState(WithState, IterableDataset[torch.Tensor]):
    """The same as a data set of torch."""


class ForItsLoader(Lines):
    """Its state is for a loader of its own, which knows how many samples were used (as of MosaicML's streaming)."""

    def state_dict(self, num_samples: int, from_beginning: bool) -> dict[str, Any]:
        raise AssertionError("nobody here knows these")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError


class BufferShuffledExamplesIterable:
    """As that of Hugging Face: it notes how far it has read, and not what its buffer holds."""

    def __init__(self, size: int) -> None:
        self.size, self.generator = size, np.random.default_rng(5)
        self._state_dict: dict[str, int] = {}

    def __iter__(self) -> Iterator[torch.Tensor]:
        generator, held = deepcopy(self.generator), list[int]()
        for number in range(SIZE):
            self._state_dict["examples"] = number + 1
            held.append(number)
            if len(held) == self.size:
                yield torch.tensor(float(held.pop(int(generator.integers(self.size)))))
        yield from (torch.tensor(float(each)) for each in held)


class Examples(IterableDataset[torch.Tensor]):
    """As Hugging Face's `IterableDataset`: a chain of iterables, whose notes are its state."""

    def __init__(self) -> None:
        self._ex_iterable = BufferShuffledExamplesIterable(7)
        self._state_dict: dict[str, Any] = {}

    def __iter__(self) -> Iterator[torch.Tensor]:
        self._state_dict = {"examples_iterable": self._ex_iterable._state_dict, "epoch": 0}
        yield from self._ex_iterable

    def state_dict(self) -> dict[str, Any]:
        return deepcopy(self._state_dict)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError("what its buffer held is not in it")


@pytest.mark.parametrize("in_a_loader", [False, True])
def test_what_a_librarys_stream_notes_of_its_way_is_no_untracked_state_and_its_buffer_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_a_loader: bool
) -> None:
    library = ModuleType("datasets.iterable_dataset")
    library.__file__ = f"{sysconfig.get_path('purelib')}/datasets/iterable_dataset.py"
    monkeypatch.setitem(sys.modules, library.__name__, library)
    for kind in (BufferShuffledExamplesIterable, Examples):
        monkeypatch.setattr(kind, "__module__", library.__name__)
    settings = {} if in_a_loader else {"batch_size": 4}
    loop = over(lambda workers: DataLoader(Examples(), 4) if in_a_loader else Examples(), **settings)
    assert train(tmp_path / "peace", loop, workers=0) == 0, said(tmp_path / "peace")
    cut(tmp_path / "cut", loop)
    assert not (found := difference(tmp_path / "peace", tmp_path / "cut")), (found, said(tmp_path / "cut"))
    assert "not tracked" not in said(tmp_path / "peace") + said(tmp_path / "cut"), said(tmp_path / "peace")
    assert "Examples has no state that leads on" in said(tmp_path / "cut")


def endless() -> Iterator[torch.Tensor]:
    for number in count():
        yield torch.full((4,), float(number)) + torch.rand(4)


def over(make: Callable[[int], Any], **settings: Any) -> Loop:
    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net = Net(run)
        for batch in run.batches(make(workers), **({"epochs": 3} | settings)):
            yield net.step(batch)

    return loop


def by_epochs(run: TrainingRun, workers: int) -> Iterator[None]:
    net, stream = Net(run), WithState()
    for _ in run.epochs(3):
        for batch in run.batches(stream, batch_size=5):
            yield net.step(batch)


def accumulating(run: TrainingRun, workers: int) -> Iterator[None]:
    """The batches of the step in progress are not part of the state."""
    net, held = Net(run), []
    for batch in run.batches(WithState(), batch_size=2, epochs=3):
        held.append(batch)
        if len(held) == 2:
            yield net.step(torch.cat(held))
            held.clear()


def stateful_loader(workers: int, **settings: Any) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    dataset = Rounded() if workers else IterableWithState()
    return StatefulDataLoader(dataset, batch_size=4, num_workers=workers, **settings)


def seeded_loader(workers: int) -> Any:
    return DataLoader(Lines(), batch_size=4, num_workers=workers, generator=torch.Generator().manual_seed(3))


class Rounded(IterableWithState):
    """Nothing in it is drawn by a worker but the order, which is in its state."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (each.floor() for each in super().__iter__())


STREAMS: dict[str, tuple[Loop, tuple[int, ...]]] = {
    "loader of lines": (over(lambda workers: DataLoader(Lines(), batch_size=4, num_workers=workers)), (0, 2)),
    "loader with a generator": (over(lambda workers: seeded_loader(workers)), (0, 2)),
    "lines": (over(lambda _: Lines(), batch_size=4), (0,)),
    "state for its loader": (over(lambda _: ForItsLoader(), batch_size=4), (0,)),
    "list of batches": (over(lambda _: iter_of_batches), (0,)),
    "endless": (over(lambda _: endless, epochs=None, steps=14), (0,)),
    "with state": (over(lambda _: WithState(), batch_size=4), (0,)),
    "loader with state": (over(lambda _: DataLoader(IterableWithState(), batch_size=5, drop_last=True)), (0,)),
    "stateful loader": (over(stateful_loader), (0, 2)),
    "by epochs": (by_epochs, (0,)),
    "accumulating": (accumulating, (0,)),
}


BY_STATE = ("with state", "loader with state", "stateful loader", "by epochs", "accumulating")


def iter_of_batches() -> Iterator[torch.Tensor]:
    return (torch.full((3,), float(number)) for number in range(6))


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_goes_on_where_it_was_cut(tmp_path: Path, name: str) -> None:
    if name == "stateful loader":
        pytest.importorskip("torchdata")
    loop, numbers = STREAMS[name]
    for workers in numbers:
        peace, other = tmp_path / f"peace{workers}", tmp_path / f"cut{workers}"
        assert train(peace, loop, workers=workers) == 0, said(peace)
        cut(other, loop, workers=(workers, workers, workers))
        assert not (found := difference(peace, other)), (found, said(other))
        by_state = "its own state leads to batch" in said(other)
        assert by_state != ("has no state that leads on" in said(other)), said(other)
        assert by_state == (name in BY_STATE)
        assert ("draws otherwise" in said(other)) == (name == "stateful loader" and workers > 0)


@pytest.mark.parametrize("workers", [0, 2])
def test_what_a_stream_keeps_in_its_own_state_is_not_told_as_untracked(tmp_path: Path, workers: int) -> None:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")

    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net = Net(run)
        order = torch.Generator().manual_seed(3)
        points = [torch.full((3,), float(number)) for number in range(12)]
        source = torchdata.StatefulDataLoader(points, 4, shuffle=True, generator=order, num_workers=workers)
        for batch in run.batches(source, epochs=3):
            yield net.step(batch)

    assert train(tmp_path / "run", loop, workers=workers) == 0, said(tmp_path / "run")
    text = said(tmp_path / "run")
    assert "not tracked" not in text, text


def test_each_pass_is_told_its_number_and_draws_anew(tmp_path: Path) -> None:
    assert train(tmp_path / "run", STREAMS["lines"][0], workers=0) == 0, said(tmp_path / "run")
    sums = [record["batch"] for record in steps(tmp_path / "run").values()]
    assert len(sums) == 18 and [int(sums[6 * epoch] // 400) for epoch in range(3)] == [0, 1, 2]
    assert len({each % 400 for each in sums}) == 18


def test_how_far_the_reading_again_is_is_said(tmp_path: Path) -> None:
    loop = over(lambda _: endless, epochs=None, steps=205)
    train(tmp_path / "run", loop, workers=0, at=200, number=signal.SIGTERM)
    assert train(tmp_path / "run", loop, workers=0) == 0
    text = said(tmp_path / "run")
    assert "endless has no state that leads on: 200 batches of pass 1 that were used are read again" in text
    assert text.count("passed over") == 10 and "passed over 200 of 200 batches" in text


class Once:
    """It can be gone through once, and does not say so."""

    def __init__(self) -> None:
        self.inner = iter([torch.ones(2)] * 3)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return self.inner


def fails() -> Iterator[torch.Tensor]:
    yield torch.ones(2)
    raise ValueError("no line")


@pytest.mark.parametrize(
    ("make", "given", "code", "words"),
    [
        (endless, {}, 2, ["endless (generator)", "once only", "the function that makes it"]),
        (lambda: iter([torch.ones(2)]), {}, 2, ["list_iterator", "once only"]),
        (lambda: map(float, [1]), {}, 2, ["map", "once only"]),
        (lambda: iter(DataLoader(Lines())), {}, 2, ["SingleProcessDataLoaderIter", "the DataLoader itself"]),
        (Lines, {"batch_size": 2, "shuffle": True}, 2, ["Lines", "shuffle="]),
        (lambda: DataLoader(Lines()), {"batch_size": 2}, 2, ["batch_size=", "DataLoader already"]),
        (Once, {}, 2, ["Once", "pass 2 gives no batch", "begin anew each time"]),
        (lambda: fails, {}, 12, ["batch 2 of pass 1 of fails", "ValueError: no line"]),
    ],
)
def test_what_cannot_be_gone_through_is_refused_by_its_name(
    tmp_path: Path, make: Callable[[], Any], given: dict[str, Any], code: int, words: list[str]
) -> None:
    assert train(tmp_path / "run", over(lambda _: make(), **given), workers=0) == code
    text = said(tmp_path / "run")
    assert all(word in text for word in words), text


def loader(batch_size: int, workers: int) -> Loop:
    return over(lambda _: DataLoader(Lines(), batch_size=batch_size, num_workers=workers))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (loader(4, 0), loader(4, 2), "workers 0 -> 2"),
        (loader(4, 0), loader(3, 0), "batch_size 4 -> 3"),
        (loader(4, 0), over(lambda _: WithState(), batch_size=4), "by count -> state"),
        (loader(4, 0), over(lambda _: torch.arange(SIZE), batch_size=4), "was trained on a stream (Lines)"),
        (over(lambda _: torch.arange(SIZE), batch_size=4), loader(4, 0), "Lines has no numbered samples"),
    ],
)
def test_another_kind_of_data_in_the_middle_is_refused(tmp_path: Path, before: Loop, after: Loop, words: str) -> None:
    train(tmp_path / "run", before, workers=0, at=8, number=signal.SIGTERM)
    journal = (tmp_path / "run/t/unbroken/journal.jsonl").read_bytes()
    assert train(tmp_path / "run", after, workers=0) == 2
    assert words in said(tmp_path / "run"), said(tmp_path / "run")
    assert (tmp_path / "run/t/unbroken/journal.jsonl").read_bytes() == journal


def test_a_stream_that_has_become_shorter_is_said(tmp_path: Path) -> None:
    train(tmp_path / "run", over(lambda _: iter_of_batches), workers=0, at=5, number=signal.SIGTERM)

    def fewer() -> Iterator[torch.Tensor]:
        return iter([torch.ones(3)] * 2)

    fewer.__name__ = "iter_of_batches"
    assert train(tmp_path / "run", over(lambda _: fewer), workers=0) == 2
    assert "its pass 1 ends after 2 batches, of which 5 were used" in said(tmp_path / "run")


@pytest.mark.parametrize(
    ("stream", "asked", "words"),
    [
        (
            lambda: DataLoader(Lines(), 4),
            {"workers": 2},
            "workers=2 has no effect: DataLoader reads with num_workers=0",
        ),
        (Lines, {"workers": 2}, "workers=2 has no effect: without batch_size= Lines is read in this process"),
        (
            lambda: iter_anew,
            {"workers": 2, "batch_size": 1},
            "iter_anew is read in this process: each of 2 workers would have a copy",
        ),
    ],
)
def test_workers_that_a_stream_does_not_use_are_said(stream: Any, asked: dict[str, Any], words: str) -> None:
    lines: list[str] = []
    feed = stream_of(stream(), asked, seed=0, say=lines.append)
    assert feed.batching.workers == 0 and lines == [f"note: {words}"]


def iter_anew() -> Iterator[torch.Tensor]:
    yield torch.ones(1)


@pytest.mark.parametrize("asked", [{"drop_last": True}, {"collate": list}, {"pin_memory": True}])
def test_what_says_how_batches_are_made_is_refused_where_none_are(asked: dict[str, Any]) -> None:
    (name,) = asked
    with pytest.raises(UsageError, match=f"{name}= has nothing to act on: iter_anew gives whole batches"):
        stream_of(iter_anew, asked, seed=0, say=lambda _line: None)
    stream_of(iter_anew, {**asked, "batch_size": 1, "pin_memory": False}, seed=0, say=lambda _line: None)
