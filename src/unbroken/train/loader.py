"""Batches in the run's order, from any number of workers, each sample with random streams of its own."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, default_collate, get_worker_info

from unbroken.errors import DamagedFile, UnbrokenError, UsageError
from unbroken.train.order import Key, Order, micro_batches
from unbroken.train.rng import generator_for_sample, preserved, seed_global_streams_for_sample
from unbroken.train.stop import ASKING, interruptible

_WORKERS: weakref.WeakSet[multiprocessing.process.BaseProcess] = weakref.WeakSet()
PR_SET_PDEATHSIG = 1  # linux/prctl.h
Collate = Callable[[list[Any]], Any]
OnBad = Literal["stop", "skip"]  # what a sample that cannot be read does
EXCLUDED = "a step with it had a loss that is not finite, and was rolled back"


@dataclass(frozen=True, kw_only=True)
class BadSample:
    """A sample that is left out, because it could not be read or its step went wrong, and why."""

    epoch: int
    sample: int
    reason: str


class Loaded(NamedTuple):
    """A micro-batch: its samples, the position after them, what was made of them; None if none could be read."""

    keys: list[Key]
    position: int
    batch: Any
    bad: tuple[BadSample, ...] = ()


class SeededItems(Dataset[Any]):
    """A data set seen through (epoch, sample) keys; each item is a function of (seed, epoch, sample).

    A data set with `sample(index, rng)` gets a numpy generator; any other gets its global streams seeded around
    `dataset[index]`, so that ordinary augmentation code is exact as well.
    """

    def __init__(self, dataset: Any, seed: int, on_bad: OnBad, excluded: frozenset[Key] = frozenset()) -> None:
        self._dataset, self._seed, self._on_bad, self._excluded = dataset, seed, on_bad, excluded

    def __getitems__(self, request: tuple[list[Key], int]) -> Loaded | UnbrokenError:
        keys, position = request
        read: list[tuple[Key, Any]] = []
        bad: list[BadSample] = []
        with _as_in_a_worker():
            for epoch, index in keys:
                if (epoch, index) in self._excluded:
                    bad.append(BadSample(epoch=epoch, sample=index, reason=EXCLUDED))
                    continue
                try:
                    read.append(((epoch, index), self._item(epoch, index)))
                except UnbrokenError as error:
                    if self._on_bad == "stop" or not isinstance(error, DamagedFile):
                        return error  # torch would turn it into a RuntimeError with a trace; see `_raising`
                    bad.append(BadSample(epoch=epoch, sample=index, reason=str(error)))
        return Loaded(
            keys=[key for key, _ in read], position=position, batch=[item for _, item in read], bad=tuple(bad)
        )

    def _item(self, epoch: int, index: int) -> Any:
        if hasattr(self._dataset, "sample"):
            return self._dataset.sample(index, generator_for_sample(self._seed, epoch, index))
        seed_global_streams_for_sample(self._seed, epoch, index)
        return self._dataset[index]


@contextmanager
def _as_in_a_worker() -> Iterator[None]:
    """Make loading in the training process compute what a worker would: one thread, and no trace in the streams."""
    if get_worker_info() is not None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with preserved():
            yield
    finally:
        torch.set_num_threads(threads)


def load(
    dataset: Any,
    order: Order,
    position: int,
    *,
    batch_size: int,
    workers: int,
    collate: Collate | None = None,
    pin_memory: bool = False,
    on_bad: OnBad = "stop",
    excluded: frozenset[Key] = frozenset(),
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Loaded]:
    """Endless batches from `position` on; workers run ahead, but only what is yielded counts as used.

    The samples of `excluded` are left out as if they could not be read.
    """
    requests = micro_batches(order, position, batch_size=batch_size, rank=rank, world_size=world_size)
    join = collate or default_collate
    loader = DataLoader(
        SeededItems(dataset, order.seed, on_bad, excluded),
        batch_sampler=requests,  # type: ignore[arg-type]  # a request is (keys, position), see __getitems__
        num_workers=workers,
        collate_fn=_Joined(join),  # type: ignore[arg-type]  # it gets what __getitems__ returns
        worker_init_fn=_serve_the_trainer,
        generator=torch.Generator(),  # its own, so that starting workers draws nothing from the global stream
        pin_memory=pin_memory,
    )
    others = set(multiprocessing.active_children()) if workers else set()
    loaded = iter(loader)
    if workers:
        _WORKERS.update(set(multiprocessing.active_children()) - others)
    return _raising(loaded)


def _raising(loaded: Iterator[Loaded | UnbrokenError]) -> Iterator[Loaded]:
    """What a user can act on (an unreadable picture, say) comes out of a worker as it was raised there."""
    while True:
        with interruptible():  # a batch may take minutes, or never come
            item = next(loaded, None)
        if item is None:
            return
        if isinstance(item, UnbrokenError):
            raise item
        yield item


@atexit.register
def end_workers() -> None:
    """End the workers of this process at once: asked to end they would be waited for, one that hangs for ever.

    At exit multiprocessing asks its children to end and waits; ours ignore that, so they are ended here first.
    """
    workers = [worker for worker in _WORKERS if worker.is_alive()]
    if not workers:
        return
    quiet = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    # Torch's handler would report each as an accident.
    handler = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if quiet else None
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.join()
    if quiet:
        signal.signal(signal.SIGCHLD, handler)


def one_pass(
    dataset: Any,
    *,
    batch_size: int,
    workers: int,
    collate: Collate | None = None,
    seed: int = 0,
    skipped: Callable[[BadSample], None] | None = None,
) -> Iterator[Any]:
    """Every sample once, in the data set's order, as validation reads it.

    A file that cannot be read ends it, unless `skipped` takes note of the sample, which is then left out.
    """
    size = size_of(dataset)
    order = Order(size=size, seed=seed, shuffle="none")
    on_bad: OnBad = "stop" if skipped is None else "skip"
    for loaded in load(dataset, order, 0, batch_size=batch_size, workers=workers, collate=collate, on_bad=on_bad):
        for bad in loaded.bad:
            assert skipped is not None
            skipped(bad)
        if loaded.batch is not None:
            yield loaded.batch
        if loaded.position >= size:
            return


class _Joined:
    """Collates the items and lets keys and position pass; a class, so that spawned workers can receive it."""

    def __init__(self, join: Collate) -> None:
        self._join = join

    def __call__(self, loaded: Loaded | UnbrokenError) -> Loaded | UnbrokenError:
        if isinstance(loaded, UnbrokenError):
            return loaded
        return loaded._replace(batch=self._join(loaded.batch) if loaded.batch else None)


def _serve_the_trainer(_worker: int) -> None:
    """Ctrl-C and a scheduler's SIGTERM reach every process of the group; only the trainer may act on them.

    A worker also ends with its trainer at once (Linux): orphans would burn time and talk into the next session.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    for name in ASKING:
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)


def size_of(dataset: Any) -> int:
    """How many samples a data set has; an error for one that cannot be indexed."""
    if not hasattr(dataset, "__len__") or not (hasattr(dataset, "sample") or hasattr(dataset, "__getitem__")):
        raise UsageError(
            type(dataset).__name__,
            "an exact position needs a data set that can be indexed",
            expected="__len__ and __getitem__(index), or sample(index, rng)",
            found="an iterable data set" if hasattr(dataset, "__iter__") else "neither",
            do="Give each sample a number, for example by listing the files first.",
        )
    if len(dataset) == 0:
        raise UsageError(type(dataset).__name__, "the data set is empty", expected="at least one sample")
    return len(dataset)
