"""What the curves for TensorBoard cost a training: python benchmarks/curves_cost.py [--folder DIR]

Compared, taking turns, on the same points: `Curves.add` and `torch.utils.tensorboard.SummaryWriter.add_scalar`, with a
pause after each block in which the threads of both write, and room for a block in the queue. Then what a save waits
for, and the imports, in fresh processes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from unbroken.clock import SystemClock
from unbroken.storage import Disk
from unbroken.train.record.hparams import RunSettings
from unbroken.train.record.tensorboard import TensorBoardCurves

POINTS, BLOCKS, PROCESSES = 500, 15, 5
PAUSE_S = 0.2
NEVER_S = 3600.0
IMPORT = "import sys, time, {before}; begin = time.perf_counter(); import {module}; print(time.perf_counter() - begin)"


def microseconds(add: Callable[[int], None], first: int) -> float:
    """Microseconds per point of one block."""
    begin = time.perf_counter()
    for step in range(first, first + POINTS):
        add(step)
    elapsed = time.perf_counter() - begin
    time.sleep(PAUSE_S)
    return elapsed / POINTS * 1e6


def compare_adding(folder: Path, curves_of_a_step: int) -> None:
    values = {f"train/loss_{number}": 0.5 for number in range(curves_of_a_step)}
    ours = TensorBoardCurves(
        Disk(),
        folder / "ours",
        SystemClock(),
        session="bench",
        after=-1,
        settings=RunSettings(group="bench", begun_s=1.7e9, values={"lr": 1e-3}),
        follow_every_s=PAUSE_S / 3,
    )
    theirs = SummaryWriter(str(folder / "theirs"), max_queue=POINTS * curves_of_a_step, flush_secs=1)

    def add_theirs(step: int) -> None:
        for tag, value in values.items():
            theirs.add_scalar(tag, value, step)

    def add_ours(step: int) -> None:
        ours.add(step, values, wall_time_s=1.7e9)

    microseconds(add_ours, 0), microseconds(add_theirs, 0)  # the imports do not count
    pairs = [(microseconds(add_ours, n * POINTS), microseconds(add_theirs, n * POINTS)) for n in range(1, BLOCKS + 1)]
    ours_us, theirs_us = (statistics.median(column) for column in zip(*pairs))
    ratio = statistics.median(theirs / ours for ours, theirs in pairs)
    ours.close()
    theirs.close()
    print(f"{curves_of_a_step:>2} curves, per step {'':<12} {ours_us:9.2f} {theirs_us:11.2f} {ratio:7.1f}")


def measure_flush(folder: Path) -> None:
    """What a save waits for: one serialises the points of a block, the other has nothing left to write but to sync."""
    curves = TensorBoardCurves(
        Disk(), folder / "flush", SystemClock(), session="bench", after=-1, follow_every_s=NEVER_S
    )
    waits: list[tuple[float, float]] = []
    for block in range(BLOCKS):
        for step in range(POINTS):
            curves.add(block * POINTS + step, {"loss": 0.5, "lr": 1e-3, "grad_norm": 2.0}, wall_time_s=1.7e9)
        begin = time.perf_counter()
        curves.flush()
        full = time.perf_counter()
        curves.flush()
        waits.append((full - begin, time.perf_counter() - full))
    curves.close()
    full_s, empty_s = (statistics.median(column) for column in zip(*waits[1:]))  # the first one imports
    print(
        f"flush of {POINTS} steps of 3 curves: {full_s * 1e3:.2f} ms, {(full_s - empty_s) / POINTS * 1e6:.1f} us each"
    )
    print(f"flush of nothing: {empty_s * 1e3:.2f} ms")


def import_ms(before: str, module: str) -> float:
    program = IMPORT.format(before=before, module=module)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout) * 1e3


def measure_imports() -> None:
    cases = {
        "what our thread imports": (
            "unbroken.train",
            "tensorboard.summary.writer.record_writer, tensorboard.plugins.hparams.metadata",
        ),
        "torch.utils.tensorboard": ("unbroken.train", "torch.utils.tensorboard"),
    }
    rounds = [{name: import_ms(*case) for name, case in cases.items()} for _ in range(PROCESSES)]
    print(f"import, milliseconds after torch, median of {PROCESSES} alternating fresh processes")
    for name in cases:
        print(f"{name:<30} {statistics.median(turn[name] for turn in rounds):9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as folder:
        print(f"median of {BLOCKS} alternating blocks of {POINTS} steps, microseconds that the training waits")
        print(f"{'':<32} {'add':>9} {'add_scalar':>11} {'ratio':>7}")
        for curves_of_a_step in (1, 3, 10):
            compare_adding(Path(folder) / str(curves_of_a_step), curves_of_a_step)
        measure_flush(Path(folder))
    measure_imports()


if __name__ == "__main__":
    main()
