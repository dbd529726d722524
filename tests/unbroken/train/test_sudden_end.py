"""A data set that ends the process itself, without workers: nothing is said then, so the next launch says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import python, run_command
from tests.unbroken.cli.typing_commands import Type, typing

LOOP = """
import os, sys, torch
from torch import nn
from unbroken.train import open_run

class Samples:
    def __len__(self):
        return 8
    def __getitem__(self, index):
        if run.step == 5 and sys.argv[1:]:
            os._exit(int(sys.argv[1]))
        return torch.tensor([index / 8])

with open_run("runs", tag="t", save_every=2, save_every_s=None) as run:
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run.track(model=model, optimizer=optimizer)
    for batch in run.batches(Samples(), batch_size=2, steps=9):
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.end_step(loss=loss.item())
        run.wait_for_saves()
"""


@pytest.mark.parametrize("code", [0, 3])
def test_a_data_set_that_ends_the_process_is_told_as_a_kill_whatever_its_code(
    tmp_path: Path, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "loop.py").write_text(LOOP, "utf-8")
    first = run_command(python("loop.py", code), cwd=tmp_path)
    assert first.returncode == code and "finished" not in first.stdout, first.stdout
    type_: Type = typing(capsys)
    assert "killed" in type_("show", tmp_path / "runs" / "t").out
    again = run_command(python("loop.py"), cwd=tmp_path)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "continue runs/t at step 5" in again.stdout and "ended without a word" in again.stdout
    assert "step 5 replayed: bit-identical" in again.stdout.replace("steps 5-5", "step 5")
    assert "finished: 9 steps" in again.stdout
