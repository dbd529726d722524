"""What several processes cost beside plain DistributedDataParallel: python benchmarks/processes_cost.py

A small convolutional network trains on batches of 32 pictures, shared by 1, 2 and 4 processes with one compute thread
each. Bare and ours take turns in short blocks; counted is the time of a step on the clock, and the least of the blocks
is what it takes where nothing else runs. `messages` are what the processes tell each other of a step besides gradients:
what was logged and whether the weights agree, and whether to stop. `exact` computes a batch in four shards, whose sums
do not depend on the number of processes (`--exact-processes 4`).
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from unbroken.train import open_run, this_world
from unbroken.train.data.sharing import sharing_of
from unbroken.train.distributed.shards import Shards

BATCH, BLOCK, SHARDS = 32, 4, 4


class Silent:
    """A console that shows nothing: printing is not what is measured."""

    def say(self, line: str) -> None: ...

    def step(self, report: object, line: str) -> None: ...

    def close(self) -> None: ...


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 64, 3, stride=2, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 128, 3, stride=2, padding=1), nn.BatchNorm2d(128), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    )  # fmt: skip


def wrapped(net: nn.Module) -> nn.Module:
    return DistributedDataParallel(net) if this_world().size > 1 else net


def bare(pictures: Tensor) -> Iterator[None]:
    """What a script does without us: its share of each batch."""
    net, world = wrapped(network()), this_world()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    mine = pictures[: BATCH // world.size]
    while True:
        net(mine).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        yield


def ours(pictures: Tensor, folder: Path) -> Iterator[None]:
    """The same with `run.batches`."""
    net = wrapped(network())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    with open_run(folder, tag="bench", save_every_s=None, console=Silent()) as run:
        run.track(model=net, optimizer=optimizer)
        for (batch,) in run.batches(torch.utils.data.TensorDataset(pictures), batch_size=BATCH, steps=10**6):
            loss = net(batch).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.log(loss=loss)
            yield


def exact(pictures: Tensor) -> Iterator[None]:
    """The same in four shards, as `fit` does it."""
    net, world = network(), this_world()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    sharing = sharing_of(world.rank, world.size, SHARDS)
    mine = pictures[: BATCH // SHARDS]
    shards = Shards(world, sharing, list(net.parameters()), list(net.buffers()))
    while True:
        for turn in range(len(sharing.mine)):
            with shards.computing(turn) as shard:
                shard.weight = 1 / SHARDS
                (net(mine).square().mean() / SHARDS).backward()
        shards.add_up()
        optimizer.step()
        shards = Shards(world, sharing, list(net.parameters()), list(net.buffers()))
        yield


def messages() -> Iterator[None]:
    """What is told of a step."""
    world = this_world()
    while True:
        world.gather_values(((0.5,), {"loss": [0.25], "accuracy": [0.5]}, 123456789))
        world.agree(None)
        yield


def block_s(steps: Iterator[None], count: int) -> float:
    """Seconds on the clock of a step of the next block."""
    begin = time.perf_counter()
    for _ in range(count):
        next(steps)
    return (time.perf_counter() - begin) / count


def measure(rank: int, size: int, port: int, folder: str, blocks: int) -> None:
    """One of the processes; the first prints a row."""
    torch.set_num_threads(1)
    if size > 1:
        told = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in told.items()})
        dist.init_process_group("gloo")
    pictures = torch.rand(1024, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    loops = {"bare": bare(pictures), "ours": ours(pictures, Path(folder, f"{size}")), "exact": exact(pictures)}
    took: dict[str, list[float]] = {name: [] for name in (*loops, "messages")}
    said, busy_s = messages(), list[float]()
    for number in range(blocks + 1):
        for name, steps in loops.items():
            took[name].append(block_s(steps, BLOCK))
        begin = time.process_time()
        took["messages"].append(block_s(said, 10 * BLOCK))
        busy_s.append((time.process_time() - begin) / (10 * BLOCK))
        if not number:  # first calls do not count
            took, busy_s = {name: [] for name in took}, []
    least = {name: min(seconds) for name, seconds in took.items()}
    if rank == 0:
        row = [least[name] * 1e3 for name in ("bare", "ours", "exact")]
        told = [least["messages"], statistics.median(took["messages"]), statistics.median(busy_s)]
        print("".join([f"{size:9}", *(f"{ms:10.1f}" for ms in row), *(f"{s * 1e6:12.0f}" for s in told)]))
    os._exit(0)  # the loops are not over


def start(work: Callable[..., None], *words: object, size: int) -> None:
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(rank, size, *words)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


def main() -> None:
    found = argparse.ArgumentParser(description=__doc__)
    found.add_argument("--blocks", type=int, default=30, help="of 4 steps each (default: 30)")
    blocks = found.parse_args().blocks
    print("milliseconds of a step, least of the blocks; microseconds of its messages, on the clock and of a processor")
    print("processes      bare      ours     exact    messages      median   processor")
    for size in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
            free.close()
            start(measure, port, folder, blocks, size=size)


if __name__ == "__main__":
    main()
