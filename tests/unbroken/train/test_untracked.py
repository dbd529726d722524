"""Whatever changes from step to step and is not tracked is named, wherever the script keeps it."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import unbroken
from tests.processes import python, run_command
from tests.unbroken.train import untracked_loops
from tests.unbroken.train.untracked_loops import SAID, Numbers, step, trained
from unbroken.train import TrainingRun, open_run
from unbroken.train.loop.untracked import _made_by_torch, forgotten
from unbroken.train.state.held import is_users_file

SCRIPT = untracked_loops.__file__


@pytest.mark.parametrize("loop", SAID)
def test_it_is_named_wherever_it_is_kept(tmp_path: Path, loop: Callable[[TrainingRun], None]) -> None:
    ended = run_command(python(SCRIPT, loop.__name__, tmp_path), check=True)
    assert SAID[loop] in ended.stdout, ended.stdout


@pytest.mark.parametrize(
    "loop",
    [untracked_loops.in_a_function, untracked_loops.a_counter, untracked_loops.an_average_that_begins_late],
)
def test_strict_refuses_it_and_keeps_what_was_trained(tmp_path: Path, loop: Callable[[TrainingRun], None]) -> None:
    ended = run_command(python(SCRIPT, loop.__name__, tmp_path, "strict"))
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert SAID[loop] in ended.stdout and "strict=True asks for that" in ended.stdout
    assert list((tmp_path / "t").glob("iter_*.pth"))


def test_a_loop_that_tracks_everything_is_left_in_peace(tmp_path: Path) -> None:
    ended = run_command(python(SCRIPT, "quiet", tmp_path, "strict"))
    assert ended.returncode == 0 and "finished: 4 steps" in ended.stdout, ended.stdout + ended.stderr
    assert "warning" not in ended.stdout and "note" not in ended.stdout


def test_a_thing_that_cannot_be_looked_at_is_no_reason_to_stop(tmp_path: Path, capsys: Any) -> None:
    class Touchy:
        @property
        def __class__(self) -> type:  # type: ignore[override]  # as proxies that load what they stand for have it
            raise RuntimeError("not now")

    touchy = Touchy()
    with open_run(tmp_path, tag="t") as run:
        model, optimizer = trained(run)
        for batch in run.batches(Numbers(), batch_size=2, steps=3):
            run.end_step(loss=step(model, optimizer, batch))
    said = capsys.readouterr().out
    assert type(touchy) is Touchy and "finished: 3 steps" in said
    assert "note: what is not tracked could not be looked for (RuntimeError: not now)" in said


def test_no_file_of_the_library_is_the_scripts() -> None:
    """Installed to be edited, it lies in no folder of libraries: at each save all its modules were looked into."""
    files = [*Path(unbroken.__file__).parent.rglob("*.py")]
    assert len(files) > 50
    assert [file for file in files if is_users_file(str(file))] == []
    assert is_users_file(SCRIPT)


def test_the_remains_of_another_training_are_not_waited_for_by_a_collection() -> None:
    """A process that trains many times, as a search for settings, has them, and a collection costs it half a second."""
    other, mine = nn.Linear(2, 2), nn.Linear(2, 2)
    others = torch.optim.SGD(other.parameters(), lr=0.1)
    remains = [others, torch.optim.lr_scheduler.StepLR(others, 3)]  # each keeps the other alive
    optimizer = torch.optim.SGD(mine.parameters(), lr=0.1)
    collections = list[int]()
    gc.callbacks.append(lambda phase, facts: collections.append(facts["generation"]) if phase == "start" else None)
    try:
        found = forgotten({"model": mine, "optimizer": optimizer}, [], alive=_made_by_torch())
    finally:
        gc.callbacks.pop()
    assert found == [] and 2 not in collections
    found = forgotten({"model": other}, [], alive=_made_by_torch())
    assert [type(each.value).__name__ for each in found] == ["SGD", "StepLR"]
    assert len(remains) == 2
