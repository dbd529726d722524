"""Both applications with --exact-processes: the same bits for any number of processes, whatever happens to them."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.processes import python
from tests.twin import aerial, sonar
from tests.twin.killing import assert_twins
from tests.twin.together import kill_one, run_together
from unbroken.errors import STOPPED

SHARDS = 4
Command = Callable[[Path], list[str]]


def aerial_command(folder: Path) -> tuple[Command, str]:
    """How a run in a folder is typed; its last checkpoint."""
    config = aerial.write_job(folder, steps=9)
    typed = python("-m", "unbroken", "train", "mapsage", config, "--tag", "t", "--pictures", "0", "--work-dir")
    return lambda run: [*typed, str(run), "--cfg-options", "train_dataloader.batch_size=6"], "iter_9.pth"


def sonar_command(folder: Path) -> tuple[Command, str]:
    """The same for the detector."""
    config = sonar.write_job(folder, pasting=False, epochs=2)
    typed = python("-m", "unbroken", "train", "focalsst", "--cfg_file", config, "--tag", "t", "--pictures", "0")
    last = "ckpt/checkpoint_epoch_2.pth"
    return lambda run: [*typed, "--batch_size", "6", "--workers", "0", "--output", str(run)], last


@pytest.mark.parametrize("of", [aerial_command, sonar_command])
def test_one_process_and_others_that_are_killed_and_changed_end_with_the_same_bits(tmp_path: Path, of: Any) -> None:
    seed = 7
    print("seed", seed)
    chance = random.Random(seed)
    command, last = of(tmp_path)
    exact = ["--exact-processes", str(SHARDS)]
    [whole] = run_together([*command(tmp_path / "whole"), *exact], 1, cwd=tmp_path)
    assert whole.returncode == 0, whole.output
    place = next((tmp_path / "whole").rglob("unbroken")).parent.relative_to(tmp_path / "whole")
    run, typed = tmp_path / "cut" / place, [*command(tmp_path / "cut"), *exact]
    for size, after in ((2, 2), (4, 4)):
        kill_one(run, typed, size, chance, after=after, number=signal.SIGKILL, cwd=tmp_path)
    stopped = kill_one(run, typed, 2, chance, after=5, number=signal.SIGTERM, cwd=tmp_path)
    assert {each.returncode for each in stopped} <= {0, STOPPED}, [each.output for each in stopped]
    [ended] = run_together(command(tmp_path / "cut"), 1, cwd=tmp_path)  # with the shards that it began with
    assert ended.returncode == 0, ended.output
    assert_twins(run, tmp_path / "whole" / place, last)
