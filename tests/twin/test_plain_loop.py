"""A stranger's ordinary loop, killed at random instants, ends bit-identical to a run that nobody touched."""

from __future__ import annotations

import random
from pathlib import Path

from tests.twin.killing import assert_twins, events, kill_until_done, python, run_to_end, step_records

LOOP = Path(__file__).resolve().parents[2] / "examples" / "plain_loop.py"


def test_a_plain_loop_killed_anywhere_with_changing_workers_is_its_twin(tmp_path: Path) -> None:
    seed = 11
    print(f"seed {seed}")
    chance = random.Random(seed)
    whole = run_to_end(python(LOOP, tmp_path / "whole", 0))
    assert whole.returncode == 0, whole.output
    commands = [python(LOOP, tmp_path / "cut", workers) for workers in (0, 2)]
    run, twin = tmp_path / "cut" / "plain_loop", tmp_path / "whole" / "plain_loop"

    cut = kill_until_done(run, commands, chance, kills=5, steps_apart=18)

    last = cut.sessions[-1]
    assert last.returncode == 0, last.output
    assert cut.kills >= 3, [session.output[-500:] for session in cut.sessions]
    assert_twins(run, twin, "iter_120.pth")
    assert last.output.splitlines()[-1] == whole.output.splitlines()[-1]
    verdicts = [event["verdict"] for event in events(run, "replayed")]
    assert all("bit-identical" in verdict for verdict in verdicts), verdicts
    assert_each_sample_once_per_epoch(run)


def assert_each_sample_once_per_epoch(run: Path) -> None:
    used: dict[int, list[int]] = {}
    for record in step_records(run).values():
        used.setdefault(record["epoch"], []).extend(record["samples"])
    assert sorted(used) == list(range(20))
    assert all(sorted(samples) == list(range(96)) for samples in used.values())
