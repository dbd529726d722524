"""Two commands on one run, started in the same moment: what they end with, and what must be there afterwards.

`python -m tests.crash.races FOLDER --times 50 --seed 0` starts each pair 50 times and prints what came of each.
Everything is imported once; each command is a process forked from here, and both wait for one pipe to be closed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from unbroken.cli import main
from unbroken.config import Effect, Effects
from unbroken.launch import Fresh, Job, decide, gather
from unbroken.run import look_at
from unbroken.run.layout import manifests
from unbroken.train import Exit, open_run

TAG, STEPS, CONFIG = "tiny", 8, {"lr": 0.1}
KEPT_BY_PRUNE = 2
LONGEST_S = 120.0

# What each command may end with beside 0; docs/sessions.md says when.
HELD, REFUSED, USAGE = 11, 10, 2
ENDINGS = {
    "train": {HELD, REFUSED},
    "restore": {HELD, USAGE},
    "restore_from": {HELD, REFUSED},
    "prune": {HELD, REFUSED, USAGE},
    "backup": {HELD, REFUSED, USAGE},
    "pack": {HELD, REFUSED, USAGE},
    "unpack": {HELD, REFUSED},
    "log": {HELD},
    "pin": {USAGE},
}


def train(root: Path, *, fresh: bool) -> int:
    """A training of a few steps, as a script of anybody's; its exit code."""
    try:
        with open_run(root / "runs", tag=TAG, config=CONFIG, save_every=2, save_every_s=None, fresh=fresh) as run:
            weight = torch.nn.Parameter(torch.ones(2))
            optimizer = torch.optim.SGD([weight], lr=0.1)
            run.track(weight=torch.nn.ParameterList([weight]), optimizer=optimizer)
            for _ in run.steps(STEPS):
                loss = (weight * torch.rand(2)).sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.end_step(loss=loss)
    except Exit as ending:
        return int(ending.code) if isinstance(ending.code, int) else 1
    return 0


def commands(root: Path) -> dict[str, Callable[[], int]]:
    """Each command by its name, on the run in `root`."""
    run, history = root / "runs" / TAG, (root / "history").read_text()

    def typed(*words: object) -> Callable[[], int]:
        return lambda: main([str(word) for word in words])

    return {
        "train": lambda: train(root, fresh=True),
        "restore": typed("restore", run, history),
        "restore_from": typed("restore", run, "--from", root / "dest"),
        "prune": typed("prune", run, "--keep-last", KEPT_BY_PRUNE, "--no-keep-best"),
        "backup": typed("backup", run, root / "dest"),
        "pack": typed("pack", run, root / "again.zip"),
        "unpack": typed("unpack", root / "packed.zip", run),
        "log": typed("log", root / "runs"),
        "pin": typed("pin", run, 4),
    }


def prepare(root: Path) -> None:
    """A run with four saves and an older history in its archive, its backup, and the same run packed."""
    assert train(root, fresh=False) == 0
    assert train(root, fresh=True) == 0
    (history,) = (root / "runs" / TAG / "archive").iterdir()
    (root / "history").write_text(history.name)
    with contextlib.redirect_stdout(None):
        assert main(["backup", str(root / "runs" / TAG), str(root / "dest")]) == 0
        assert main(["pack", str(root / "runs" / TAG), str(root / "packed.zip")]) == 0


@dataclass(frozen=True)
class Ending:
    """What became of one command."""

    name: str
    code: int
    said: str


def race(root: Path, names: tuple[str, str], chance: random.Random) -> list[Ending]:
    """Start two commands in the same moment, the one perhaps a few milliseconds behind."""
    asleep, awake = os.pipe()
    children = []
    for number, name in enumerate(names):
        pause_s = chance.choice([0.0, 0.0, 0.002, 0.01, 0.03, 0.1])
        said = root / f"said_{number}"
        child = os.fork()
        if child == 0:
            os.close(awake)
            _be(commands(root)[name], said, asleep, pause_s)
        children.append((name, child, said))
    os.close(asleep)
    os.close(awake)
    return [Ending(name, _code_of(child), said.read_text()) for name, child, said in children]


