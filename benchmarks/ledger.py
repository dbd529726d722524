"""How long 10,000 runs take to list, beside MLflow's client: python benchmarks/ledger.py

Each run has the records that the program writes (made by its own classes, with real checkpoints' names and small files
in their place). Ours is measured as a user sees it: the whole process of `unbroken ls`, with the index (warm) and with
every run's files read anew. MLflow's runs are put into its SQLite store in bulk, then listed by its public client in a
process of its own; the time that its imports take is given beside it. The seed is printed.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from unbroken.checkpoint.manifest import SaveFacts
from unbroken.checkpoint.store import CheckpointStore
from unbroken.journal import Journal, StepLog
from unbroken.run.layout import ITERATIONS, manifests, own
from unbroken.run.record import RunRecord, write_record
from unbroken.storage import Disk, WritableFile, write_json

SEED = 20_261_122
STEPS, SAVE_EVERY = 4000, 1000
STATES = ("finished",) * 6 + ("stopped", "killed") * 2
QUERY = "best.mIoU>40"


class QuickDisk(Disk):
    """The real disk, but it does not wait for the medium: nothing here has to survive a power cut."""

    def sync(self, file: WritableFile) -> None:
        """Nothing."""

    def sync_folder(self, folder: Path) -> None:
        """Nothing."""


@dataclass
class MadeUpClock:
    """A clock that a run moves on."""

    moment: datetime = field(default_factory=lambda: datetime(2026, 1, 1, 8, tzinfo=UTC))

    def now(self) -> datetime:
        return self.moment

    def monotonic_s(self) -> float:
        return self.moment.timestamp()

    def pause_s(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def make_run(directory: Path, chance: random.Random, disk: Disk) -> dict[str, Any]:
    """One run of two sessions; returns what MLflow is told of it."""
    tag, clock = directory.name, MadeUpClock()
    config = {"optimizer": {"lr": chance.choice([1e-2, 1e-3, 1e-4]), "type": "AdamW"}, "model": {"width": 64}}
    for folder in (own(directory) / "configs", manifests(directory)):
        disk.make_folder(folder)
    identity = f"{chance.getrandbits(64):016x}"
    created = clock.now().isoformat(timespec="seconds")
    record = RunRecord(id=identity, recipe="mapsage", tag=tag, created=created, seed=0, layout=ITERATIONS.as_plain())
    write_record(disk, directory, record)
    status, step, best = chance.choice(STATES), 0, -1.0
    for number in range(2):
        session = (clock.now() + timedelta(seconds=number)).strftime("%Y%m%d_%H%M%S")
        journal = Journal(disk, own(directory) / "journal.jsonl", clock=clock, session=session)
        steps = StepLog(disk, own(directory) / "metrics.jsonl", session=session)
        store = CheckpointStore(
            disk, directory, manifests=manifests(directory), record=journal.write, pointer="", keep_last=2
        )
        verdict = {"verdict": "Resume", "step": step} if number else {"verdict": "Fresh"}
        journal.write("session", plan={**verdict, "reasons": ["made up"]}, command="unbroken train", total=STEPS)
        write_json(disk, own(directory) / "configs" / f"{session}.json", config)
        for _ in range(2):
            step += SAVE_EVERY
            clock.pause_s(600)
            steps.write_step(step, epoch=0, samples=[1, 2, 3, 4], values={"loss": chance.random(), "lr": 0.01})
            score = round(chance.uniform(0, 80), 3)
            facts = SaveFacts(
                file=f"iter_{step}.pth", kind="checkpoint", run=identity, save=f"{step:016x}", session=session,
                step=step, epoch=0, time=clock.now().isoformat(timespec="seconds"),
            )  # fmt: skip
            store.save(facts, lambda file: file.write(b"made up") and None)
            steps.write_evaluation(step, {"mIoU": score, "mAcc": score / 2})
            better, best = score > best, max(best, score)
            metrics = {"mIoU": score, "mAcc": score / 2}
            journal.write("evaluated", step=step, metrics=metrics, metric="mIoU", best=better)
        if status != "killed" or not number:
            journal.write("finished" if number and status == "finished" else "stopped", step=step, reason="made up")
        steps.close()
        journal.close()
    return {"tag": tag, "params": {"lr": config["optimizer"]["lr"]}, "best": best, "step": step}


def make_runs(root: Path, count: int, seed: int) -> list[dict[str, Any]]:
    chance, disk = random.Random(seed), QuickDisk()
    return [make_run(root / f"group{n // 500:02d}" / f"run{n:05d}", chance, disk) for n in range(count)]


# -- measuring -------------------------------------------------------------------------------------------------------


def seconds(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """How long the whole process takes, and how long of that its own imports, where it says so."""
    began = time.perf_counter()
    done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, check=False)
    took_s = time.perf_counter() - began
    assert done.returncode == 0 and done.stdout.strip(), done.stderr
    said = done.stderr.split()
    return took_s, float(said[-1]) if said and command[1:2] == ["-c"] else 0.0


def surroundings(folder: Path, **more: str) -> dict[str, str]:
    """Compiled files are kept, as in every installation."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPYCACHEPREFIX": str(folder / "compiled"), "PYTHONUTF8": "1", **more}


def ours(root: Path, folder: Path, cache: str, *options: str) -> tuple[list[str], dict[str, str]]:
    command = [sys.executable, "-m", "unbroken", "ls", str(root), *options]
    return command, surroundings(folder, UNBROKEN_CACHE=str(folder / cache))


