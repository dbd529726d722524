"""One real run of the example, made once; every test gets a copy of its own to ruin."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.twin.killing import python, run_to_end

LOOP = Path(__file__).resolve().parents[2] / "examples" / "plain_loop.py"
STEPS = 120


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("example")
    session = run_to_end(python(LOOP, root, 0))
    assert session.returncode == 0, session.output
    return root / "plain_loop"


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run of 120 steps with a checkpoint every 10."""
    return Path(shutil.copytree(finished_run, tmp_path / "output" / "plain_loop", symlinks=True))
