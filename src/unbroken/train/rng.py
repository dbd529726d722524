"""Randomness has names, not a history: each stream begins from (seed, what it is for).

The global generators of torch, numpy and Python are seeded from (seed, step, micro-batch) before each micro-batch, from
(seed, epoch, sample) before each sample. What was drawn before decides nothing, so nothing of a generator is saved.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256

import numpy as np
import torch


@contextmanager
def preserved() -> Iterator[None]:
    """Whatever is drawn inside leaves the global streams as they were."""
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
    random.seed(number)
    np.random.seed(number % 2**32)
    seed_torch(number)


def seed_torch(number: int) -> None:
    """Begin torch's stream of the CPU: a tenth of what all three cost."""
    torch.default_generator.manual_seed(number)


class Undrawn:
    """Tells whether anything is drawn from the streams of Python and numpy while they are not seeded for each sample.

    They begin at a number, and what they give next is known: to compare it costs a hundredth of their states.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._next = self.begin()._draw()
        self.begin()

    def begin(self) -> Undrawn:
        """From here on."""
        random.seed(self._number)
        np.random.seed(self._number % 2**32)
        return self

    def is_so(self) -> bool:
        """Whether nothing was drawn since; to be asked once."""
        return self._draw() == self._next

    def _draw(self) -> tuple[float, ...]:
        return random.random(), random.random(), np.random.random(), np.random.random()


def states_of_python_and_numpy() -> tuple[object, ...]:
    """What tells at any instant whether something was drawn from them."""
    _, words, place, *_ = np.random.get_state(legacy=True)
    return random.getstate(), np.asarray(words).tobytes(), place


def seed_for_sample(seed: int, epoch: int, sample: int) -> int:
    """The number for one sample in one epoch: `seed_for`, in less time."""
    return _number(f"{seed}:{epoch}:{sample}")


def generator_for_sample(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The stream for one sample in one epoch."""
    return np.random.default_rng(seed_for_sample(seed, epoch, sample))