MLFLOW_FILL = """
import json, sys
from sqlalchemy import insert
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.store.tracking.dbmodels.models import SqlRun, SqlParam, SqlLatestMetric, SqlMetric, SqlTag
store = SqlAlchemyStore(sys.argv[1], sys.argv[2])
experiment = store.create_experiment("made up")
runs, params, metrics, latest, tags = [], [], [], [], []
for n, run in enumerate(json.load(open(sys.argv[3]))):
    id = f"{n:032x}"
    runs.append(dict(
        run_uuid=id, name=run["tag"], source_type="LOCAL", source_name="", entry_point_name="", user_id="x",
        status="FINISHED", start_time=n, end_time=n, source_version="", lifecycle_stage="active",
        artifact_uri="file:///x", experiment_id=int(experiment)))
    params.append(dict(run_uuid=id, key="lr", value=str(run["params"]["lr"])))
    row = dict(run_uuid=id, key="mIoU", value=run["best"], timestamp=n, step=run["step"], is_nan=False)
    latest.append(row); metrics.append(row)
    tags.append(dict(run_uuid=id, key="mlflow.runName", value=run["tag"]))
with store.ManagedSessionMaker() as session:
    for model, rows in (
        (SqlRun, runs), (SqlParam, params), (SqlMetric, metrics), (SqlLatestMetric, latest), (SqlTag, tags)
    ):
        session.execute(insert(model), rows)
print(experiment)
"""
MLFLOW_LIST = """
import sys, time
began = time.perf_counter()
from mlflow.tracking import MlflowClient
client = MlflowClient(tracking_uri=sys.argv[1])
imported = time.perf_counter() - began
where, order = sys.argv[3], [part for part in [sys.argv[4]] if part]
runs, token = [], None
while True:
    page = client.search_runs([sys.argv[2]], filter_string=where, order_by=order, max_results=50000, page_token=token)
    runs += page
    token = page.token
    if not token:
        break
for run in runs:
    best, lr = run.data.metrics.get("mIoU"), run.data.params.get("lr")
    sys.stdout.write(f"{run.info.run_name} {run.info.status} {best} {lr}\\n")
sys.stderr.write(f"{imported:.3f}")
"""


def mlflow(folder: Path, told: list[dict[str, Any]]) -> Callable[[str, str], list[str]] | str:
    """A function that gives the command that lists; or why there is none."""
    address = f"sqlite:///{folder / 'mlflow.db'}"
    (folder / "told.json").write_text(json.dumps(told))
    done = subprocess.run(
        [sys.executable, "-c", MLFLOW_FILL, address, str(folder), str(folder / "told.json")],
        env=surroundings(folder), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["?"])[-1]
    experiment = done.stdout.split()[-1]
    return lambda where, order: [sys.executable, "-c", MLFLOW_LIST, address, experiment, where, order]


def table(rows: Mapping[str, list[float]], base: float) -> Iterator[str]:
    width = max(map(len, rows))
    yield f"{'':{width}s} {'median ms':>9s} {'best ms':>8s} {'ratio':>6s}"
    for name, times in rows.items():
        middle = sorted(times)[len(times) // 2]
        yield f"{name:{width}s} {middle * 1e3:9.0f} {min(times) * 1e3:8.0f} {middle / base:6.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--keep", type=Path, help="make the runs here, and use those that are there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(asked, Path(name))


def measure(asked: argparse.Namespace, folder: Path) -> None:
    root = asked.keep or folder / "runs"
    listed = folder / "told.json" if asked.keep is None else asked.keep.with_suffix(".json")
    if asked.keep is None or not listed.exists():
        told = make_runs(root, asked.runs, asked.seed)
        listed.write_text(json.dumps(told))
    told = json.loads(listed.read_text())
    print(f"seed {asked.seed}, {len(told)} runs of 2 sessions, 4 evaluations and 2 kept checkpoints each")
    time.sleep(2.5)  # what changed a moment ago is read again the next time
    anew = ours(root, folder, "cache", "--anew")
    commands = {
        "ls": ours(root, folder, "cache"),
        f"ls --where {QUERY} --sort -best.mIoU": ours(root, folder, "cache", "--where", QUERY, "--sort", "-best.mIoU"),
        "python -c print(1)": ([sys.executable, "-c", "print(1)"], surroundings(folder)),
    }
    theirs = mlflow(folder, told)
    if isinstance(theirs, str):
        print(f"MLflow was not measured: {theirs}")
    else:
        commands["MLflow: search_runs, all"] = theirs("", ""), surroundings(folder)
        filtered = theirs("metrics.mIoU > 40", "metrics.mIoU DESC")
        commands["MLflow: search_runs, filter and order"] = filtered, surroundings(folder)
    found = {"ls --anew (every run's files are read)": [seconds(*anew)[0] for _ in range(3)]}
    for _ in range(asked.turns):
        for name, (command, environment) in commands.items():
            took_s, imports_s = seconds(command, environment)
            found.setdefault(name, []).append(took_s)
            if imports_s:
                found.setdefault(f"{name}, without its imports", []).append(took_s - imports_s)
    middle = sorted(found["ls"])[asked.turns // 2]
    print(f"whole processes, median and best of {asked.turns} alternating turns; ratio to `ls`")
    print("\n".join(table(found, middle)))


if __name__ == "__main__":
    main()
