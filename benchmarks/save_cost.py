"""How long a save blocks training: python benchmarks/save_cost.py [--megabytes 300] [--folder DIR]

Compared, taking turns, on the same state (a model and AdamW's moments): one memory copy; `torch.save` with fsync and
rename, which is the least that is safe; and `run.save()`, which copies the state and lets a thread write file,
manifest and journal.
"""

from __future__ import annotations

import argparse
import hashlib
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
WIDTH = 1024


def seconds(action: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def tensors_of(tree: Any) -> list[torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return [tree]
    inside = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else []
    return [tensor for part in inside for tensor in tensors_of(part)]


def save_safely(state: Any, path: Path) -> None:
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        os.fsync(file.fileno())
    partial.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def hash_file(path: Path) -> None:
    with path.open("rb") as file:
        hashlib.file_digest(file, "sha256")


def measure(megabytes: int, folder: Path) -> None:
    layers = max(1, round(megabytes * 1e6 / (3 * 4 * WIDTH * WIDTH)))
    model = nn.Sequential(nn.Linear(8, WIDTH), *(nn.Linear(WIDTH, WIDTH) for _ in range(layers)))
    optimizer = torch.optim.AdamW(model.parameters())
    with open_run(folder, tag="bench", save_every_s=None, console=Silent()) as run:
        run.track(model=model, optimizer=optimizer)

        def at_a_boundary() -> None:  # within a step a save would only be asked for
            if run.step == 1:
                state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                compare(run.save, state, folder / "plain.pth")

        for batch in run.batches(Points(), batch_size=16, steps=1, between=at_a_boundary):
            model(batch).mean().backward()
            optimizer.step()
            run.end_step()


def compare(save: Callable[[], Any], state: dict[str, Any], plain: Path) -> None:
    state_mb = sum(tensor.nbytes for tensor in tensors_of(state)) / 1e6
    copies = [tensor.clone() for tensor in tensors_of(state)]
    actions: dict[str, Callable[[], Any]] = {
        "one memory copy": lambda: [copy.copy_(tensor) for copy, tensor in zip(copies, tensors_of(state))],
        "torch.save + fsync + rename": lambda: save_safely(state, plain),
        "run.save()": save,
        "SHA-256 of the plain file": lambda: hash_file(plain),
    }
    for action in actions.values():
        action()
    rounds = [{name: seconds(action) for name, action in actions.items()} for _ in range(ROUNDS)]
    print(f"{state_mb:.0f} MB of state, median of {ROUNDS} alternating rounds")
    print(f"{'':<30} {'seconds':>8} {'MB/s':>7} {'of one copy':>12} {'of torch.save':>14}")
    for name in actions:
        median = statistics.median(round[name] for round in rounds)
        in_copies, in_saves = (
            statistics.median(round[name] / round[other] for round in rounds) for other in list(actions)[:2]
        )
        print(f"{name:<30} {median:8.3f} {state_mb / median:7.0f} {in_copies:12.1f} {in_saves:14.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        measure(options.megabytes, Path(folder))


if __name__ == "__main__":
    main()
