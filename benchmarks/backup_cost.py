"""What `--backup` costs the training beside it: python benchmarks/backup_cost.py [--folder DIR]

The same training, saving every 25 steps, with and without a backup of each save; both take turns. Counted are the steps
and the saves between the first and the last step, not the wait for the last backup at the end. The backup goes to the
same disk, which is the worst place for it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from loop_overhead import Points, Silent
from torch import nn

from unbroken.train import open_run

WIDTH, LAYERS, STEPS, SAVE_EVERY, ROUNDS = 512, 4, 300, 25, 5


def train(folder: Path, *, backup: Path | None) -> float:
    """Milliseconds of a step, with all that is between two of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, WIDTH), *(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
    optimizer = torch.optim.AdamW(model.parameters())
    began_s = ended_s = 0.0
    with open_run(folder, tag="bench", save_every=SAVE_EVERY, keep_last=2, backup=backup, console=Silent()) as run:
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(Points(), batch_size=64, steps=STEPS):
            began_s = began_s or time.perf_counter()
            model(batch).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            run.end_step()
            ended_s = time.perf_counter()
    return (ended_s - began_s) / STEPS * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds = []
    for number in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            asked = [(folder / "plain", None), (folder / "backed up", folder / "dest")]
            turns = asked if number % 2 else asked[::-1]
            times = {backup is not None: train(place, backup=backup) for place, backup in turns}
            rounds.append((times[False], times[True]))
    plain_ms, backed_up_ms = (statistics.median(column) for column in zip(*rounds))
    ratio = statistics.median(backed_up / plain for plain, backed_up in rounds)
    parameters = 12 * WIDTH * (8 + WIDTH * LAYERS)
    print(f"median of {ROUNDS} alternating rounds of {STEPS} steps, {parameters / 1e6:.0f} MB saved every {SAVE_EVERY}")
    print(f"without --backup {plain_ms:6.2f} ms a step, with it {backed_up_ms:6.2f}, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
