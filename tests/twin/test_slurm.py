"""Trainings under the script of `unbroken slurm`: warned, killed and put back by a stand-in for Slurm, as in peace."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import python, run_command
from tests.twin.killing import assert_twins, events
from tests.twin.slurm import Accident, Cluster
from tests.twin.together import run_together
from unbroken.cli import main
from unbroken.errors import STOPPED
from unbroken.journal import reached
from unbroken.run.layout import own

LOOP = Path(__file__).parent / "loops" / "together.py"
LAST = "iter_20.pth"


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path / "cluster")
    yield found
    found.close()


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_job_that_is_warned_and_whose_node_fails_goes_on_to_the_end_as_if_nothing_had_been(
    tmp_path: Path, cluster: Cluster, capsys: pytest.CaptureFixture[str], nodes: int
) -> None:
    seed = 3
    print("seed", seed)
    chance = random.Random(seed)
    root = tmp_path / "cut up"
    assert {each.returncode for each in run_together(python(LOOP, tmp_path / "peace"), nodes)} == {0}
    capsys.readouterr()
    assert main(["slurm", "--time", "1h", "--nodes", str(nodes), "--", "python", str(LOOP), str(root)]) == 0
    job = cluster.submit(capsys.readouterr().out, cwd=tmp_path, PACE="0.03")
    metrics, step = own(root / "t") / "metrics.jsonl", 0
    accidents: list[Accident] = ["warning", "node failure", "warning"]
    for number, accident in enumerate(accidents):
        step += chance.randint(2, 4)
        code = cluster.run(job, accident, once=lambda step=step: reached(metrics) >= step)
        assert job.requeued and job.restarts == number + 1, job.output.read_text()
        assert code == (STOPPED if accident == "warning" else -9)
    assert cluster.run(job) == 0 and not job.requeued, job.output.read_text()
    said = job.output.read_text()
    assert said.count("stopped by SIGTERM after step") == 2 and "(Slurm, SLURM_JOB_END_TIME)" in said, said
    assert "submit the same job of Slurm again" in said
    assert_twins(root / "t", tmp_path / "peace" / "t", LAST)
    assert len(events(root / "t", "session")) == 4
    audit = run_command(python("-m", "unbroken", "audit", root / "t"))
    assert audit.returncode == 0, audit.stdout + audit.stderr
