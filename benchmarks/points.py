"""Reading 1,000,000 points for a comparison: python benchmarks/points.py [--points N] [--folder DIR]

The same curves (loss and learning rate of each step) are read from our record by `facts_of_runs`, as `compare` does,
and from the event files that the training writes beside it by TensorBoard's EventAccumulator, in the same run, taking
turns; so are those of a record with one value a line. Records are written as a session writes them, each step with the
ids of its samples.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unbroken.clock import SystemClock
from unbroken.journal import Journal, StepLog
from unbroken.report.run_facts import facts_of_runs
from unbroken.storage import Disk

POINTS, TURNS, SAMPLES, SEED = 1_000_000, 3, 8, 6
SESSION = "20260101_000000"
STEPS_AN_EPOCH = 1000


@dataclass(frozen=True)
class Case:
    """How the points are spread."""

    runs: int
    names: tuple[str, ...]

    def steps(self, points: int) -> int:
        return points // self.runs // len(self.names)

    def __str__(self) -> str:
        return f"{self.runs} run{'s' * (self.runs > 1)}, {len(self.names)} a line"


CASES = (Case(100, ("loss", "lr")), Case(1, ("loss", "lr")), Case(1, ("loss",)))


def write_run(run: Path, steps: int, names: Sequence[str], chance: random.Random) -> None:
    """What a session of so many steps leaves: journal, record, event file."""
    from unbroken.train.record.tensorboard import (
        TensorBoardCurves,  # here, because the processes that read load this file too
    )

    (run / "unbroken").mkdir(parents=True)
    disk, clock = Disk(), SystemClock()
    journal = Journal(disk, run / "unbroken" / "journal.jsonl", clock=clock, session=SESSION)
    journal.write("session", plan={"verdict": "Fresh"}, total=steps)
    record = StepLog(disk, run / "unbroken" / "metrics.jsonl", session=SESSION)
    curves = TensorBoardCurves(disk, run / "tensorboard", clock, session=SESSION, after=-1, follow_every_s=3600.0)
    for step in range(1, steps + 1):
        values = {name: chance.random() for name in names}
        samples = [chance.randrange(5000) for _ in range(SAMPLES)]
        record.write_step(step, epoch=step // STEPS_AN_EPOCH, samples=samples, values=values)
        curves.add(step, values, wall_time_s=1.7e9 + step)
        if step % 10_000 == 0:
            curves.flush()
    curves.close()
    record.close()
    journal.close()


def read_ours(runs: Sequence[Path]) -> int:
    read = (found.curves for found in facts_of_runs(runs, processes=os.cpu_count() or 1))
    return sum(len(segment.points) for run in read for segments in run.values.values() for segment in segments)


def read_theirs(runs: Sequence[Path]) -> int:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    count = 0
    for run in runs:
        events = EventAccumulator(str(run / "tensorboard"), size_guidance={SCALARS: 0})
        events.Reload()
        count += sum(len(events.Scalars(tag)) for tag in events.Tags()["scalars"])
    return count


def seconds(read: Callable[[Sequence[Path]], int], runs: Sequence[Path], points: int) -> float:
    begin = time.perf_counter()
    found = read(runs)
    elapsed = time.perf_counter() - begin
    assert found == points, f"{found} of {points} points were read"
    return elapsed


def compare(case: Case, points: int, folder: Path) -> None:
    chance = random.Random(SEED)
    runs = [folder / f"run_{number:03}" for number in range(case.runs)]
    steps = case.steps(points)
    for run in runs:
        write_run(run, steps, case.names, chance)
    there = steps * len(case.names) * case.runs
    ours = [seconds(read_ours, runs, there) for _ in range(TURNS)]
    theirs = seconds(read_theirs, runs, there)
    size_mb = sum((run / "unbroken" / "metrics.jsonl").stat().st_size for run in runs) / 1e6
    median, best = statistics.median(ours), min(ours)
    print(
        f"{case!s:<20} {there:>9,} {size_mb:>6.0f} {best:>7.2f} {median:>7.2f} {theirs:>8.1f} {theirs / median:>7.0f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=POINTS)
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    given = parser.parse_args()
    print(f"seed {SEED}; seconds; ours: best and median of {TURNS} turns; EventAccumulator: one")
    print(f"{'':<20} {'points':>9} {'MB':>6} {'best':>7} {'median':>7} {'theirs':>8} {'ratio':>7}")
    for case in CASES:
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            compare(case, given.points, Path(folder))


if __name__ == "__main__":
    main()
