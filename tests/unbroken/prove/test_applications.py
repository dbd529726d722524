"""Both applications pass their proof, by the command that a user types."""

import os

import pytest

from tests.processes import Popen, environment, python
from tests.twin import aerial, sonar
from unbroken.prove import Settings, prove

SETTINGS = Settings(steps=8, kills=2, seed=1, workers=(2,))


def assert_exact(words, folder):
    def start(command, **how):
        return Popen(command, cwd=folder, **how)

    proof = prove(python("-m", "unbroken", "train", *words), SETTINGS, environment=environment(), start=start)
    assert proof.exact, "\n".join(proof.lines)
    assert [found.steps for _, found in proof.compared] == [8, 8]


@pytest.mark.slow
def test_mapsage_is_exact(tmp_path):
    assert_exact(["mapsage", os.fspath(aerial.write_job(tmp_path))], tmp_path)
    assert not (tmp_path / "work_dirs").exists()


@pytest.mark.slow
def test_focalsst_is_exact(tmp_path):
    config = sonar.write_job(tmp_path)
    assert_exact(["focalsst", "--cfg_file", os.fspath(config)], tmp_path)
    assert not (tmp_path / "output").exists()