def _be(command: Callable[[], int], said: Path, asleep: int, pause_s: float) -> None:
    """The rest of a child's life."""
    code = 1
    try:
        descriptor = os.open(said, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        os.read(asleep, 1)
        time.sleep(pause_s)
        code = command()
    finally:
        sys.stdout.flush()
        os._exit(code)


def _code_of(child: int) -> int:
    give_up = time.monotonic() + LONGEST_S
    while time.monotonic() < give_up:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -9


def saves_in(folder: Path) -> dict[str, list[Path]]:
    """Every checkpoint below a folder, by its digest."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.pth")):
        if not path.is_symlink():
            found.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), []).append(path)
    return found


def troubles(root: Path, before: dict[str, list[Path]], endings: list[Ending], *, was_there: bool) -> list[str]:
    """What is not as it must be after a race; `before` are the saves that there were."""
    run, found = root / "runs" / TAG, list[str]()
    for ending in endings:
        if ending.code not in {0, *ENDINGS[ending.name]} or "Traceback" in ending.said:
            found.append(f"{ending.name} ended with {ending.code}: {ending.said[-2000:]}")
    now = saves_in(root)
    pruned = any(ending.name == "prune" and ending.code == 0 for ending in endings)
    for digest, paths in before.items():
        if digest not in now and not (pruned and _may_be_pruned(paths)):
            found.append(f"lost: {', '.join(map(str, paths))}")
    here = saves_in(run)
    if was_there and not pruned:
        found += [f"only the backup has {paths[0]}" for digest, paths in before.items() if digest not in here]
    found += [f"{path} is {seen.state}: {seen.reason}" for path, seen in _looked_at(run) if seen.state != "good"]
    for name in ("journal.jsonl", "metrics.jsonl"):
        for file in sorted(root.rglob(name)):
            found += [
                f"{file} has a line {line[:80]!r}" for line in file.read_bytes().splitlines() if not _is_json(line)
            ]
    plan = decide(job := _job(run), gather(job))
    if isinstance(plan, Fresh) and (was_there or (run / "unbroken/journal.jsonl").exists()):
        found.append("`why` says FRESH")
    left = [path for path in (*root.rglob("*.partial"), *root.rglob("lock.*")) if path.parent != run.parent]
    return found + [f"left behind: {path}" for path in left]


def _may_be_pruned(paths: list[Path]) -> bool:
    return all(int(path.stem.rpartition("_")[2]) <= STEPS - 2 * KEPT_BY_PRUNE for path in paths)


def _looked_at(run: Path) -> list[tuple[Path, object]]:
    return [(path, look_at(path, manifests(run))) for path in sorted(run.glob("*.pth")) if not path.is_symlink()]


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _job(run: Path) -> Job:
    return Job(
        recipe="open_run",
        tag=TAG,
        directory=run,
        config=CONFIG,
        effects=Effects(own=Effect.DATA),
        seed=0,
        command="again",
    )


def one_start(prepared: Path, scratch: Path, names: tuple[str, str], seed: str) -> tuple[list[Ending], list[str]]:
    """One race in a copy of its own of what was prepared; in every second one the run's folder is gone."""
    chance = random.Random(seed)
    was_there = chance.random() < 0.5
    root = Path(shutil.copytree(prepared, scratch, symlinks=True))
    if not was_there:
        shutil.rmtree(root / "runs" / TAG)
    os.chdir(root)
    before = saves_in(root / "runs" / TAG if was_there else root / "dest")
    endings = race(root, names, chance)
    found = troubles(root, before, endings, was_there=was_there)
    os.chdir(prepared)
    if not found:
        shutil.rmtree(scratch)
    return endings, [f"{names} seed {seed} {'there' if was_there else 'gone'}: {words}" for words in found]


def all_pairs() -> list[tuple[str, str]]:
    """Each pair of commands, each with itself too."""
    return list(itertools.combinations_with_replacement(ENDINGS, 2))


def run_all(root: Path, times: int, seed: int) -> int:
    """Start every pair so many times; 0 if all is as it must be."""
    torch.set_num_threads(1)
    prepared = root / "prepared"
    prepared.mkdir(parents=True)
    print(f"seed {seed}")
    prepare(prepared)
    bad = 0
    for names in all_pairs():
        came: Counter[str] = Counter()
        for number in range(times):
            scratch = root / f"{'-'.join(names)}-{number}"
            endings, found = one_start(prepared, scratch, names, f"{seed} {names} {number}")
            came[" ".join(f"{ending.name} {ending.code}" for ending in endings)] += 1
            bad += bool(found)
            for words in found:
                print(f"NOT SO: {words}")
        print(", ".join(f"{words} ({count})" for words, count in sorted(came.items())), flush=True)
    print(f"{times * len(all_pairs())} starts, {bad} not as they must be")
    return 1 if bad else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    raise SystemExit(run_all(asked.folder.resolve(), asked.times, asked.seed))
