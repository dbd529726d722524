"""What is said of the disk before a training, against what the training then really wrote."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.twin import sonar
from tests.twin.killing import Session, python, run_to_end
from tests.unbroken.cli.typing_commands import Type, process
from unbroken.launch.host import KAGGLE_WORKING, host_quota
from unbroken.quantities import size_bytes

LOOP = """
import sys
import torch
from unbroken.train import open_run

steps, keep, quota = int(sys.argv[1]), int(sys.argv[2]) or None, sys.argv[3] or None
with open_run("runs", tag="wide", config={"steps": steps}, save_every=5, keep_last=keep, quota=quota) as run:
    model = torch.nn.Sequential(torch.nn.Linear(300, 300), torch.nn.Linear(300, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    run.track(model=model, optimizer=optimizer)
    for _ in run.steps(steps):
        model(torch.ones(300)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        run.end_step(loss=0.5)
"""


def size(run: Path) -> int:
    return sum(path.lstat().st_size for path in run.rglob("*") if path.is_file() and not path.is_symlink())


def said(output: str) -> int:
    """The bytes that the forecast's line says are still to come."""
    found = re.search(r"disk: .*?: ([\d.]+ [KMG]?B) more until step", output)
    assert found is not None, output
    return size_bytes(found[1])


def loop(folder: Path, steps: int, *, keep: int = 0, quota: str = "", **extra: str) -> Session:
    (folder / "loop.py").write_text(LOOP)
    done = run_to_end(python("loop.py", steps, keep, quota), cwd=folder, **extra)
    assert done.returncode == 0, done.output
    return done


@pytest.mark.parametrize("keep", [0, 3])
def test_a_loop_takes_what_was_said_before_its_first_step(tmp_path: Path, keep: int) -> None:
    output = loop(tmp_path, 40, keep=keep).output
    assert output.index("disk: ") < output.index("Saving checkpoint")
    taken = size(tmp_path / "runs" / "wide")
    assert said(output) == pytest.approx(taken, rel=0.05)
    again = loop(tmp_path, 80, keep=keep).output  # the launch knows the earlier saves
    if keep:
        assert "the last 3 kept" in again
    else:
        assert said(again) == pytest.approx(size(tmp_path / "runs" / "wide") - taken, rel=0.05)


def test_a_quota_that_is_too_small_warns_with_what_fits_and_stops_nothing(tmp_path: Path) -> None:
    output = loop(tmp_path, 40, quota="6MB").output
    assert "warning: disk: 1.1 MB a save, every 5 steps and every 300 s, all kept: 8.7 MB more until step 40" in output
    assert "6.0 MB left of 6.0 MB (open_run(quota)): full at step 30" in output
    assert "with open_run(..., keep_last=4) it fits" in output and "finished: 40 steps" in output
    again = loop(tmp_path, 40, keep=4, quota="20MB").output
    assert "warning: disk" not in again
    (tmp_path / "loop.py").write_text(LOOP)
    wrong = run_to_end(python("loop.py", 40, 0, "much"), cwd=tmp_path)
    assert wrong.returncode == 2 and "a size like 20GB" in wrong.output


def test_the_sonar_application_takes_what_why_says(tmp_path: Path) -> None:
    sonar.write_job(tmp_path, frames=4, epochs=6, pasting=False)
    train = [
        "train.py",
        "--cfg_file",
        "cfgs/sonar_models/tiny.yaml",
        "--workers",
        0,
        "--pictures",
        0,
        "--extra_tag",
        "x",
    ]
    first = run_to_end(python(*train, "--epochs", 2), cwd=tmp_path)
    assert first.returncode == 0 and "disk: " in first.output, first.output
    run = next(tmp_path.glob("output/*/*/x"))
    before = size(run)
    why = ["why", "focalsst", tmp_path / "cfgs/sonar_models/tiny.yaml", "--output", tmp_path / "output"]
    found = process(*why, "--extra_tag", "x", "--epochs", 6, "--json").data["disk"]
    assert (found["until"], found["policy"]["keep_last"], found["full_at"]) == (12, 30, None)
    assert run_to_end(python(*train, "--epochs", 6), cwd=tmp_path).returncode == 0
    assert found["more"] == pytest.approx(size(run) - before, rel=0.05)

    beside = process(*why, "--extra_tag", "y", "--quota", "1MB")
    assert "as of x" in beside.out and "warning: disk: " in beside.out and "full at step" in beside.out
    wider = process(*why, "--extra_tag", "z", "--set", "MODEL.BACKBONE_3D.DSVT.d_model", 24)
    assert "disk: how much a save takes is known once the model is built" in wider.out, wider.out + wider.err


def test_the_aerial_application_takes_what_why_says(here: Path, type_: Type) -> None:
    run = here / "work_dirs" / "small"
    before = size(run)
    found = type_("why", "mapsage", "small.py", "--json").data["disk"]
    assert (found["until"], found["policy"]["steps"], found["policy"]["keep_last"]) == (8, 4, 3)
    assert type_("train", "mapsage", "small.py").code == 0
    assert found["more"] == pytest.approx(size(run) - before, rel=0.08)  # a session of its own has texts of its own


def test_without_an_earlier_save_the_model_can_be_asked(here: Path, type_: Type) -> None:
    fresh = ["why", "mapsage", "small.py", "--tag", "new", "--cfg-options", "model.backbone.embed_dims=8"]
    heads = "model.decode_head.in_channels=[8,16,32,64]"
    assert "disk: how much a save takes is known once" in type_(*fresh, heads).out
    assert "(by the model's shapes)" in type_(*fresh, heads, "--shapes").out
    every = ["default_hooks.checkpoint.max_keep_ckpts=-1", "train_cfg.max_iters=400"]
    tight = type_("why", "mapsage", "small.py", "--tag", "new", "--cfg-options", *every, "--quota", "12MB")
    assert re.search(r"with --cfg-options default_hooks.checkpoint.max_keep_ckpts=\d+ it fits", tight.out), tight.out


def test_the_surroundings_may_name_a_quota(here: Path, type_: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNBROKEN_QUOTA", "1KB")
    assert "left of 1.0 KB (UNBROKEN_QUOTA): full at step 5" in type_("why", "mapsage", "small.py").out
    assert "(--quota)" in type_("why", "mapsage", "small.py", "--quota", "2KB").out
    assert type_("why", "mapsage", "small.py", "--quota", "much").code == 2


def test_kaggle_counts_what_lies_in_its_working_folder() -> None:
    kaggle = {"KAGGLE_KERNEL_RUN_TYPE": "Batch"}
    found = host_quota(kaggle, KAGGLE_WORKING / "MapSage")
    assert found is not None and (found.size_bytes, found.folder) == (20 * 10**9, KAGGLE_WORKING)
    assert host_quota(kaggle, Path("/tmp/elsewhere")) is None
