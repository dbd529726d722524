"""`scripts/test.py` and `scripts/predict.py` with weights that were really trained, ours and MMEngine's."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from mmengine_files import FOLDER, needs_files
from nano_job import job, session, write_nano_job
from PIL import Image
from tests.processes import PIPE, STDOUT, Popen, environment, run_command
from tests.twin.killing import python
from tests.twin.together import run_together

from mapsage.dataset.palette import EARTHVQA_CLASSES, EARTHVQA_PALETTE
from mapsage.tools import predict, test
from unbroken.errors import ConfigError, DamagedFile, Incompatible, Refused, UsageError

SCRIPTS = Path(__file__).resolve().parents[2] / "apps/mapsage/scripts"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a config, its data and its run of 20 steps, evaluated after 10 and after 20."""
    folder = tmp_path_factory.mktemp("trained")
    config = write_nano_job(folder)
    code, said = session(job(config, "--work-dir", folder / "work_dirs/nano", "--pictures", 0))
    assert code == 0, said
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = Path(shutil.copytree(trained, tmp_path / "here", symlinks=True))
    config = folder / "nano.py"
    config.write_text(config.read_text("utf-8").replace(str(trained), str(folder)), "utf-8")
    monkeypatch.chdir(folder)
    torch.set_num_threads(1)
    return folder


def recorded(run: Path, step: int) -> dict[str, float]:
    """What the training recorded at an evaluation, to the last bit."""
    lines = [json.loads(line) for line in (run / "unbroken/metrics.jsonl").read_text("utf-8").splitlines()]
    (found,) = [line["evaluation"] for line in lines if line["step"] == step and "evaluation" in line]
    return dict(found)


def judged(*words: object) -> dict[str, Any]:
    """The numbers that `test.py` writes."""
    assert test.main([*map(str, words), "--work-dir", "judged"]) == 0
    (written,) = Path("judged").glob("*/*.json")
    found: dict[str, Any] = json.loads(written.read_text("utf-8"))
    shutil.rmtree("judged")
    return found


# -- test.py


def test_several_processes_share_the_tiles_and_count_what_one_does(here: Path) -> None:
    alone = judged("nano.py", "work_dirs/nano/iter_20.pth")
    words = ("nano.py", "work_dirs/nano/iter_20.pth", "--work-dir", "judged", "--out", "masks", "--launcher", "pytorch")
    sessions = run_together(python(SCRIPTS / "test.py", *words), 2, cwd=here)
    assert [each.returncode for each in sessions] == [0, 0], sessions
    assert "mIoU" in sessions[0].output and sessions[1].output == ""
    (written,) = Path("judged").glob("*/*.json")
    assert json.loads(written.read_text("utf-8")) == alone
    assert test.main([*words[:2], "--out", "alone"]) == 0
    masks = {path.name: path.read_bytes() for path in Path("alone").iterdir()}
    assert masks == {path.name: path.read_bytes() for path in Path("masks").iterdir()} and masks


@pytest.mark.parametrize("step", [10, 20])
def test_the_numbers_are_those_of_the_training_bit_for_bit(
    here: Path, step: int, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.set_num_threads(2)  # the run's one thread is set again
    found = judged("nano.py", f"work_dirs/nano/iter_{step}.pth")
    said = capsys.readouterr().out
    expected = recorded(here / "work_dirs/nano", step)
    assert {name: found[name] for name in expected} == expected
    assert torch.get_num_threads() == 1
    words = f"aAcc: {expected['aAcc']:.4f}  mIoU: {expected['mIoU']:.4f}  mAcc: {expected['mAcc']:.4f}"
    assert f"Iter(test) [2/2]  {words}" in said
    table = said.partition("per class results:")[2]
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")] == [
        "Class",
        *EARTHVQA_CLASSES,
    ]
    assert f"load checkpoint from work_dirs/nano/iter_{step}.pth (unbroken checkpoint, step {step})" in said


