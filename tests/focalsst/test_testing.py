"""`test.py` on a run that was really trained: which file is judged, what is written, what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from focalsst.results import read_results
from focalsst.samples import write_sample_data
from focalsst.testing import main
from tests.twin.killing import python, run_to_end
from tests.twin.together import run_together
from unbroken.errors import DamagedFile, Incompatible, UsageError

APP = Path(__file__).resolve().parents[2] / "apps/focal_sst"
NANO = "cfgs/sonar_models/nano.yaml"
RUN = Path("output/sonar_models/nano/base")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    app = tmp_path_factory.mktemp("app")
    shutil.copytree(APP / "cfgs", app / "cfgs")
    write_sample_data(app / "data/sonar", train=6, val=4, points=300, frames_per_sequence=2)
    command = python(APP / "train.py", "--cfg_file", app / NANO, "--extra_tag", "base", "--epochs", 3, "--workers", 0)
    session = run_to_end([*command, "--eval_interval", "0", "--pictures", "0"])
    assert session.returncode == 0, session.output
    return app


@pytest.fixture
def app(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(trained, tmp_path / "app"))
    monkeypatch.chdir(folder)
    return folder


def judge(*words: object) -> int:
    return main(["--cfg_file", NANO, "--extra_tag", "base", "--workers", "0", *map(str, words)])


def test_without_a_name_the_runs_furthest_whole_checkpoint_is_judged_and_said(
    app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = RUN / "ckpt/checkpoint_epoch_3.pth"
    last.write_bytes(last.read_bytes()[:5000])
    assert judge() == 0
    said = capsys.readouterr().out
    assert f"no --ckpt given: the run's furthest checkpoint is {RUN / 'ckpt/checkpoint_epoch_2.pth'}" in said
    assert "Car AP_R40@0.70, 0.70, 0.70:" in said and "recall_rcnn_0.3:" in said
    folder = RUN / "eval/epoch_2/val/default"
    found = read_results(folder)
    assert len(found.detections) == 4 and "mAP" in found.scores
    with Image.open(folder / "scenes.png") as picture:
        assert picture.size[0] > 1000
    log = next(folder.glob("log_eval_*.txt")).read_text("utf-8")
    assert "mAP" in log and "checkpoint_epoch_2.pth" in log


def test_the_same_weights_give_the_same_scores_as_during_the_training(app: Path) -> None:
    assert judge("--ckpt", RUN / "ckpt/checkpoint_epoch_3.pth", "--save_to_file", "--scenes", 0) == 0
    mine = read_results(RUN / "eval/epoch_3/val/default")
    theirs = read_results(RUN / "eval/eval_with_train/epoch_3/val")
    assert mine.scores == theirs.scores
    folder = RUN / "eval/epoch_3/val/default"
    assert (folder / "result.npz").read_bytes() == (RUN / "eval/eval_with_train/epoch_3/val/result.npz").read_bytes()
    assert len(list((folder / "final_result/data").glob("*.txt"))) == 4
    assert not (folder / "scenes.png").exists()


def test_several_processes_share_the_frames_and_find_what_one_does(app: Path) -> None:
    words = ("--cfg_file", NANO, "--extra_tag", "base", "--workers", 0, "--launcher", "pytorch", "--scenes", 0)
    assert judge("--scenes", 0, "--eval_tag", "alone") == 0
    sessions = run_together(python(APP / "test.py", *words), 3, cwd=app)
    assert [each.returncode for each in sessions] == [0, 0, 0], sessions
    assert "mAP" in sessions[0].output and [each.output for each in sessions[1:]] == ["", ""]
    alone, shared = (RUN / "eval/epoch_3/val" / name for name in ("alone", "default"))
    assert read_results(shared).scores == read_results(alone).scores
    assert (shared / "result.npz").read_bytes() == (alone / "result.npz").read_bytes()


def test_all_epochs_are_judged_once_and_a_training_begun_anew_is_judged_anew(
    app: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert judge("--eval_all", "--scenes", 0) == 0
    said = capsys.readouterr().out
    assert [line.split()[0] for line in said.splitlines()[-3:]] == ["1", "2", "3"]
    assert judge("--eval_all", "--start_epoch", 2, "--scenes", 0) == 0
    again = capsys.readouterr().out
    assert again.count("was judged before") == 2 and "load checkpoint" not in again
    scores = RUN / "eval/eval_all_default/default/epoch_2/val/result.json"
    content = json.loads(scores.read_text("utf-8"))
    content["settings"]["save"] = "of another save"
    scores.write_text(json.dumps(content), "utf-8")
    assert judge("--eval_all", "--scenes", 0) == 0
    assert capsys.readouterr().out.count("load checkpoint from") == 1


def test_a_best_file_and_a_plain_state_dict_can_be_judged(app: Path) -> None:
    best = next((RUN / "ckpt").glob("best_mAP_epoch_*.pth"))
    assert judge("--ckpt", best, "--scenes", 0, "--eval_tag", "of_the_best") == 0
    assert list((RUN / "eval").glob("epoch_*/val/of_the_best/result.json"))
    weights = torch.load(RUN / "ckpt/checkpoint_epoch_1.pth", weights_only=True)["model_state"]
    torch.save(weights, "plain.pth")
    assert judge("--ckpt", "plain.pth", "--scenes", 0) == 0
    assert (RUN / "eval/epoch_no_number/val/default/result.json").is_file()
    torch.save({"epoch": 1, "ema": weights}, "ema.pth")
    with pytest.raises(UsageError, match="Say which: --weights-key ema"):
        judge("--ckpt", "ema.pth", "--scenes", 0)
    assert judge("--ckpt", "ema.pth", "--weights-key", "ema", "--scenes", 0) == 0


def test_weights_of_another_network_are_refused_before_anything_is_judged(app: Path) -> None:
    with pytest.raises(Incompatible, match=r"misfit .*another shape"):
        main(["--cfg_file", "cfgs/sonar_models/micro.yaml", "--ckpt", str(RUN / "ckpt/checkpoint_epoch_3.pth")])
    with pytest.raises(UsageError, match="not clear what to judge"):
        judge("--ckpt", "a.pth", "--eval_all")
    with pytest.raises(UsageError, match="no such file"):
        judge("--ckpt", RUN / "ckpt/checkpoint_epoch_9.pth")
    with pytest.raises(UsageError, match="nothing was trained here yet"):
        main(["--cfg_file", NANO, "--extra_tag", "never"])


def test_a_frame_that_cannot_be_read_ends_it_or_is_left_out(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = sorted((app / "data/sonar/ImageSets/val.txt").read_text().split())[2]
    points = app / f"data/sonar/points_binary/{frame}.bin"
    points.write_bytes(points.read_bytes()[:-3])
    with pytest.raises(DamagedFile, match=frame):
        judge()
    assert judge("--on-bad-frame", "skip", "--scenes", 3) == 0
    said = capsys.readouterr().out
    assert "skipped in evaluation" in said and frame in said and "3 frames" in said


def test_the_time_of_a_frame_is_measured_without_loading(app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert judge("--infer_time", "--batch_size", 1, "--scenes", 0) == 0
    assert "ms per frame, median of 1 batches" in capsys.readouterr().out
