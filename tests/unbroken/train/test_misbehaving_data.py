"""Data sets and collate functions that misbehave: nothing hangs, and each error names the culprit."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import default_collate, get_worker_info

from unbroken.train import Exit, open_run

WORKERS = pytest.mark.parametrize("workers", [0, 2])


class Items:
    """Six items, each what `make` gives."""

    def __init__(self, make: Callable[[int], Any], size: int | Callable[[], int] = 6) -> None:
        self.make, self.size = make, size

    def __len__(self) -> int:
        return self.size() if callable(self.size) else self.size

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def number(index: int) -> torch.Tensor:
    return torch.full((1,), float(index))


def only_for(index: int, made: Callable[[], Any]) -> Callable[[int], Any]:
    return lambda asked: made() if asked == index else number(asked)


def outcome(
    folder: Path, dataset: Any, workers: int, capsys: pytest.CaptureFixture[str], **more: Any
) -> tuple[int, str]:
    """The exit code and what was said."""
    with pytest.raises(Exit) as ending, open_run(folder, tag="t", save_every_s=None) as run:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(dataset, batch_size=2, epochs=1, shuffle=False, workers=workers, **more):
            model(batch).mean().backward()
            optimizer.step()
            run.end_step()
    return int(ending.value.code or 0), capsys.readouterr().out


def refusing(_batch: list[Any]) -> Any:
    raise TypeError("no such batch")


def generated() -> Iterator[int]:
    yield 1


COLLATES: list[tuple[Any, int, str]] = [
    (lambda _items: None, 2, "samples 0, 1 of epoch 0 of Items: the collate function returned None. Expected a batch"),
    (lambda _items: [], 2, "the collate function returned an empty list"),
    (lambda _items: {}, 2, "the collate function returned an empty dict"),
    (lambda _items: (), 2, "the collate function returned an empty tuple"),
    (refusing, 12, "samples 0, 1 of epoch 0 of Items: the collate function failed on them. Found TypeError: no such"),
    (lambda _items: sys.exit(0), 12, "the collate function failed on them. Found SystemExit: 0"),
    (lambda: None, 12, "the collate function failed on them. Found TypeError"),
]


@WORKERS
@pytest.mark.parametrize(("collate", "code", "said"), COLLATES)
def test_a_collate_function_that_gives_no_batch_is_named(
    tmp_path: Path, collate: Any, code: int, said: str, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found, words = outcome(tmp_path, Items(number), workers, capsys, collate=collate)
    assert found == code and said in words, words


ITEMS: list[tuple[Callable[[], Any], str]] = [
    (lambda: None, "samples 2, 3 of epoch 0 of Items: the collate function failed on them."),
    (list, "samples 2, 3 of epoch 0 of Items: the collate function failed on them."),
    (generated, "samples 2, 3 of epoch 0 of Items: the collate function failed on them."),
    (lambda: torch.zeros(3), "samples 2, 3 of epoch 0 of Items: the collate function failed on them."),
]


@WORKERS
@pytest.mark.parametrize(("made", "said"), ITEMS)
def test_an_item_that_no_batch_can_be_made_of_is_named(
    tmp_path: Path, made: Callable[[], Any], said: str, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = outcome(tmp_path, Items(only_for(3, made)), workers, capsys)
    assert code == 12 and said in words, words
    assert ("Of sample 3 the data set gave None" in words) == (made() is None)


def test_a_collate_function_may_leave_out_what_is_none(tmp_path: Path) -> None:
    def without_none(items: list[Any]) -> Any:
        return default_collate([item for item in items if item is not None])

    used: list[float] = []
    with open_run(tmp_path, tag="t") as run:
        run.track(counters={})
        dataset = Items(only_for(3, lambda: None))
        for batch in run.batches(dataset, batch_size=2, epochs=1, shuffle=False, collate=without_none):
            used += batch.flatten().tolist()
            run.end_step()
    assert used == [0, 1, 2, 4, 5]


@pytest.mark.parametrize("made", [lambda: lambda: 1, threading.Lock, lambda: sys.stdin, generated])
def test_what_cannot_be_sent_from_a_worker_is_named(
    tmp_path: Path, made: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = outcome(tmp_path, Items(only_for(3, made)), 2, capsys, collate=unless_numbers)
    assert code == 2, words
    assert "samples 2, 3 of epoch 0 of Items: what the data set made of them cannot be sent from a worker" in words


@WORKERS
def test_a_data_set_shorter_than_it_says_is_named(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = outcome(tmp_path, Items(lambda index: [number(each) for each in range(4)][index]), workers, capsys)
    assert code == 12 and "sample 4 of epoch 0 of Items: it cannot be read. Found IndexError" in words, words


def test_a_data_set_that_becomes_shorter_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = [number(index) for index in range(6)]

    def make(index: int) -> torch.Tensor:
        if index == 2:
            del kept[4:]
        return kept[index]

    code, words = outcome(tmp_path, Items(make, lambda: len(kept)), 0, capsys)
    assert code == 12 and "sample 4 of epoch 0 of Items: it cannot be read" in words
    assert "The data set has 4 samples now; its length must not change in a training." in words


@pytest.mark.parametrize("size", [0, -1, "six", 2.5, lambda: 1 // 0])
def test_a_length_that_is_none_is_refused(tmp_path: Path, size: Any, capsys: pytest.CaptureFixture[str]) -> None:
    code, words = outcome(tmp_path, Items(number, size), 0, capsys)
    assert code == 2 and "Items: " in words


def unless_numbers(items: list[Any]) -> Any:
    return items if any(not isinstance(item, torch.Tensor) for item in items) else torch.stack(items)


def exits(how: Callable[[int], Any]) -> Callable[[int], Any]:
    """Only in a worker: here it would end the tests."""
    return only_for(3, lambda: how(5) if get_worker_info() is not None else number(3))


def test_a_worker_that_leaves_is_given_up_on_with_its_samples_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = outcome(tmp_path, Items(exits(os._exit)), 2, capsys)
    assert code == 12, words
    died = (
        "samples 2, 3 of epoch 0 of Items: 3 loader workers in a row died over it; the last one ended with exit code 5"
    )
    assert died in words, words
    assert (tmp_path / "t" / "iter_1.pth").exists()


def test_a_worker_that_calls_exit_is_a_sample_that_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = outcome(tmp_path, Items(exits(sys.exit)), 2, capsys)
    assert code == 12 and "sample 3 of epoch 0 of Items: it cannot be read. Found SystemExit: 5" in words


@pytest.mark.parametrize("ask", [input, lambda: os.read(0, 1) or sys.exit("nothing there")])
def test_a_worker_that_reads_the_terminal_does_not_wait_for_it(
    tmp_path: Path, ask: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    code, words = outcome(tmp_path, Items(only_for(3, ask)), 1, capsys)
    assert code == 12 and "sample 3 of epoch 0 of Items: it cannot be read" in words
