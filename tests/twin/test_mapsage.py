"""MapSage killed anywhere - also inside its saves - ends bit-identical to a training that was never interrupted."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.twin.aerial import STEPS, TILES, write_job
from tests.twin.killing import (
    assert_twins,
    events,
    kill_after_steps,
    kill_inside_a_save,
    kill_until_done,
    python,
    run_to_end,
    step_records,
)
from unbroken.run import ITERATIONS
from unbroken.run.survey import survey

FEW_STEPS = 14


def train(config: Path, run: Path, *options: object) -> list[str]:
    return python(
        "-m", "unbroken", "train", "mapsage", config, "--work-dir", run, "--tag", "small", "--pictures", 0, *options
    )


def curve(run: Path) -> list[dict[str, float]]:
    """The scalars of all sessions, without how long things took."""
    lines = (run / "vis_data" / "scalars.json").read_text("utf-8").splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in ("time", "data_time")} for line in lines]


CASES = [
    # seed, kills, options of a session chosen at random each time
    pytest.param(103, 6, [["--workers", 0], ["--workers", 2]], "OptimWrapper", id="workers change"),
    pytest.param(104, 4, [["--workers", 0]], "AmpOptimWrapper", id="mixed precision"),
]


@pytest.mark.parametrize(("seed", "kills", "options", "wrapper"), CASES)
def test_a_training_killed_anywhere_is_its_twin(
    tmp_path: Path, seed: int, kills: int, options: list[list[object]], wrapper: str
) -> None:
    print(f"seed {seed}")
    config = write_job(tmp_path, wrapper=wrapper)
    whole = run_to_end(train(config, tmp_path / "whole", *options[0]))
    assert whole.returncode == 0, whole.output

    commands = [train(config, tmp_path / "cut", *chosen) for chosen in options]
    cut = kill_until_done(tmp_path / "cut", commands, random.Random(seed), kills=kills, steps_apart=9)

    assert cut.sessions[-1].returncode == 0, cut.sessions[-1].output
    assert cut.kills >= kills // 2, "the kills came too late to mean anything"
    print(f"{cut.kills} kills, {cut.kills_in_saves} of them inside a save")
    assert_twins(tmp_path / "cut", tmp_path / "whole", f"iter_{STEPS}.pth")
    assert [p.name for p in sorted((tmp_path / "cut").glob("best_*"))] == [
        p.name for p in sorted((tmp_path / "whole").glob("best_*"))
    ]
    assert curve(tmp_path / "cut") == curve(tmp_path / "whole"), "the stitched curve has every step once, in order"
    verdicts = [event["verdict"] for event in events(tmp_path / "cut", "replayed")]
    assert all("bit-identical" in verdict for verdict in verdicts), verdicts
    for run in ("cut", "whole"):
        assert_each_once_per_pass(tmp_path / run)


def assert_each_once_per_pass(run: Path) -> None:
    used = [sample for _, record in sorted(step_records(run).items()) for sample in record["samples"]]
    assert len(used) == STEPS * 4
    for start in range(0, len(used) - TILES, TILES):
        assert sorted(used[start : start + TILES]) == list(range(TILES))


def test_a_kill_inside_a_save_resumes_from_the_previous_checkpoint_and_says_so(tmp_path: Path) -> None:
    config = write_job(tmp_path)
    run = next(
        tmp_path / f"run{attempt}"
        for attempt in range(12)  # a save takes milliseconds, so a kill can come too late; others are over
        if kill_inside_a_save(tmp_path / f"run{attempt}", train(config, tmp_path / f"run{attempt}"), after_steps=12)
    )
    before = survey(run, ITERATIONS).newest_good
    assert before is not None

    resumed = run_to_end(train(config, run))

    assert resumed.returncode == 0, resumed.output
    assert "a save was cut off (iter_" in resumed.output
    assert f"load checkpoint from {before.path}" in resumed.output
    assert f"resumed epoch: {before.inside['epoch']}, iter: {before.step}" in resumed.output
    assert not list(run.glob("*.partial"))


def test_a_session_with_other_threads_computes_with_those_of_the_run(tmp_path: Path) -> None:
    config = write_job(tmp_path, steps=FEW_STEPS)
    whole = run_to_end(train(config, tmp_path / "whole"), OMP_NUM_THREADS="2")
    assert whole.returncode == 0, whole.output
    kill_after_steps(tmp_path / "cut", train(config, tmp_path / "cut"), steps=7, OMP_NUM_THREADS="2")

    resumed = run_to_end(train(config, tmp_path / "cut"), OMP_NUM_THREADS="1")

    assert resumed.returncode == 0, resumed.output
    assert "compute threads: 1 here, set to the run's 2" in resumed.output
    assert "bit-identical" in resumed.output
    assert_twins(tmp_path / "cut", tmp_path / "whole", f"iter_{FEW_STEPS}.pth")
