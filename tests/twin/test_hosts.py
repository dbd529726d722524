"""A script of anyone on a host of limited sessions: it hears what the host says, and ends as its twin in peace."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.twin.killing import assert_twins, python, run_to_end

SCRIPT = """\
import sys
import torch
from unbroken.train import open_run

with open_run("output", tag="t", save_every=4, **eval(sys.argv[1])) as run:
    model = torch.nn.Sequential(torch.nn.Dropout(0.3), torch.nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(model.parameters())
    run.track(model=model, optimizer=optimizer)
    for batch in run.batches([torch.full((2,), float(n)) for n in range(32)], batch_size=4, epochs=2):
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        run.end_step(loss=loss)
        if run.step == int(sys.argv[2]):
            run.stop("the end of a machine")
"""


@pytest.mark.parametrize(
    ("name", "source"),
    [("UNBROKEN_SESSION_END", "(UNBROKEN_SESSION_END)"), ("SLURM_JOB_END_TIME", "(Slurm, SLURM_JOB_END_TIME)")],
)
def test_each_session_of_a_notebook_host_goes_on_from_the_one_that_is_mounted(
    tmp_path: Path, name: str, source: str
) -> None:
    script, whole = tmp_path / "train.py", tmp_path / "whole"
    script.write_text(SCRIPT)
    whole.mkdir()
    assert run_to_end(python(script, "{}", 0), cwd=whole).returncode == 0
    mounts = tmp_path / "input"
    mounts.mkdir()
    host = {"UNBROKEN_SEARCH_PATH": str(mounts), "UNBROKEN_QUOTA": "60KB", name: str(time.time() + 3600)}
    for session, stop in enumerate((6, 11, 0)):
        working = tmp_path / f"working_{session}"
        working.mkdir()
        done = run_to_end(python(script, "{}", stop), cwd=working, **host)
        assert done.returncode == (75 if stop else 0), done.output
        assert f"session: 60 min {source}" in done.output or f"session: 1 h 0 min {source}" in done.output
        assert "(UNBROKEN_QUOTA)" in done.output
        if session:
            assert f"{mounts}/session_{session - 1}/output/t holds this run at step" in done.output
        else:
            assert f"{mounts} was searched and holds no copy of this run" in done.output
        if stop:
            (mounts / f"session_{session}").mkdir()
            (working / "output").rename(mounts / f"session_{session}/output")
    assert_twins(working / "output/t", whole / "output/t", "iter_16.pth")


def test_what_a_script_says_itself_counts_more_than_its_host(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    host = {"UNBROKEN_SEARCH_PATH": str(tmp_path), "UNBROKEN_QUOTA": "1KB", "UNBROKEN_SESSION_END": "2026-01-01T00:00"}
    asked = "dict(session_s='2h', quota='1GB', search=())"
    done = run_to_end(python(script, asked, 0), cwd=tmp_path, **host)
    assert done.returncode == 0 and "session: 2 h 0 min (session_s)" in done.output, done.output
    assert "UNBROKEN" not in done.output and "was searched" not in done.output
    (tmp_path / "next").mkdir()
    over = run_to_end(python(script, "dict(search=())", 0), cwd=tmp_path / "next", **host)
    assert over.returncode == 75 and "UNBROKEN_SESSION_END: no time is left to train in" in over.output
