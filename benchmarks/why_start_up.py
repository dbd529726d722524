"""How long short commands take from start to end: python benchmarks/why_start_up.py

Of a run with 200,000 recorded steps the last ten are trained; the records of those before are written by the same
`StepLog`. The other run is a real one, of `aerial_tiny.py`. The best of several turns is shown, as time of the clock
and of the processor, beside a bare `python -c pass` and the two libraries that reading a config needs, and as a
multiple of these: much of what a short command takes is Python's own start.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from unbroken import Job, Recipe
from unbroken.config import Effect, Effects
from unbroken.launch import Environment

ROUNDS, TRAINED = 10, 10
STEPS = {"near": 10, "far": 200_000}


def read(arguments: Sequence[str], _environment: Environment) -> Job:
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
    from unbroken.train.arguments import SessionOptions

    torch.set_num_threads(1)
    before = steps - TRAINED
    model, optimizer = model_and_optimizer()
    options = SessionOptions(every=Every(steps=steps))
    with launch(read([str(folder)], Environment()), console=Silent(), options=options) as run:
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


def train_really(folder: Path) -> list[str]:
    """A run of `aerial_tiny.py` of a few steps; returns what to type behind `why` to make it longer."""
    config = Path(__file__).resolve().parents[1] / "apps" / "mapsage" / "configs" / "aerial_tiny.py"
    words = ["mapsage", str(config), "--cfg-options", "train_cfg.max_iters=8", "train_cfg.val_interval=4"]
    for typed in (["data", "aerial", "data/aerial"], ["train", *words]):
        spent("-m", "unbroken", *typed, place=folder)
    return [word.replace("max_iters=8", "max_iters=16") for word in words]


def spent(*command: str, place: Path) -> tuple[float, float]:
    """Seconds of the clock, and of the processor."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    cached = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    known = {**cached, "PYTHONPATH": str(Path(__file__).parent), "UNBROKEN_CACHE": str(place / "cache")}
    subprocess.run([sys.executable, *command], check=True, capture_output=True, cwd=place, env=known)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.perf_counter() - begin, used


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for tag, steps in STEPS.items():
            train(folder / tag, steps)
        real = train_really(folder)
        unbroken = ["-m", "unbroken"]
        commands = {
            "python -c pass": ["-c", "pass"],
            "import pydantic, yaml": ["-c", "import pydantic, yaml"],
            "import unbroken.cli": ["-c", "import unbroken.cli"],
            "--version": [*unbroken, "--version"],
            "--help": [*unbroken, "--help"],
            "ls": [*unbroken, "ls", "."],
            "show aerial_tiny": [*unbroken, "show", "aerial_tiny"],
            "why, aerial_tiny": [*unbroken, "why", *real],
            **{
                f"why, {steps} steps": [*unbroken, "why", "why_start_up:recipe", str(folder / tag)]
                for tag, steps in STEPS.items()
            },
        }
        times: dict[str, list[tuple[float, float]]] = {words: [] for words in commands}
        for _ in range(ROUNDS):
            for words, command in commands.items():
                times[words].append(spent(*command, place=folder))
        size_mb = (folder / "far" / "unbroken" / "metrics.jsonl").stat().st_size / 1e6
        print(f"best of {ROUNDS} turns, ms; the record of the {STEPS['far']} steps has {size_mb:.1f} MB")
        print(f"{'':<22} {'clock':>6} {'processor':>10} {'of the two libraries':>21}")
        libraries = min(processor for _, processor in times["import pydantic, yaml"]) * 1e3
        for words, found in times.items():
            clock, processor = (min(each) * 1e3 for each in zip(*found))
            print(f"{words:<22} {clock:6.0f} {processor:10.0f} {processor / libraries:20.1f}x")


if __name__ == "__main__":
    main()
