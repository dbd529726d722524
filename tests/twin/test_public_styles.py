"""Loops in the styles of public training scripts, killed at random instants, end as their uninterrupted twins."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.twin.killing import assert_twins, kill_until_done, python, run_to_end

LOOPS = Path(__file__).parent / "loops"


@pytest.mark.parametrize(
    ("name", "seed", "workers", "last"),
    [
        ("by_epochs", 21, (0, 2), "iter_72.pth"),
        ("by_steps", 23, (0,), "iter_60.pth"),
    ],
)
def test_a_killed_loop_ends_as_its_twin(
    tmp_path: Path, name: str, seed: int, workers: tuple[int, ...], last: str
) -> None:
    print(f"seed {seed}")
    script = LOOPS / f"{name}.py"
    whole = run_to_end(python(script, tmp_path / "whole", workers[0]))
    assert whole.returncode == 0, whole.output
    commands = [python(script, tmp_path / "cut", count) for count in workers]
    run = tmp_path / "cut" / name

    cut = kill_until_done(run, commands, random.Random(seed), kills=4, steps_apart=15)

    assert cut.sessions[-1].returncode == 0, cut.sessions[-1].output
    assert cut.kills >= 2
    assert_twins(run, tmp_path / "whole" / name, last)
    assert cut.sessions[-1].output.splitlines()[-1] == whole.output.splitlines()[-1]
