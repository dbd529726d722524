"""Loader workers that are killed, at any instant and several at once: the batches are the same, and it is said."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import get_worker_info

from unbroken.journal import read_events
from unbroken.train import Exit, differences, one_pass, open_run, read_checkpoint
from unbroken.train.data.loader import LoadedBatch, load
from unbroken.train.data.order import Order

SIZE, WIDTH = 40, 30_000  # numbers of a sample: its message does not fit into a pipe


class Slow:
    """Samples that take a moment; each draws from the global streams."""

    def __init__(self, kills_itself_at: int = -1) -> None:
        self.kills_itself_at = kills_itself_at

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> np.ndarray[Any, Any]:
        if index == self.kills_itself_at and get_worker_info() is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.001)
        return np.full(WIDTH, index) + np.random.rand()


def as_arrays(items: list[Any]) -> np.ndarray[Any, Any]:
    return np.stack(items)  # no tensor: it travels through the pipe itself


def batches(workers: int, count: int, collate: Any) -> Iterator[LoadedBatch]:
    loaded = load(Slow(), Order(size=SIZE, seed=3), 0, batch_size=4, workers=workers, collate=collate)
    return islice(loaded, count)


def kill_some(chance: random.Random, how_many: int) -> None:
    """Kill workers of this process from a thread, a random moment from now."""

    def kill() -> None:
        time.sleep(chance.random() * 0.01)
        for worker in chance.sample(alive := multiprocessing.active_children(), min(how_many, len(alive))):
            os.kill(worker.pid or 0, signal.SIGKILL)

    threading.Thread(target=kill).start()


@pytest.mark.parametrize("collate", [None, as_arrays], ids=["tensors", "through the pipe"])
@pytest.mark.parametrize(("workers", "at_once"), [(1, 1), (2, 1), (2, 2), (4, 3)])
def test_the_batches_are_the_same_whoever_is_killed_and_when(workers: int, at_once: int, collate: Any) -> None:
    chance = random.Random(f"{workers} {at_once}")
    alone = list(batches(0, 24, collate))
    found = []
    for number, loaded in enumerate(batches(workers, 24, collate)):
        found.append(loaded)
        if number % (2 * workers) == 0:  # the same request does not die three times
            kill_some(chance, at_once)
    assert [each.keys for each in found] == [each.keys for each in alone]
    assert all(np.array_equal(one.batch, other.batch) for one, other in zip(found, alone))


def train(folder: Path, workers: int, *, kills: bool = False, dataset: Any = None, evaluate: Any = None) -> Path:
    """One session of a plain loop; returns its last checkpoint."""
    chance = random.Random(workers)
    with open_run(folder, tag="t", save_every_s=None) as run:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Dropout(0.5), nn.Linear(WIDTH, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(dataset or Slow(), batch_size=4, epochs=2, workers=workers):
            loss = model(batch.float()).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.end_step(loss=loss)
            if kills and run.step % 5 == 0:
                kill_some(chance, 1)
            if evaluate is not None and run.evaluation_due(every=6):
                run.record_evaluation(seen=evaluate(run))
    return max((folder / "t").glob("iter_*.pth"), key=lambda path: int(path.stem[5:]))


def lost(folder: Path) -> list[dict[str, Any]]:
    return [event for event in read_events(folder / "t/unbroken/journal.jsonl") if event["event"] == "worker lost"]


def test_a_training_whose_workers_are_killed_ends_as_its_twin_says_so_and_counts_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = train(tmp_path / "killed", 2, kills=True)
    said = capsys.readouterr().out
    twin = train(tmp_path / "twin", 2)
    assert differences(read_checkpoint(killed), read_checkpoint(twin)) == []
    assert lost(tmp_path / "killed") and not lost(tmp_path / "twin")
    assert "a loader worker was killed by SIGKILL (perhaps the machine ran out of memory); a new one takes its" in said
    assert f"(lost so far: {len(lost(tmp_path / 'killed'))})" in said


def test_workers_of_an_evaluation_are_replaced_as_well(tmp_path: Path) -> None:
    chance = random.Random(6)

    def evaluate(run: Any, kills: bool = True) -> float:
        total = 0.0
        for number, batch in enumerate(one_pass(Slow(), batch_size=4, workers=2)):
            run.poll()
            total += float(batch.sum())
            if kills and number == 3:
                kill_some(chance, 2)
        return total

    killed = train(tmp_path / "killed", 0, evaluate=evaluate)
    twin = train(tmp_path / "twin", 0, evaluate=lambda run: evaluate(run, kills=False))
    assert differences(read_checkpoint(killed), read_checkpoint(twin)) == []
    assert lost(tmp_path / "killed")


@pytest.mark.parametrize("workers", [1, 2])
def test_where_the_same_samples_kill_three_workers_it_stops_resumably_with_everything_saved(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exit) as ending:
        train(tmp_path, workers, dataset=Slow(kills_itself_at=17))
    said = capsys.readouterr().out
    assert ending.value.code == 75, said
    assert "3 loader workers in a row died over it; the last one was killed by SIGKILL" in said
    assert "Take fewer workers (--workers), a smaller batch, or a machine with more memory." in said
    stopped = next(line for line in said.splitlines() if line.startswith("stopped by the death of its loader workers"))
    step = int(stopped.split("after step ")[1].split(":")[0])
    assert (tmp_path / "t" / f"iter_{step}.pth").exists() and "everything is saved" in stopped
    assert len(lost(tmp_path)) >= 2
    assert not multiprocessing.active_children()
    assert differences(read_checkpoint(train(tmp_path, 0)), read_checkpoint(train(tmp_path / "twin", 2))) == []
