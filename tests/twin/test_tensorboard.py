"""TensorBoard over runs of both applications that were really killed and resumed: as if nobody had touched them.

Asked is the server itself, with both of its readers: what a person sees in the tabs of scalars, images and HParams.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tests.twin import aerial, sonar
from tests.twin.board import Server, served
from tests.twin.killing import evaluations, kill_until_done, python, run_to_end, step_records

READERS = [pytest.param(True, id="reader in Rust"), pytest.param(False, id="reader in Python")]
AERIAL_TAGS = {"train/loss", "train/lr", "train/decode.loss_ce", "val/mIoU", "val/aAcc", "val/mAcc", "best/mIoU"}
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
def aerial_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("aerial")
    seed = 601
    print(f"seed {seed}")
    config = aerial.write_job(folder)

    def train(tag: str, *options: object) -> list[str]:
        return python("-m", "unbroken", "train", "mapsage", config, "--work-dir", folder / "work_dirs" / tag, *options)

    whole = run_to_end(train("whole", "--pictures", 2))
    assert whole.returncode == 0, whole.output
    cut = kill_until_done(folder / "work_dirs" / "cut", [train("cut")], random.Random(seed), kills=3, steps_apart=9)
    assert cut.sessions[-1].returncode == 0 and cut.kills >= 2, cut.sessions[-1].output
    return folder / "work_dirs"


@pytest.mark.parametrize("fast", READERS)
def test_every_aerial_run_shows_its_curves_pictures_and_settings(
    aerial_runs: Path, tmp_path: Path, *, fast: bool
) -> None:
    with served(aerial_runs, fast=fast, log=tmp_path / "log.txt") as server:
        runs = {"cut/tensorboard", "whole/tensorboard"}
        server.wait_until(lambda: set(server.ask("runs")) == runs and len(server.rows()) == 2)
        server.wait_until(lambda: all(server.tags(run) >= AERIAL_TAGS for run in runs))
        server.wait_until(lambda: all(len(server.scalars(run, "val/mIoU")) == 4 for run in runs))
        for tag in ("cut", "whole"):
            run, name = aerial_runs / tag, f"{tag}/tensorboard"
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
            assert server.scalars("cut/tensorboard", tag) == server.scalars("whole/tensorboard", tag), tag


def test_pictures_on_disk_are_those_of_the_best_and_of_the_last(aerial_runs: Path) -> None:
    for run in (aerial_runs / "cut", aerial_runs / "whole"):
        judged = evaluations(run)
        best = max(judged, key=lambda step: (judged[step]["mIoU"], -step))
        assert {int(path.name) for path in (run / "predictions").iterdir()} == {best, 18, 27, 36}
    names = sorted(path.relative_to(aerial_runs / "cut") for path in (aerial_runs / "cut/predictions").rglob("*.png"))
    for name in names:
        assert (aerial_runs / "cut" / name).read_bytes() == (aerial_runs / "whole" / name).read_bytes()
    assert len(names) >= 6


@pytest.fixture(scope="module")
def sonar_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sonar")
    seed = 602
    print(f"seed {seed}")
    config = sonar.write_job(folder, pasting=False)
    runs = folder / "output" / "sonar_models" / "tiny"

    def train(tag: str) -> list[str]:
        asked = ["--cfg_file", config, "--extra_tag", tag, "--output", folder / "output", "--workers", 0]
        saving = ["--ckpt_save_interval", 1, "--ckpt_save_time_interval", 1]
        return python("-m", "unbroken", "train", "focalsst", *asked, *saving)

    whole = run_to_end(train("whole"))
    assert whole.returncode == 0, whole.output
    cut = kill_until_done(runs / "cut", [train("cut")], random.Random(seed), kills=3, steps_apart=20)
    assert cut.sessions[-1].returncode == 0 and cut.kills >= 2, cut.sessions[-1].output
    return runs


@pytest.mark.parametrize("fast", READERS)
def test_every_sonar_run_shows_its_curves_pictures_and_settings(
    sonar_runs: Path, tmp_path: Path, *, fast: bool
) -> None:
    last = sonar.EPOCHS * -(-sonar.FRAMES // 2)
    ends = [last // sonar.EPOCHS * epoch for epoch in range(1, sonar.EPOCHS + 1)]
    with served(sonar_runs, fast=fast, log=tmp_path / "log.txt") as server:
        server.wait_until(lambda: len(server.ask("runs")) == 4 and len(server.rows()) == 2)
        server.wait_until(lambda: len(server.scalars("whole/tensorboard", "best/mAP")) == sonar.EPOCHS)
        server.wait_until(lambda: len(server.scalars("cut/tensorboard", "best/mAP")) == sonar.EPOCHS)
        for tag in ("cut", "whole"):
            name = f"{tag}/tensorboard"
            assert server.tags(name) >= SONAR_TAGS
            assert_shown_once(server, sonar_runs / tag, name, "train/loss")
            assert [step for step, _ in server.scalars(name, "best/mAP")] == ends
            judged = server.scalars(f"{tag}/eval/eval_with_train/tensorboard_val", "mAP")
            assert [epoch for epoch, _ in judged] == list(range(1, sonar.EPOCHS + 1))
            pictures = server.tags(name, "images")
            assert len(pictures) == 3 and all(server.image_steps(name, picture) == ends for picture in pictures)
            row = row_of(server, tag)
            assert row["hparams"]["OPTIMIZATION.LR"] > 0 and row["hparams"]["OPTIMIZATION.BATCH_SIZE_PER_GPU"] == 2
            assert metric(row, "best/mAP") == pytest.approx(max(value for _, value in judged))
        for tag in SONAR_TAGS:
            assert server.scalars("cut/tensorboard", tag) == server.scalars("whole/tensorboard", tag), tag
