"""Randomness has names, not a history: each stream begins from (seed, what it is for).

The global generators of torch, numpy and Python are seeded from (seed, step, micro-batch) before each micro-batch, from
(seed, epoch, sample) before each sample. What was drawn before decides nothing, so nothing of a generator is saved.
"""

from __future__ import annotations

import ctypes
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from typing import Any

import numpy as np
import torch

MT19937_BYTES = 625 * 4  # 624 words, and the place in them
_PYTHON: Any = random._inst
_TWISTER: Any = random.Random.__base__  # which is of C


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
    return number_of(":".join(map(str, (seed, *name))))


def number_of(name: str) -> int:
    """The number of a seed and a name in one text."""
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") >> 1


def seed_streams(number: int) -> None:
    """Begin the global streams of the CPU, and of accelerators that are in use: it costs a hundredth of `seed_all`."""
    seed_cpu_streams(number)
    for device in (torch.cuda, torch.xpu):
        if device.is_initialized():
            device.manual_seed_all(number)
    if _has_mps():
        torch.mps.manual_seed(number)


def seed_cpu_streams(number: int) -> None:
    """Begin the global streams of the CPU; those that were just seen to stand at this beginning are left there."""
    for stream in CPU_STREAMS:
        if stream.stands_at != number:
            stream.seed(number)
        stream.stands_at = None  # whoever asked for it draws from here


@cache
def _has_mps() -> bool:
    return torch.backends.mps.is_available()


class Stream:
    """A global stream of the CPU; `seed` begins it, `state` tells where it stands."""

    def __init__(self, seed: Callable[[int], object], state: Callable[[], bytes]) -> None:
        self.seed, self.state = seed, state
        self.stands_at: int | None = None  # the number at whose beginning it was seen to stand, when it was looked at
        self._begun, self._stood = 0, b""  # the number that it was watched from, and its state there

    def watch(self, number: int) -> None:
        """Begin it; from here on it is seen whether it is drawn from."""
        if self._begun != number or self.state() != self._stood:
            self.seed(number)
            self._begun, self._stood = number, self.state()

    def is_drawn(self) -> bool:
        """Whether it does not stand where it was begun: every state, to the bit, is another one."""
        drawn = self.state() != self._stood
        self.stands_at = None if drawn else self._begun
        return drawn


def _seed_python(number: int) -> None:
    _PYTHON.gauss_next = None
    _TWISTER.seed(_PYTHON, number)  # what `random.seed` does with a whole number, in half the time


def _words_at(address: int) -> Callable[[], bytes]:
    """The state of a Mersenne twister where it lies in memory: to ask for it costs a hundred times as much."""
    words = (ctypes.c_char * MT19937_BYTES).from_address(address)
    return lambda: words.raw


def _state_of_python() -> Callable[[], bytes]:
    """CPython holds the place in the words, and then these, behind the head of the object; elsewhere it is asked."""

    def asked(generator: random.Random) -> bytes:
        _, (*words, place), _ = generator.getstate()
        return np.array([place, *words], dtype=np.uint32).tobytes()

    tried = random.Random(5489)
    at = object.__basicsize__
    if _TWISTER.__basicsize__ >= at + MT19937_BYTES and _words_at(id(tried) + at)() == asked(tried):
        return _words_at(id(_PYTHON) + at)
    return lambda: asked(_PYTHON)


class _StateOfNumpy:
    """The words of the bit generator in force, and then the place in them, by the address that it gives for C."""

    def __init__(self) -> None:
        self._of: Any = None
        self._read: Callable[[], bytes] = bytes

    def __call__(self) -> bytes:
        generator = np.random.mtrand._rand._bit_generator
        if generator is not self._of:
            self._of, self._read = generator, self._reader(generator)
        return self._read()

    def _reader(self, generator: Any) -> Callable[[], bytes]:
        def asked() -> bytes:
            state = generator.state["state"]
            return bytes(state["key"].tobytes() + np.array([state["pos"]], dtype=np.int32).tobytes())

        if isinstance(generator, np.random.MT19937):
            read = _words_at(generator.ctypes.state_address)
            return read if read() == asked() else asked
        return lambda: repr(generator.state).encode()


def _state_of_torch() -> bytes:
    return torch.default_generator.get_state().numpy().tobytes()


CPU_STREAMS = (
    Stream(_seed_python, _state_of_python()),
    Stream(lambda number: np.random.seed(number % 2**32), _StateOfNumpy()),
    Stream(torch.default_generator.manual_seed, _state_of_torch),
)


def seed_for_sample(seed: int, epoch: int, sample: int) -> int:
    """The number for one sample in one epoch: `seed_for`, in less time."""
    return number_of(f"{seed}:{epoch}:{sample}")


def generator_for_sample(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The stream for one sample in one epoch."""
    return np.random.default_rng(seed_for_sample(seed, epoch, sample))
