"""A small training of the aerial application, made once; every test gets a copy to do with as it likes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.twin.aerial import write_job
from tests.unbroken.cli.typing_commands import FULL_STEPS, Type, typing
from unbroken.cli import main


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, a config of 8 steps and its run after step 4 (and one that is finished)."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_job(folder, steps=FULL_STEPS)
    half = ["--work-dir", folder / "half", "--tag", "small", "--cfg-options", "train_cfg.max_iters=4"]
    full = ["--work-dir", folder / "full", "--tag", "small"]
    for options in (half, full):
        torch.set_num_threads(1)
        assert main(["train", "mapsage", str(config), *map(str, options)]) == 0
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: small.py, and work_dirs/small at step 4 of 8."""
    shutil.copyfile(trained / "small.py", tmp_path / "small.py")
    shutil.copytree(trained / "half", tmp_path / "work_dirs" / "small", symlinks=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def finished(here: Path, trained: Path) -> Path:
    """The same with work_dirs/small finished."""
    shutil.rmtree(here / "work_dirs")
    shutil.copytree(trained / "full", here / "work_dirs" / "small", symlinks=True)
    return here


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str]) -> Type:
    return typing(capsys)
