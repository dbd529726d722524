"""How long `unbroken why` takes on a run with 40,000 recorded steps: python benchmarks/why_start_up.py

The last ten steps are trained; the records of those before are written by the same `StepLog`. The best of several
turns is shown beside a bare `python -c pass`, because much of what a short command takes is Python's own start.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unbroken import Job, Recipe
from unbroken.config import Effect, Effects

ROUNDS, TRAINED = 10, 10
STEPS = {"near": 10, "far": 40_000}


def read(arguments: Sequence[str], _environment: Mapping[str, Any]) -> Job:
    """The job of this benchmark: its one argument is the run's folder."""
    folder = Path(arguments[0])
    return Job(
        recipe="bench",
        tag=folder.name,
        directory=folder,
        config={"lr": 1e-3},
        effects=Effects(own=Effect.FREE),
        seed=0,
        total_steps=STEPS["far"] * 2,
    )


recipe = Recipe(name="bench", read=read, usage=lambda: str(__doc__))


def train(folder: Path, steps: int) -> None:
    import torch
    from loop_overhead import BATCH, Points, Silent, model_and_optimizer, step_of

    from unbroken.train import Every, launch
    from unbroken.train.options import SessionOptions

    torch.set_num_threads(1)
    before = steps - TRAINED
    model, optimizer = model_and_optimizer()
    options = SessionOptions(every=Every(steps=steps))
    with launch(read([str(folder)], {}), console=Silent(), options=options) as run:
        write_records(folder, before)
        run.progress.step, run.progress.position = before, before * BATCH
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(Points(100_000), batch_size=BATCH, steps=STEPS["far"] * 2):
            run.end_step(loss=step_of(model, optimizer, batch))
            if run.step == steps:
                break


def write_records(folder: Path, steps: int) -> None:
    from unbroken.journal import StepLog
    from unbroken.storage import Disk

    log = StepLog(Disk(), folder / "unbroken" / "metrics.jsonl", session="20260101_000000")
    for step in range(1, steps + 1):
        samples = [(step * 16 + place) * 7919 % 100_000 for place in range(16)]
        log.write_step(step, epoch=step // 6250, samples=samples, values={"loss": 1 / step, "lr": 1e-3})
    log.close()


def seconds(*command: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=Path(__file__).parent)
    return time.perf_counter() - begin


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for tag, steps in STEPS.items():
            train(folder / tag, steps)
        commands = {
            "python -c pass": ["-c", "pass"],
            **{
                f"why, {steps} steps": ["-m", "unbroken", "why", "why_start_up:recipe", str(folder / tag)]
                for tag, steps in STEPS.items()
            },
        }
        times = {words: [] for words in commands}
        for _ in range(ROUNDS):
            for words, command in commands.items():
                times[words].append(seconds(*command))
        size_mb = (folder / "far" / "unbroken" / "metrics.jsonl").stat().st_size / 1e6
        print(f"best of {ROUNDS} turns; the record of the {STEPS['far']} steps has {size_mb:.1f} MB")
        for words, found in times.items():
            print(f"{words:<20} {min(found) * 1e3:6.0f} ms")


if __name__ == "__main__":
    main()
