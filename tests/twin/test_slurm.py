"""Trainings under the script of `unbroken slurm`: warned, killed and put back by a stand-in for Slurm, as in peace."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.processes import python, run_command
from tests.twin.killing import assert_twins, events
from tests.twin.slurm import Accident, Cluster
from tests.twin.together import require_ended, run_together
from unbroken.cli import main
from unbroken.errors import STOPPED
from unbroken.journal import reached
from unbroken.run.layout import own

LOOP = Path(__file__).parent / "loops" / "together.py"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    found = Cluster(tmp_path / "cluster")
    yield found
    found.close()


def own_loop(run: Path) -> list[object]:
    """Any script, one process of a run."""
    return [LOOP, run]


def recipe(run: Path) -> list[object]:
    """What `unbroken train RECIPE CONFIG` is."""
    return ["-m", "unbroken", "train", "tests.twin.frail:frail", run / "t", "--no-norm", "--slow", 0.03]


@pytest.mark.parametrize(("command", "nodes", "last"), [(own_loop, 1, 20), (own_loop, 2, 20), (recipe, 2, 16)])
def test_a_job_that_is_warned_and_whose_node_fails_goes_on_to_the_end_as_if_nothing_had_been(
    tmp_path: Path,
    cluster: Cluster,
    capsys: pytest.CaptureFixture[str],
    command: Callable[[Path], list[object]],
    nodes: int,
    last: int,
) -> None:
    seed = 3
    print("seed", seed)
    chance = random.Random(seed)
    run, peace = tmp_path / "cut up" / "t", tmp_path / "peace" / "t"
    require_ended(run_together(python(*command(peace.parent)), nodes, cwd=ROOT), 0)
    capsys.readouterr()
    words = ["--nodes", nodes, f"--sbatch=--output={tmp_path / 'said'}", "--", "python", *command(run.parent)]
    assert main(["slurm", "--time", "1h", *map(str, words)]) == 0
    job = cluster.submit(capsys.readouterr().out, cwd=ROOT, PACE="0.03")
    metrics, step = own(run) / "metrics.jsonl", 0
    accidents: list[Accident] = ["warning", "node failure", "warning"]
    for number, accident in enumerate(accidents):
        step += chance.randint(2, 4)
        code = cluster.run(job, accident, once=lambda step=step: reached(metrics) >= step)
        assert job.requeued and job.restarts == number + 1, job.output.read_text()
        assert code == (STOPPED if accident == "warning" else -9)
    assert cluster.run(job) == 0 and not job.requeued, job.output.read_text()
    said = job.output.read_text()
    assert said.count("stopped by SIGTERM after step") == 2, said
    assert command is recipe or "(Slurm, SLURM_JOB_END_TIME)" in said, said  # that recipe asks no host
    assert "submit the same job of Slurm again" in said
    assert_twins(run, peace, f"iter_{last}.pth")
    assert len(events(run, "session")) == 4
    audit = run_command(python("-m", "unbroken", "audit", run))
    assert audit.returncode == 0, audit.stdout + audit.stderr
