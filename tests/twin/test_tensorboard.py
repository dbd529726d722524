"""TensorBoard over runs of both applications that were really killed and resumed: as if nobody had touched them.

Asked is the server itself, with both of its readers: what a person sees in the tabs of scalars, images and HParams.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.twin import aerial, sonar
from tests.twin.board import Server, served
from tests.twin.killing import evaluations, kill_until_done, python, run_to_end, step_records

READERS = [pytest.param(True, id="reader in Rust"), pytest.param(False, id="reader in Python")]
AERIAL_TAGS = {"train/loss", "train/lr", "train/decode.loss_ce", "val/mIoU", "val/aAcc", "val/mAcc", "best/mIoU"}
SONAR, NAMES, PICTURES = "sonar/sonar_models/tiny", ("cut", "whole"), 2
SONAR_TAGS = {"train/loss", "train/hm_loss_head_0", "train/loc_loss_head_0", "meta_data/learning_rate", "best/mAP"}


def assert_shown_once(server: Server, run: Path, name: str, tag: str) -> None:
    """Each step once and in order, with the loss of the record."""
    records = step_records(run)
    points = server.scalars(name, tag)
    assert [step for step, _ in points] == sorted(records)
    assert [value for _, value in points] == pytest.approx([records[step]["loss"] for step, _ in points])


def row_of(server: Server, tag: str) -> dict[str, Any]:
    [row] = [row for row in server.rows() if row["name"].startswith(f"{tag} (")]
    return row


def metric(row: dict[str, Any], tag: str) -> float:
    return float(next(value["value"] for value in row["metricValues"] if value["name"]["tag"] == tag))


@pytest.fixture(scope="module")
def logdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that TensorBoard is given, with the runs of both applications below it."""
    return tmp_path_factory.mktemp("logdir")


def killed_three_times(train: Callable[[str], list[str]], place: Path, tag: str, *, seed: int) -> None:
    print(f"seed {seed}")
    cut = kill_until_done(place / tag, [train(tag)], random.Random(seed), kills=3, steps_apart=9)
    assert cut.sessions[-1].returncode == 0 and cut.kills >= 2, cut.sessions[-1].output


