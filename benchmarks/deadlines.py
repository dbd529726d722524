"""Whether limited sessions end in time, and how much of their time they use: python benchmarks/deadlines.py

One training goes on through many sessions of random lengths. Its steps, evaluations and saves take random times
(lognormal), and the machine's own noise comes on top. A session is measured from outside, from before its process is
made until it has ended: `late` is how long it went on after its limit less the reserve, `idle` how long before that it
ended. The seed is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

SEED = 20_261_122
STEP_S, SPREAD = 0.15, 0.4  # median and sigma of the logarithm
EVALUATION_S, EVALUATE_EVERY, SAVE_EVERY = 0.6, 25, 25
ENDLESS = 10**6


def read(arguments: Sequence[str], environment: Any) -> Any:
    """The recipe: a folder, then the options of every recipe."""
    from unbroken import Job, LaunchOptions, OptionParser, add_common_options, session_limit, start_from
    from unbroken.config import Effects

    parser = OptionParser(prog="deadlines", allow_abbrev=False)
    parser.add_argument("folder", type=Path)
    add_common_options(parser)
    options = parser.parse_args(list(arguments))
    return Job(
        recipe="deadlines",
        tag="run",
        directory=options.folder,
        config={},
        effects=Effects(),
        seed=0,
        total_steps=ENDLESS,
        keep_last=2,
        limit=session_limit(options, environment),
        start=start_from(options, environment),
        task="deadlines:build",
        options=LaunchOptions(save_every=SAVE_EVERY, log_every=1000),
        command="again",
    )


def build(_job: Any, _say: Callable[[str], None]) -> Any:
    """A model that does nothing for a random time."""
    import torch

    from unbroken.train import Every, Task, Validation

    chance = random.Random(os.getpid())
    model = torch.nn.Linear(2, 1)

    def wait(median_s: float) -> None:
        time.sleep(chance.lognormvariate(0.0, SPREAD) * median_s)

    def loss(batch: torch.Tensor) -> dict[str, torch.Tensor]:
        wait(STEP_S)
        return {"loss": model(batch).square().mean()}

    def evaluate(_progress: Any, _poll: Callable[[], None]) -> dict[str, float]:
        wait(EVALUATION_S)
        return {"score": 0.0}

    optimizer = torch.optim.SGD(model.parameters(), lr=1e-9)
    return Task(
        model=model,
        optimizer=optimizer,
        schedule=torch.optim.lr_scheduler.ConstantLR(optimizer),
        dataset=[torch.ones(2) * number for number in range(64)],
        batch_size=4,
        loss=loss,
        steps=ENDLESS,
        validation=Validation(evaluate=evaluate, every=Every(steps=EVALUATE_EVERY), best="score"),
    )


def recipe() -> Any:
    """The entry of `unbroken train deadlines:...`."""
    from unbroken import Recipe

    return Recipe(name="deadlines", read=read, usage=lambda: "")


def session(folder: Path, session_s: float, reserve_s: float) -> tuple[int, float]:
    """Exit code, and seconds from before the process was made until it had ended."""
    here = Path(__file__).parent
    limit = ["--session", f"{session_s:.2f}s", "--reserve", f"{reserve_s:.2f}s"]
    command = [sys.executable, "-m", "unbroken", "train", "deadlines:RECIPE", str(folder), *limit]
    path = os.pathsep.join(part for part in (str(here), os.environ.get("PYTHONPATH", "")) if part)
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    began_s = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    took_s = time.monotonic() - began_s
    if done.returncode != 75:
        print(done.stdout[-2000:], done.stderr[-2000:])
    return done.returncode, took_s


def left_at_stop_s(folder: Path) -> float:
    """How much of its time the last session had left when it stopped, with everything saved."""
    lines = (folder / "unbroken" / "journal.jsonl").read_text("utf-8").splitlines()
    return next(event["left_s"] for event in map(json.loads, reversed(lines)) if event["event"] == "timing")


def many(folder: Path, sessions: int, seed: int) -> list[tuple[float, float, float, int, float]]:
    """Session length, reserve, seconds taken, exit code of the sessions of one run, and what their ends took."""
    chance, found = random.Random(seed), []
    for _ in range(sessions):
        session_s, reserve_s = chance.uniform(60.0, 120.0), chance.uniform(0.0, 5.0)
        code, took_s = session(folder, session_s, reserve_s)
        ending_s = took_s - (session_s - reserve_s) + left_at_stop_s(folder)
        found.append((session_s, reserve_s, took_s, code, ending_s))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--at-once", type=int, default=10, help="runs beside each other")
    parser.add_argument("--seed", type=int, default=SEED)
    asked = parser.parse_args()
    each = -(-asked.sessions // asked.at_once)
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(asked.at_once) as pool:
        runs = [Path(folder) / f"run{number}" for number in range(asked.at_once)]
        results = list(pool.map(lambda n: many(runs[n], each, asked.seed + n), range(asked.at_once)))
    rows = [row for result in results for row in result]
    late = [took - (length - reserve) for length, reserve, took, *_ in rows]
    idle = [max(-seconds, 0.0) for seconds in late]
    allowed = [max(0.05 * length, 2 * STEP_S) for length, *_ in rows]
    print(f"seed {asked.seed}, {len(rows)} sessions, {asked.at_once} at once, steps of about {STEP_S} s")
    print(f"exit codes: {sorted({row[3] for row in rows})}")
    print(f"late: {sum(seconds > 0 for seconds in late)} of {len(rows)}, the worst {max(late):+.2f} s")
    endings = sorted(row[4] for row in rows)
    print(
        f"from the last save to the end of the process: median {endings[len(endings) // 2]:.2f} s, {endings[-1]:.2f} s"
    )
    print(f"idle: mean {sum(idle) / len(idle):.2f} s, the longest {max(idle):.2f} s")
    print(f"idle beyond 5 % of the session or two steps: {sum(i > a for i, a in zip(idle, allowed))}")


RECIPE = recipe() if "unbroken" in sys.modules else None

if __name__ == "__main__":
    main()
