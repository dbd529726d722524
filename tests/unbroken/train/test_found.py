"""The checkpoints of a run, as a program that judges them finds them."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import torch

from tests.unbroken.real_runs import newest
from unbroken import ITERATIONS
from unbroken.errors import DamagedFile, Incompatible, UsageError
from unbroken.train import (
    epoch_checkpoints,
    find_checkpoint,
    furthest_checkpoint,
    is_training,
    load_weights,
    named_checkpoint,
    read_checkpoint,
)


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_the_furthest_whole_checkpoint_is_found_whatever_the_file_times_say(run: Path) -> None:
    os.utime(run / "iter_20.pth", (4e9, 4e9))
    assert furthest_checkpoint(run, ITERATIONS).path.name == "iter_120.pth"
    cut_in_half(newest(run))
    found = furthest_checkpoint(run, ITERATIONS)
    assert (found.path.name, found.step) == ("iter_110.pth", 110)
    assert found.save != ""


def test_a_file_that_is_not_whole_or_not_there_is_named(run: Path) -> None:
    cut_in_half(newest(run))
    with pytest.raises(DamagedFile, match=r"iter_120\.pth"):
        find_checkpoint(newest(run), ITERATIONS)
    with pytest.raises(UsageError, match=r"no such file.*iter_10.*and more\. Check the path"):
        find_checkpoint(run / "iter_7.pth", ITERATIONS)
    with pytest.raises(UsageError, match=r"folder, not a file.*iter_10\.pth"):
        find_checkpoint(run, ITERATIONS)
    with pytest.raises(UsageError, match="nothing was trained here yet"):
        furthest_checkpoint(run.parent / "nowhere", ITERATIONS)
    with pytest.raises(UsageError, match=f"nothing was trained here yet. Found a run {run.name} beside it"):
        furthest_checkpoint(run.with_name(run.name[:-1]), ITERATIONS)


@pytest.mark.parametrize("named", ["best", "latest"])
def test_a_run_that_was_trained_from_another_folder_is_named(
    named: str, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = run.parent.parent / "apps"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    there = Path(run.parent.name, run.name)
    said = f"{there}: nothing was trained here yet. Found it in {run}. Type the command in the folder of the training"
    with pytest.raises(UsageError, match=re.escape(said)):
        named_checkpoint(Path(named), ITERATIONS, run=there)


def test_a_file_is_looked_for_below_the_current_folder_where_its_bare_name_is_typed(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    with pytest.raises(UsageError, match=rf"no such file. Found in {run.parent}: {run.name}/"):
        find_checkpoint(Path("iter_120.pth"), ITERATIONS)


def test_the_checkpoints_of_a_folder_come_in_the_order_of_their_steps_and_nobody_trains(run: Path) -> None:
    names = [path.name for path in epoch_checkpoints(run, ITERATIONS)]
    assert names == [f"iter_{step}.pth" for step in range(10, 121, 10)]
    assert not is_training(run, ITERATIONS)


def test_weights_are_loaded_wholly_or_the_model_stays_as_it_was(run: Path) -> None:
    saved = read_checkpoint(newest(run))["state_dict"]
    name, weight = next((key, value) for key, value in saved.items() if value.dim() == 2)
    said: list[str] = []

    def built(shape: tuple[int, ...]) -> torch.nn.Module:
        found: torch.nn.Module = torch.nn.Linear(shape[1], shape[0], bias=False)
        for part in reversed(name.split(".")[:-1]):
            holder = torch.nn.Module()
            holder.add_module(part, found)
            found = holder
        return found

    model = built(tuple(weight.shape))
    load_weights(model, newest(run), strict=True, say=said.append)  # what else is in the file is said, and left out
    assert torch.equal(model.state_dict()[name], weight)
    assert any("not in the model" in line for line in said)
    other = built(tuple(weight.shape))
    other.register_buffer("beside", torch.zeros(1))
    before = other.state_dict()[name].clone()
    with pytest.raises(Incompatible, match="nothing was loaded"):
        load_weights(other, newest(run), strict=True, say=said.append)
    assert torch.equal(other.state_dict()[name], before)