@pytest.fixture(scope="module")
def aerial_runs(logdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = aerial.write_job(tmp_path_factory.mktemp("aerial"))
    place = logdir / "aerial"

    def train(tag: str, *options: object) -> list[str]:
        return python("-m", "unbroken", "train", "mapsage", config, "--work-dir", place / tag, *options)

    whole = run_to_end(train("tiles_whole", "--pictures", 2))
    assert whole.returncode == 0, whole.output
    killed_three_times(train, place, "tiles_cut", seed=601)
    return place


@pytest.fixture(scope="module")
def sonar_runs(logdir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = sonar.write_job(tmp_path_factory.mktemp("sonar"), pasting=False)
    place = logdir / "sonar/sonar_models/tiny"

    def train(tag: str) -> list[str]:
        asked = ["--cfg_file", config, "--extra_tag", tag, "--output", logdir / "sonar", "--workers", 0]
        saving = ["--ckpt_save_interval", 1, "--ckpt_save_time_interval", 1]
        return python("-m", "unbroken", "train", "focalsst", *asked, *saving, "--pictures", PICTURES)

    whole = run_to_end(train("frames_whole"))
    assert whole.returncode == 0, whole.output
    killed_three_times(train, place, "frames_cut", seed=602)
    return place


@pytest.fixture(scope="module", params=READERS)
def server(
    request: pytest.FixtureRequest,
    logdir: Path,
    aerial_runs: Path,
    sonar_runs: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """One server for all of them, which has read all of their files."""
    assert aerial_runs.is_relative_to(logdir) and sonar_runs.is_relative_to(logdir)
    runs = {f"aerial/tiles_{name}/tensorboard" for name in NAMES}
    for name in NAMES:
        runs |= {f"{SONAR}/frames_{name}/{where}" for where in ("tensorboard", "eval/eval_with_train/tensorboard_val")}
    with served(logdir, fast=request.param, log=tmp_path_factory.mktemp("server") / "log.txt") as found:
        found.wait_until(lambda: set(found.ask("runs")) == runs and len(found.rows()) == 4)
        yield found


def test_every_aerial_run_shows_its_curves_pictures_and_settings(server: Server, aerial_runs: Path) -> None:
    runs = [f"aerial/tiles_{name}/tensorboard" for name in NAMES]
    server.wait_until(lambda: all(server.tags(run) >= AERIAL_TAGS for run in runs))
    server.wait_until(lambda: all(len(server.scalars(run, "val/mIoU")) == 4 for run in runs))
    for tag, name in zip(("tiles_cut", "tiles_whole"), runs):
        run = aerial_runs / tag
        assert_shown_once(server, run, name, "train/loss")
        judged = evaluations(run)
        assert [step for step, _ in server.scalars(name, "val/mIoU")] == sorted(judged) == [9, 18, 27, 36]
        pictures = server.tags(name, "images")
        assert pictures == {"predictions/tile_0000", "predictions/tile_0001"}
        assert all(server.image_steps(name, picture) == [9, 18, 27, 36] for picture in pictures)
        row = row_of(server, tag)
        assert row["hparams"]["optim_wrapper.optimizer.lr"] == 2e-3
        assert row["hparams"]["train_dataloader.batch_size"] == 2
        assert metric(row, "best/mIoU") == pytest.approx(max(found["mIoU"] for found in judged.values()))
        assert metric(row, "train/loss") == pytest.approx(step_records(run)[36]["loss"])
        assert row["sessions"][0]["status"] == "STATUS_SUCCESS"
    assert "optim_wrapper.accumulative_counts" in server.settings_shown()
    for tag in AERIAL_TAGS:
        assert server.scalars(runs[0], tag) == server.scalars(runs[1], tag), tag


def test_pictures_on_disk_are_those_of_the_best_and_of_the_last(aerial_runs: Path) -> None:
    for run in (aerial_runs / "tiles_cut", aerial_runs / "tiles_whole"):
        judged = evaluations(run)
        best = max(judged, key=lambda step: (judged[step]["mIoU"], -step))
        assert {int(path.name) for path in (run / "predictions").iterdir()} == {best, 18, 27, 36}
    names = sorted(
        path.relative_to(aerial_runs / "tiles_cut") for path in (aerial_runs / "tiles_cut/predictions").rglob("*.png")
    )
    for name in names:
        assert (aerial_runs / "tiles_cut" / name).read_bytes() == (aerial_runs / "tiles_whole" / name).read_bytes()
    assert len(names) >= 6


def test_every_sonar_run_shows_its_curves_pictures_and_settings(server: Server, sonar_runs: Path) -> None:
    runs = [f"{SONAR}/frames_{name}" for name in NAMES]
    ends = [sonar.STEPS_PER_EPOCH * epoch for epoch in range(1, sonar.EPOCHS + 1)]
    server.wait_until(
        lambda: all(len(server.scalars(f"{run}/tensorboard", "best/mAP")) == sonar.EPOCHS for run in runs)
    )
    for tag, run in zip(("frames_cut", "frames_whole"), runs):
        name = f"{run}/tensorboard"
        assert server.tags(name) >= SONAR_TAGS
        assert_shown_once(server, sonar_runs / tag, name, "train/loss")
        assert [step for step, _ in server.scalars(name, "best/mAP")] == ends
        judged = server.scalars(f"{run}/eval/eval_with_train/tensorboard_val", "mAP")
        assert [epoch for epoch, _ in judged] == list(range(1, sonar.EPOCHS + 1))
        pictures = server.tags(name, "images")
        assert len(pictures) == PICTURES and all(server.image_steps(name, picture) == ends for picture in pictures)
        row = row_of(server, tag)
        assert row["hparams"]["OPTIMIZATION.LR"] > 0 and row["hparams"]["OPTIMIZATION.BATCH_SIZE_PER_GPU"] == 2
        assert metric(row, "best/mAP") == pytest.approx(max(value for _, value in judged))
    for tag in SONAR_TAGS:
        assert server.scalars(f"{runs[0]}/tensorboard", tag) == server.scalars(f"{runs[1]}/tensorboard", tag), tag
