"""What resuming costs at step 20,000 and at step 10: python benchmarks/resume_cost.py

Two runs of the same job stand at step 10 and at step 20,000 of a big data set. The last ten steps of each are trained,
the records of those before are written by the same `StepLog`. Then fresh processes resume them in turns. Measured is
the time from `open_run` to the first batch (the import of torch is not counted).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from loop_overhead import BATCH, Points, Silent, model_and_optimizer, step_of
from why_start_up import TRAINED, write_records

from unbroken.train import open_run

ROUNDS = 5
FAR = 20_000


def train(folder: Path, tag: str, steps: int) -> None:
    model, optimizer = model_and_optimizer()
    with open_run(folder, tag=tag, save_every_s=None, console=Silent()) as run:
        write_records(folder / tag, steps - TRAINED)
        run.progress.step, run.progress.position = steps - TRAINED, (steps - TRAINED) * BATCH
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(Points(100_000), batch_size=BATCH, steps=FAR * 2):
            run.end_step(loss=step_of(model, optimizer, batch))
            if run.step == steps:
                break  # leaving the loop early saves


def first_batch_s(folder: Path, tag: str) -> dict[str, float]:
    """In a fresh process: resume, and stop the clock at the first batch."""
    model, optimizer = model_and_optimizer()  # torch imports a lot for its first optimizer: not our cost
    begin = time.perf_counter()
    with open_run(folder, tag=tag, save_every_s=None, console=Silent()) as run:
        run.track(model=model, optimizer=optimizer)
        for _ in run.batches(Points(100_000), batch_size=BATCH, steps=FAR * 2):
            return {"step": run.step, "seconds": time.perf_counter() - begin}
    raise AssertionError("no batch came")


def in_a_fresh_process(folder: Path, tag: str) -> dict[str, float]:
    command = [sys.executable, __file__, str(folder), tag]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    torch.set_num_threads(1)
    if len(sys.argv) > 1:
        print(json.dumps(first_batch_s(Path(sys.argv[1]), sys.argv[2])))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(folder, "near", 10)
        train(folder, "far", FAR)
        rounds = [{tag: in_a_fresh_process(folder, tag) for tag in ("near", "far")} for _ in range(ROUNDS)]
        print(f"from open_run to the first batch, median of {ROUNDS} alternating fresh processes")
        for tag in ("near", "far"):
            found = [round[tag] for round in rounds]
            print(
                f"resume at step {found[0]['step']:>6}: {statistics.median(f['seconds'] for f in found) * 1e3:6.0f} ms"
            )
        ratio = statistics.median(round["far"]["seconds"] / round["near"]["seconds"] for round in rounds)
        print(f"ratio: {ratio:.2f}")


if __name__ == "__main__":
    main()
