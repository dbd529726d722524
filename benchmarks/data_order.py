"""When the first samples of a shuffled data set are known, and what a step records: python benchmarks/data_order.py

Each order is asked, in a fork of its own, for 4,096 samples in the middle of the first epoch, as a resume does. Torch
draws the whole permutation before the first sample; so do the samplers of Lightning, Accelerate and the Trainer of
Transformers, which are that one with a seed. What holds all numbers is measured up to 10^8.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Sized
from itertools import islice
from typing import Any

import torch
from torch.utils.data import RandomSampler
from torch.utils.data.distributed import DistributedSampler

from unbroken.journal import as_recorded
from unbroken.train.data.order import LARGE, Order, micro_batches

BATCH, SIZES, LARGEST_OF_PEERS = 4096, (10**6, 10**7, 10**8, 10**9), 10**8


class Samples(Sized):
    """A data set of which only the length is asked."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


def ours(size: int) -> list[int]:
    order = Order(size=size, seed=1, keyed=size >= LARGE)
    next(micro_batches(order, 0, batch_size=BATCH))
    return [sample for _, sample in next(micro_batches(order, size // 2, batch_size=BATCH))[0]]


def of_torch(size: int) -> list[int]:
    sampler: Any = RandomSampler(Samples(size), generator=torch.Generator().manual_seed(1))
    return list(islice(sampler, size // 2, size // 2 + BATCH))


def of_torch_distributed(size: int) -> list[int]:
    sampler: Any = DistributedSampler(Samples(size), num_replicas=1, rank=0, seed=1)  # type: ignore[arg-type]  # it asks only for the length
    return list(islice(sampler, size // 2, size // 2 + BATCH))


def measured(draw: Callable[[int], list[int]], size: int) -> str:
    """Seconds and memory of one draw, in a process of its own."""
    ends = os.pipe()
    if (pid := os.fork()) == 0:
        before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        draw(size)
        taken, more = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        os.write(ends[1], f"{taken:8.3f} s {more / 1024:7.0f} MB".encode())
        os._exit(0)
    os.close(ends[1])
    os.waitpid(pid, 0)
    return os.read(ends[0], 100).decode() or "        out of memory"


def main() -> None:
    torch.set_num_threads(1)
    print(f"to the samples in the middle of the first epoch, {BATCH} at a time")
    print(f"{'samples':>24}" + "".join(f"{size:>20,}" for size in SIZES))
    for name, draw in (("ours", ours), ("RandomSampler", of_torch), ("DistributedSampler", of_torch_distributed)):
        shown = [measured(draw, size) if draw is ours or size <= LARGEST_OF_PEERS else "-" for size in SIZES]
        print(f"{name:>24}" + "".join(f"{each:>20}" for each in shown))
    ids = ours(10**9)
    placed = as_recorded(ids, first=5 * 10**8)
    print(f"\nwhat a step of {BATCH} samples records of them: {len(json.dumps(placed))} bytes,", end=" ")
    print(f"id by id {len(json.dumps(ids, separators=(',', ':')))} bytes")


if __name__ == "__main__":
    main()