def test_best_latest_and_a_runs_folder_are_found_as_the_furthest_and_the_best(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = next((here / "work_dirs/nano").glob("best_mIoU_iter_*.pth"))
    for named, expected in {"latest": "iter_20.pth", "work_dirs/nano": "iter_20.pth", "best": best.name}.items():
        assert test.main(["nano.py", named]) == 0
        assert f"load checkpoint from work_dirs/nano/{expected} " in capsys.readouterr().out
    assert test.main(["nano.py", "best", "--work-dir", "judged"]) == 0
    assert f"load checkpoint from work_dirs/nano/{best.name} " in capsys.readouterr().out
    last = here / "work_dirs/nano/iter_20.pth"
    last.write_bytes(last.read_bytes()[:9000])
    assert test.main(["nano.py", "latest"]) == 0
    assert "iter_10.pth" in capsys.readouterr().out
    with pytest.raises(DamagedFile, match="cut off"):
        test.main(["nano.py", "work_dirs/nano/iter_20.pth"])
    best.unlink()
    with pytest.raises(UsageError, match="no best weights"):
        test.main(["nano.py", "best"])
    with pytest.raises(UsageError, match="nothing was trained here yet"):
        test.main(["nano.py", "latest", "--tag", "never"])
    with pytest.raises(UsageError, match=r"no such file.*iter_10\.pth"):
        test.main(["nano.py", "work_dirs/nano/iter_30.pth"])


@needs_files
def test_the_files_of_the_real_mmengine_are_judged(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("iter_20.pth", "best_mIoU_iter_10.pth"):
        assert test.main(["nano.py", str(FOLDER / name)]) == 0
        said = capsys.readouterr().out
        assert f"{name} (MMEngine " in said and "Iter(test) [2/2]  aAcc: " in said
        assert all(f" {name} " in said for name in EARTHVQA_CLASSES)


def test_a_plain_state_dict_is_judged_and_what_it_does_not_say_is_said(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = torch.load("work_dirs/nano/iter_20.pth", weights_only=True)
    torch.save({f"module.{name}": value for name, value in whole["state_dict"].items()}, "plain.pth")
    found = judged("nano.py", "plain.pth")
    assert found["mIoU"] == recorded(here / "work_dirs/nano", 20)["mIoU"]
    assert "taken in their order: the file names no classes" in capsys.readouterr().out
    torch.save({"epoch": 1, "ema": whole["state_dict"]}, "ema.pth")
    assert judged("nano.py", "ema.pth", "--weights-key", "ema")["mIoU"] == found["mIoU"]


def with_classes(source: str, target: str, names: list[str]) -> None:
    tree = torch.load(source, weights_only=True)
    tree["meta"]["dataset_meta"]["classes"] = names
    torch.save({key: tree[key] for key in ("meta", "state_dict")}, target)


def test_the_classes_of_the_file_are_those_of_the_config_or_it_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, own = "work_dirs/nano/iter_20.pth", list(EARTHVQA_CLASSES)
    swapped = [own[1], own[0], *own[2:]]
    with_classes(source, "swapped.pth", swapped)
    found = judged("nano.py", "swapped.pth")
    assert "by class name" in capsys.readouterr().out
    assert found["aAcc"] != recorded(here / "work_dirs/nano", 20)["aAcc"]  # rows went to the names they claim
    with_classes(source, "others.pth", [f"{name}_2" for name in own])
    with pytest.raises(Incompatible, match="no class in common"):
        test.main(["nano.py", "others.pth"])
    with_classes(source, "one_other.pth", [*own[:-1], "sports ground"])
    with pytest.raises(Incompatible, match=r"new here: playground"):
        test.main(["nano.py", "one_other.pth"])
    tree = torch.load(source, weights_only=True)
    for name in ("weight", "bias"):
        rows = tree["state_dict"][f"decode_head.conv_seg.{name}"]
        tree["state_dict"][f"decode_head.conv_seg.{name}"] = torch.cat([rows, rows[:1]])
    tree["meta"]["dataset_meta"]["classes"] = [*own, "rail"]
    torch.save({key: tree[key] for key in ("meta", "state_dict")}, "nine.pth")
    with pytest.raises(Incompatible, match=r"classes that the config does not name.*rail"):
        test.main(["nano.py", "nine.pth"])
    tree["meta"].pop("dataset_meta")
    torch.save({key: tree[key] for key in ("meta", "state_dict")}, "nine.pth")
    with pytest.raises(Incompatible, match="8 classes here, 9 in the file"):
        test.main(["nano.py", "nine.pth"])
    with pytest.raises(Incompatible, match="another shape"):
        test.main(["nano.py", source, "--cfg-options", "model.decode_head.channels=16"])


def test_masks_and_sheets_are_written_where_nothing_is_and_coded_as_the_labels(here: Path) -> None:
    assert test.main(["nano.py", "latest", "--out", "masks", "--show-dir", "sheets"]) == 0
    names = sorted(path.name for path in (here / "data/Val/images_png").iterdir())
    assert sorted(path.name for path in (here / "masks").iterdir()) == names
    assert sorted(path.name for path in (here / "sheets").iterdir()) == names
    for name in names:
        with Image.open(here / "masks" / name) as mask, Image.open(here / "data/Val/masks_png" / name) as truth:
            assert mask.mode == "L" and mask.size == truth.size
            assert np.asarray(mask).min() >= 1 and np.asarray(mask).max() <= 8  # 0 is no data, as in the masks
    assert predict.main(["nano.py", "latest", "data/Val/images_png", "--out", "predicted"]) == 0
    with Image.open("masks/" + names[0]) as mask, Image.open("predicted/labels/" + names[0]) as label:
        assert (np.asarray(mask) == np.asarray(label) + 1).all()
    for option in ("--out", "--show-dir"):
        with pytest.raises(Refused, match="nothing is overwritten"):
            test.main(["nano.py", "latest", option, "masks"])


def test_what_is_not_built_is_refused_and_so_is_a_test_set_without_masks(here: Path) -> None:
    for option in ("--tta", "--show"):
        with pytest.raises(UsageError, match="is not built"):
            test.main(["nano.py", "latest", option])
    with Path("nano.py").open("a", encoding="utf-8") as file:
        file.write(
            "test_dataloader = dict(num_workers=0, dataset=dict(**_data, data_prefix=dict(img_path='Val/images_png'),\n"
            "    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]))\n"
            "test_cfg = dict(type='TestLoop')\ntest_evaluator = dict(type='IoUMetric')\n"
        )
    with pytest.raises(ConfigError, match=r"no masks to judge by.*predict\.py"):
        test.main(["nano.py", "latest"])


def test_masks_that_are_coded_otherwise_than_those_it_learned_from_are_refused(here: Path) -> None:
    tree = torch.load("work_dirs/nano/iter_20.pth", weights_only=True)
    tree["meta"]["dataset_meta"]["reduce_zero_label"] = False
    torch.save({key: tree[key] for key in ("meta", "state_dict")}, "other.pth")
    with pytest.raises(Incompatible, match=r"coded otherwise.*reduce_zero_label=False"):
        test.main(["nano.py", "other.pth"])
    assert predict.main(["nano.py", "other.pth", "data/Val/images_png", "--out", "out"]) == 0  # needs no mask


def test_nothing_is_written_to_an_address_or_read_from_one(here: Path) -> None:
    for words in (["--out"], ["--show-dir"], ["--work-dir"]):
        with pytest.raises(UsageError, match="this is an address"):
            test.main(["nano.py", "work_dirs/nano/iter_20.pth", *words, "s3://bucket/out"])
    for checkpoint, pictures, out in (
        ("https://example.org/best.pth", "data/Val/images_png", "out"),
        ("best", "https://example.org/tile.png", "out"),
        ("best", "data/Val/images_png", "gs://bucket/out"),
    ):
        with pytest.raises(UsageError, match="this is an address"):
            predict.main(["nano.py", checkpoint, pictures, "--out", out])
    assert not (here / "s3:").exists() and not (here / "gs:").exists() and not (here / "out").exists()


def test_a_tile_that_cannot_be_read_ends_it_or_is_left_out(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tile = sorted((here / "data/Val/images_png").iterdir())[0]
    tile.write_bytes(tile.read_bytes()[:100])
    with pytest.raises(DamagedFile, match=tile.name):
        test.main(["nano.py", "latest"])
    assert test.main(["nano.py", "latest", "--on-bad-sample", "skip"]) == 0
    said = capsys.readouterr().out
    assert f"skipped in evaluation: {tile}" in said and "Iter(test) [1/2]" in said


class Boom:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pickle-was-executed",)


def test_a_file_of_a_stranger_executes_nothing(here: Path) -> None:
    tree = torch.load("work_dirs/nano/iter_20.pth", weights_only=True)
    torch.save({"state_dict": tree["state_dict"], "meta": {}, "hook": Boom()}, "hostile.pth")
    Path("bare.pth").write_bytes(pickle.dumps(Boom()))
    assert test.main(["nano.py", "hostile.pth"]) == 0
    with pytest.raises((DamagedFile, UsageError)):
        predict.main(["nano.py", "bare.pth", "data/Val/images_png", "--out", "out"])
    assert not Path("pickle-was-executed").exists() and not Path("out").exists()


def test_the_commands_as_typed_say_what_is_wrong_without_a_trace(here: Path) -> None:
    def typed(script: str, *words: object) -> tuple[int, str]:
        done = run_command(python(SCRIPTS / script, *words), env=environment(), cwd=here)
        return done.returncode, done.stdout + done.stderr

    code, said = typed("test.py", "nano.py", "best")
    assert code == 0 and "Iter(test) [2/2]" in said
    code, said = typed("predict.py", "nano.py", "iter_9.pth", "data/Val/images_png", "--out", "out")
    assert code == 2 and said.startswith("iter_9.pth: there is no such file") and "Traceback" not in said


# -- predict.py

SIZES = {"one": (1, 1), "thin": (3, 500), "small": (31, 28), "odd": (97, 53), "window": (64, 64), "large": (150, 203)}


def pictures(folder: Path) -> Path:
    """Pictures of all sizes, in folders of folders."""
    rng = np.random.default_rng(0)
    for number, (name, size) in enumerate(SIZES.items()):
        suffix = (".png", ".jpg", ".tif")[number % 3]
        path = folder / ("deep/er" if number % 2 else "") / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(path), rng.integers(0, 256, (*size, 3), dtype=np.uint8))
    return folder


@pytest.mark.parametrize("mode", ["whole", "slide"])
def test_pictures_of_any_size_get_labels_and_an_overlay_of_their_size(here: Path, mode: str) -> None:
    folder = pictures(here / "pictures")
    command = ["nano.py", "best", "pictures", "--out", "out", "--cfg-options", f"model.test_cfg.mode={mode}"]
    assert predict.main(command) == 0
    for path in (path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).with_suffix(".png")
        with Image.open(here / "out/labels" / name) as labels, Image.open(here / "out/overlays" / name) as overlay:
            assert (labels.height, labels.width) == SIZES[path.stem] and labels.mode == "L"
            assert overlay.size == labels.size and overlay.mode == "RGB"
            ids = np.asarray(labels)
            assert ids.max() < 8
            painted = np.asarray(EARTHVQA_PALETTE, dtype=np.float64)[ids]
            mixed = (cv2.imread(str(path))[..., ::-1] + painted) / 2
            assert np.abs(np.asarray(overlay) - mixed).max() <= 1
    record = json.loads((here / "out/predictions.json").read_text("utf-8"))
    assert record["classes"] == list(EARTHVQA_CLASSES)
    assert [tuple(colour) for colour in record["palette"]] == list(EARTHVQA_PALETTE)


def test_a_prediction_is_that_of_the_evaluation(here: Path) -> None:
    assert test.main(["nano.py", "latest", "--out", "masks"]) == 0
    assert predict.main(["nano.py", "latest", "data/Val/images_png", "--out", "out"]) == 0
    for path in (here / "masks").iterdir():
        with Image.open(path) as mask, Image.open(here / "out/labels" / path.name) as labels:
            assert (np.asarray(mask) - 1 == np.asarray(labels)).all()


def test_what_cannot_be_read_is_named_and_costs_nothing_else(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pictures(here / "pictures")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "one.png").read_bytes()[:40])
    (folder / "page.jpg").write_text("<html>not found</html>", "utf-8")
    (folder / "notes.txt").write_text("not a picture", "utf-8")
    os.mkfifo(folder / "pipe.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    Image.new("1", (12_000, 12_000)).save(folder / "bomb.png")
    assert predict.main(["nano.py", "best", "pictures", "--out", "out"]) == DamagedFile.exit_code
    said = capsys.readouterr().out
    for name in ("empty.png", "cut.png", "page.jpg", "pipe.png", "gone.png", "bomb.png"):
        assert f"pictures/{name}: left out: pictures/{name}: " in said
    assert "6 predicted, 6 left out, named above" in said and "notes.txt" not in said
    assert sum(path.suffix == ".png" for path in (here / "out/labels").rglob("*")) == len(SIZES)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_the_same_command_goes_on_where_it_was_ended(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = pictures(here / "pictures")
    command = ["nano.py", "best", "pictures", "--out", "out"]
    assert predict.main(command) == 0
    first = contents(here / "out")
    (here / "out/labels/one.png").unlink()
    (here / "out/overlays/deep/er/thin.png").unlink()
    large = here / "out/labels/deep/er/large.png"
    capsys.readouterr()
    assert predict.main(command) == 0
    said = capsys.readouterr().out
    assert "2 predicted, 4 done before and left as they are" in said
    again = contents(here / "out")
    assert {name: found[1] for name, found in again.items()} == {name: found[1] for name, found in first.items()}
    assert again[str(large)] == first[str(large)]
    shutil.copy(folder / "deep/er/odd.png", folder / "one.png")
    assert predict.main(command) == Refused.exit_code
    assert "one.png: a file of something else has this name, and is not replaced" in capsys.readouterr().out
    assert contents(here / "out") == again
    assert predict.main([*command, "--overwrite"]) == 0
    assert "1 predicted, 5 done before" in capsys.readouterr().out


def test_what_a_kill_leaves_is_whole_and_the_same_command_ends_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(here / "pictures")
    assert predict.main(["nano.py", "best", "pictures", "--out", "in_peace"]) == 0
    words = ("nano.py", "best", "pictures", "--out", "killed")
    with Popen(
        python(SCRIPTS / "predict.py", *words), env=environment(), cwd=here, stdout=PIPE, stderr=STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        assert any("[2/6]" in line for line in process.stdout), "it ended before its second picture"
        process.kill()
    left = list((here / "killed").rglob("*.png"))
    for path in left:
        assert path.read_bytes() == (here / "in_peace" / path.relative_to(here / "killed")).read_bytes()
    capsys.readouterr()
    assert predict.main(list(words)) == 0
    assert "done before and left as they are" in capsys.readouterr().out
    for path in (here / "in_peace").rglob("*.png"):
        assert (here / "killed" / path.relative_to(here / "in_peace")).read_bytes() == path.read_bytes()


def test_nothing_of_another_network_or_of_somebody_else_is_replaced(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(here / "pictures")
    assert predict.main(["nano.py", "work_dirs/nano/iter_20.pth", "pictures", "--out", "out"]) == 0
    before = contents(here / "out")
    for words in (
        ["nano.py", "work_dirs/nano/iter_10.pth"],
        ["nano.py", "work_dirs/nano/iter_20.pth", "--cfg-options", "model.test_cfg.stride=(32,32)"],
    ):
        with pytest.raises(Refused, match="predictions of something else"):
            predict.main([*words[:2], "pictures", "--out", "out", *words[2:]])
    (here / "out/predictions.json").write_text("{", "utf-8")
    with pytest.raises(Refused, match="predictions of something else"):
        predict.main(["nano.py", "work_dirs/nano/iter_20.pth", "pictures", "--out", "out"])
    assert {name: found for name, found in contents(here / "out").items() if "json" not in name} == {
        name: found for name, found in before.items() if "json" not in name
    }
    mine = here / "mine/labels/one.png"
    mine.parent.mkdir(parents=True)
    Image.new("RGB", (3, 3), "red").save(mine)
    kept = mine.read_bytes()
    assert predict.main(["nano.py", "best", "pictures", "--out", "mine"]) == Refused.exit_code
    assert mine.read_bytes() == kept and "5 predicted, 1 left out" in capsys.readouterr().out


def test_its_own_results_are_no_pictures_and_files_that_differ_in_the_suffix_keep_it(here: Path) -> None:
    folder = here / "pictures"
    folder.mkdir()
    for name in ("a.png", "a.jpg", "b.PNG", ".hidden.png"):
        Image.new("RGB", (8, 8), "green").save(folder / name, format="PNG")
    (folder / "loop").symlink_to(folder)
    command = ["nano.py", "best", "pictures", "--out", "pictures/out"]
    assert predict.main(command) == 0
    assert predict.main(command) == 0
    written = sorted(path.relative_to(folder / "out/labels").as_posix() for path in (folder / "out/labels").rglob("*"))
    assert written == ["a.jpg.png", "a.png.png", "b.png"]
    (here / "more").mkdir()
    shutil.copy(folder / "a.png", here / "more/b.png")
    with pytest.raises(UsageError, match="under one name"):
        predict.main(["nano.py", "best", "pictures/b.PNG", "more/b.png", "pictures/b.PNG", "--out", "new"])
    for missing in ("nowhere", "nowhere.png"):
        with pytest.raises(UsageError, match="no such picture"):
            predict.main(["nano.py", "best", missing, "--out", "new"])
    (here / "bare").mkdir()
    with pytest.raises(UsageError, match="no picture in this folder"):
        predict.main(["nano.py", "best", "bare", "--out", "new"])
    assert not (here / "new").exists()


@needs_files
def test_the_colours_of_a_file_are_used_where_neither_config_nor_data_set_has_any(here: Path) -> None:
    own = Path("nano.py").read_text("utf-8")
    names = ["one", "two", "three", "four", "five", "six", "seven", "eight"]
    free = own.replace('type="EarthVQADataset"', f'type="BaseSegDataset", metainfo=dict(classes={names!r})')
    Path("free.py").write_text(free, "utf-8")
    tree = torch.load("work_dirs/nano/iter_20.pth", weights_only=True)
    palette = [[number, 100, 200] for number in range(8)]
    tree["meta"]["dataset_meta"] = {"classes": names[::-1], "palette": palette}
    torch.save({key: tree[key] for key in ("meta", "state_dict")}, "coloured.pth")
    pictures(here / "pictures")
    assert predict.main(["free.py", "coloured.pth", "pictures", "--out", "out"]) == 0
    record = json.loads((here / "out/predictions.json").read_text("utf-8"))
    assert record["palette"] == palette[::-1] and record["classes"] == names
