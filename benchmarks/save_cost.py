"""What a save costs: python benchmarks/save_cost.py [--state 96 328 1205] [--keep-last 2] [--folder DIR]

Compared, taking turns, on the same state (a model and AdamW's moments): one memory copy, a plain write with fsync, the
least that can be durable; `torch.save` with fsync and rename; and `run.save()`. *block* is what the training thread
waits for, *busy* its own processor time of that, which others on the machine do not lengthen, *durable* the time until
nothing can be lost any more, *CPU* the processor time of the process until then.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from loop_overhead import Points, Silent
from torch import nn

from unbroken.train import open_run

ROUNDS = 7
BLOCK = 8 << 20
# Megabytes of state: layers and their width. The first two have 1352 tensors, as a detector has, the last one 588.
STATES = {96: (169, 217), 328: (169, 402), 1205: (73, 1170)}
Cost = tuple[float, float, float, float]  # block, of that at work, durable, processor time: seconds


def cost_of(action: Callable[[], Any], wait: Callable[[], Any] = lambda: None) -> Cost:
    begin, cpu, busy = time.perf_counter(), time.process_time(), time.thread_time()
    action()
    block, busy = time.perf_counter() - begin, time.thread_time() - busy
    wait()
    return block, busy, time.perf_counter() - begin, time.process_time() - cpu


def tensors_of(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return [tree]
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else []
    return [tensor for part in inside for tensor in tensors_of(part)]


def durably(path: Path, fill: Callable[[Any], Any]) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb", buffering=0) as file:
        fill(file)
        os.fsync(file.fileno())
    partial.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def write_plainly(file: Any, data: memoryview) -> None:
    for start in range(0, len(data), BLOCK):
        file.write(data[start : start + BLOCK])


def measure(state_mb: int, keep_last: int | None, folder: Path) -> None:
    layers, width = STATES[state_mb]
    model = nn.Sequential(nn.Linear(8, width), *(nn.Linear(width, width) for _ in range(layers - 1)))
    optimizer = torch.optim.AdamW(model.parameters())
    rounds: list[dict[str, Cost]] = []
    with open_run(folder, tag="bench", save_every_s=None, keep_last=keep_last, console=Silent()) as run:
        run.track(model=model, optimizer=optimizer)

        def at_a_boundary() -> None:  # within a step a save would only be asked for
            if 0 < run.step <= ROUNDS + 1:
                rounds.append(
                    one_round(run, {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, folder)
                )

        for batch in run.batches(Points(), batch_size=16, steps=ROUNDS + 2, between=at_a_boundary):
            model(batch).mean().backward()
            optimizer.step()
            optimizer.zero_grad()  # else the gradients are state, too
            run.end_step()
    show(rounds, state_mb, keep_last)


COPIES: list[torch.Tensor] = []


def one_round(run: Any, state: dict[str, Any], folder: Path) -> dict[str, Cost]:
    tensors = tensors_of(state)
    if not COPIES:
        COPIES.extend(tensor.clone() for tensor in tensors)
        COPIES.append(torch.zeros(sum(tensor.nbytes for tensor in tensors), dtype=torch.uint8))
    flat = memoryview(COPIES[-1].numpy())
    return {
        "one memory copy": cost_of(lambda: [copy.copy_(tensor) for copy, tensor in zip(COPIES, tensors)]),
        "plain write + fsync": cost_of(lambda: durably(folder / "plain.bin", lambda file: write_plainly(file, flat))),
        "torch.save + fsync": cost_of(lambda: durably(folder / "plain.pth", lambda file: torch.save(state, file))),
        "run.save()": cost_of(run.save, run.wait_for_saves),
    }


def show(rounds: list[dict[str, Cost]], state_mb: int, keep_last: int | None) -> None:
    copied, written, saved = list(rounds[0])[:3]
    first, *rounds = rounds
    print(f"\n{state_mb} MB of state, keep_last={keep_last}, median of {len(rounds)} alternating rounds, milliseconds")
    print(f"{'':<22}  block  copies  busy  copies  durable of plain   CPU of save")
    for name in rounds[0]:
        block, busy, durable, cpu = (
            1e3 * statistics.median(each[name][which] for each in rounds) for which in range(4)
        )

        def ratio(which: int, other: str, name: str = name) -> float:
            return statistics.median(each[name][which] / each[other][which] for each in rounds)

        print(
            f"{name:<22}{block:7.0f}{ratio(0, copied):8.1f}{busy:6.0f}{ratio(1, copied):8.1f}"
            f"{durable:9.0f}{ratio(2, written):9.2f}{cpu:6.0f}{ratio(3, saved):8.2f}"
        )
    busy_copy = statistics.median(each[copied][1] for each in rounds)
    print(f"the first save keeps the training busy for {first['run.save()'][1] / busy_copy:.1f} copies")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--state", type=int, nargs="+", choices=list(STATES), default=list(STATES), help="megabytes")
    parser.add_argument("--keep-last", type=int, default=2, help="so that retention is measured too")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for state_mb in options.state:
        COPIES.clear()
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            measure(state_mb, options.keep_last, Path(folder))


if __name__ == "__main__":
    main()
