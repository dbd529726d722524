"""Random streams: captured and put back exactly, or made from (seed, epoch, sample).

Training draws (dropout, drop path) come from the global streams of torch, numpy and Python; their states are part of
a checkpoint. Data draws (augmentation) come from a stream made for one sample in one epoch, so they do not depend on
which worker does the work, in which order, or on where a session began.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True, kw_only=True)
class Streams:
    """The states of all global streams, as the libraries hand them out: capturing happens at every step."""

    cpu: torch.Tensor
    numpy: Any
    python: Any
    cuda: tuple[torch.Tensor, ...]

    def as_plain(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        name, keys, position, has_gauss, gauss = self.numpy
        version, state, spare = self.python
        return {
            "torch": self.cpu,
            "numpy": [str(name), torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(gauss)],
            "python": [version, torch.tensor(state, dtype=torch.int64), spare],
            "cuda": list(self.cuda),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Streams:
        """The states that `as_plain` was given."""
        name, keys, position, has_gauss, gauss = plain["numpy"]
        version, state, spare = plain["python"]
        return cls(
            cpu=plain["torch"],
            numpy=(name, keys.numpy().astype(np.uint32), position, has_gauss, gauss),
            python=(version, tuple(state.tolist()), spare),
            cuda=tuple(plain["cuda"]),
        )


def capture() -> Streams:
    """The states of all global streams."""
    cuda = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # asking a GPU nobody uses would wake it
    return Streams(
        cpu=torch.get_rng_state(),
        numpy=np.random.get_state(legacy=True),
        python=random.getstate(),
        cuda=tuple(torch.cuda.get_rng_state_all()) if cuda else (),
    )


def restore(streams: Streams) -> None:
    """Put all global streams back to what `capture` saw."""
    torch.set_rng_state(streams.cpu)
    np.random.set_state(streams.numpy)
    random.setstate(streams.python)
    for device, state in enumerate(streams.cuda[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, device)


def try_out(streams: Streams) -> None:
    """Raise what a generator raises that does not take its state; the global streams stay as they are."""
    torch.Generator().set_state(streams.cpu)
    np.random.RandomState().set_state(streams.numpy)
    random.Random().setstate(streams.python)
    for device, state in enumerate(streams.cuda[: torch.cuda.device_count()]):
        torch.Generator(f"cuda:{device}").set_state(state)


@contextmanager
def preserved() -> Iterator[None]:
    """Whatever is drawn inside leaves the global streams as they were."""
    before = capture()
    try:
        yield
    finally:
        restore(before)


def seed_all(seed: int) -> None:
    """Begin all global streams from one number."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def seed_for_sample(seed: int, epoch: int, sample: int) -> int:
    """A 63-bit number made from the three (SHA-256, so that neighbours have nothing in common)."""
    digest = hashlib.sha256(f"{seed}:{epoch}:{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator_for_sample(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The stream for one sample in one epoch."""
    return np.random.default_rng(seed_for_sample(seed, epoch, sample))


def seed_global_streams_for_sample(seed: int, epoch: int, sample: int) -> None:
    """Begin the global CPU streams for a data set that draws from them; the caller preserves them."""
    number = seed_for_sample(seed, epoch, sample)
    random.seed(number)
    np.random.seed(number % 2**32)
    torch.default_generator.manual_seed(number)
