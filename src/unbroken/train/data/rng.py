"""Randomness has names, not a history: each stream begins from (seed, what it is for).

The global generators of torch, numpy and Python are seeded from (seed, step, micro-batch) before each micro-batch, from
(seed, epoch, sample) before each sample. What was drawn before decides nothing, so nothing of a generator is saved.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from typing import NamedTuple

import numpy as np
import torch


@contextmanager
def preserved() -> Iterator[None]:
    """Leave the global random streams as they were, whatever is drawn inside.

    These are those of torch (of the CPU, and of CUDA where it is in use), numpy and Python.

    Example:
        before = torch.get_rng_state()
        with preserved():
            torch.rand(1000)
        assert torch.equal(torch.get_rng_state(), before)
    """
    awake = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # asking a GPU nobody uses would wake it
    cpu, cuda = torch.get_rng_state(), torch.cuda.get_rng_state_all() if awake else []
    of_numpy, of_python = np.random.get_state(legacy=True), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(cpu)
        np.random.set_state(of_numpy)
        random.setstate(of_python)
        torch.cuda.set_rng_state_all(cuda)


def seed_all(seed: int) -> None:
    """Begin all global streams from one number, those of a device that is not used yet as well."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_for(seed: int, *name: object) -> int:
    """A 63-bit number made from a seed and a name (SHA-256, so that neighbours have nothing in common)."""
    return _number(":".join(map(str, (seed, *name))))


def _number(name: str) -> int:
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") >> 1


def seed_streams(number: int) -> None:
    """Begin the global streams of the CPU, and of accelerators that are in use: it costs a hundredth of `seed_all`."""
    seed_cpu_streams(number)
    for device in (torch.cuda, torch.xpu):
        if device.is_initialized():
            device.manual_seed_all(number)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(number)


def seed_cpu_streams(number: int) -> None:
    """Begin the global streams of the CPU."""
    for stream in CPU_STREAMS:
        stream.seed(number)


class Stream(NamedTuple):
    """A global stream of the CPU."""

    seed: Callable[[int], object]  # begins it
    place: Callable[[], object]  # what tells, once, whether it was drawn from: it may draw for that
    state: Callable[[], object]  # tells the same and draws nothing, in a hundred times as long


def _state_of_numpy() -> object:
    _, words, place, *_ = np.random.get_state(legacy=True)
    return np.asarray(words).tobytes(), place


def _state_of_torch() -> object:
    return torch.default_generator.get_state().numpy().tobytes()


CPU_STREAMS = (
    Stream(random.seed, random.random, random.getstate),
    Stream(lambda number: np.random.seed(number % 2**32), np.random.random, _state_of_numpy),
    Stream(torch.default_generator.manual_seed, _state_of_torch, _state_of_torch),
)


class Undrawn:
    """Tells which of some streams are drawn from, while they are not seeded for each sample.

    They begin at a number, so that the place of each is known.
    """

    def __init__(self, streams: Sequence[Stream], number: int) -> None:
        self._streams, self._number = streams, number
        self.begin()
        self._places = self._seen()

    def begin(self) -> None:
        """From here on."""
        for stream in self._streams:
            stream.seed(self._number)

    def drawn(self) -> list[Stream]:
        """Those that something was drawn from since; to be asked once."""
        return [each for each, now, then in zip(self._streams, self._seen(), self._places) if now != then]

    def _seen(self) -> list[object]:
        return [stream.place() for stream in self._streams]


def seed_for_sample(seed: int, epoch: int, sample: int) -> int:
    """The number for one sample in one epoch: `seed_for`, in less time."""
    return _number(f"{seed}:{epoch}:{sample}")


def generator_for_sample(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The stream for one sample in one epoch."""
    return np.random.default_rng(seed_for_sample(seed, epoch, sample))
