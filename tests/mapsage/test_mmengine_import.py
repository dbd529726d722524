"""A training that MMEngine began goes on here: the guide's story, on files that the real MMEngine wrote."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine_files import FOLDER, logged_rates, needs_files
from nano_job import Listener, built, evaluated, job, scalars, session, steps_printed, write_nano_job
from PIL import Image
from tests.processes import run_command

from unbroken.cli import main
from unbroken.errors import DamagedFile, Refused, UnbrokenError, UsageError
from unbroken.launch import FineTune, Fresh, Plan, Resume, decide, gather
from unbroken.train import read_checkpoint
from unbroken.train.start import launch

pytestmark = needs_files
TEN, TWENTY, BEST = FOLDER / "iter_10.pth", FOLDER / "iter_20.pth", FOLDER / "best_mIoU_iter_10.pth"


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def guide_config(
    folder: Path, load_from: Path = TEN, *, resume: bool = True, name: str = "nano.py", **more: int
) -> Path:
    """A config with the guide's two lines."""
    lines = f"load_from = {str(load_from)!r}\nresume = {resume}"
    return write_nano_job(folder, name=name, more=lines, **more)


def plan_of(config: Path, *options: object) -> Plan:
    asked = job(config, *options)
    return decide(asked, gather(asked))


# -- (a) load_from=iter_10.pth, resume=True ----------------------------------------------------------------------------


def test_it_goes_on_at_step_11_with_the_lines_of_the_guide_and_the_rates_of_mmengine(tmp_path: Path) -> None:
    asked = job(guide_config(tmp_path))
    plan = decide(asked, gather(asked))
    assert isinstance(plan, Resume) and plan.source.path == TEN
    assert "the config names" in plan.reasons[0]

    code, said = session(asked)

    assert code == 0
    assert f"plan: RESUME - continue {asked.directory} at step 11 of 20, learning rate 0.000642857" in said
    guide = [
        f"load checkpoint from {TEN}",
        "resumed epoch: 0, iter: 10",
        "resume optimizer: <class 'torch.optim.adamw.AdamW'>",
        "resume lr_scheduler: <class 'mapsage.schedule.IterationSchedule'>",
    ]
    guide += [
        "the file has no random state: dropout and the like begin a new stream, exactness begins here",
        "data position taken from the step: 20 samples were used; from here on the order is this run's",
    ]
    assert "best so far" not in said, "MMEngine keeps its best score"
    lines = said.splitlines()
    places = [lines.index(line) for line in guide]
    first_step = next(place for place, line in enumerate(lines) if line.startswith("Iter(train)"))
    assert places == sorted(places) and places[-1] < first_step
    assert list(steps_printed(said)) == list(range(11, 21))
    rates = {step: line["lr"] for step, line in scalars(asked.directory).items()}
    assert rates[15] == logged_rates()[15] == 0.0003571428571428571
    assert rates[20] == logged_rates()[20] == 0.0
    assert evaluated(asked.directory) == [20], "what MMEngine evaluated at step 10 is not evaluated again"
    assert not list(TEN.parent.glob("unbroken")), "the folder it came from is left alone"


def test_weights_and_moments_are_those_of_the_file_bit_for_bit(tmp_path: Path) -> None:
    asked = job(guide_config(tmp_path))
    task, theirs = built(asked), read_checkpoint(TEN)
    with launch(asked, console=Listener()) as run:
        run.track(**task.parts())
        assert run.step == 10

    own, state = task.model.state_dict(), theirs["state_dict"]
    assert own.keys() == state.keys()
    assert all(torch.equal(own[name], state[name]) for name in own)
    moments, found = theirs["optimizer"]["state"], task.optimizer.state_dict()["state"]
    assert found.keys() == moments.keys() and len(found) > 100
    for index, entry in moments.items():
        assert float(found[index]["step"]) == float(entry["step"]) == 10.0
        assert all(torch.equal(found[index][name], entry[name]) for name in ("exp_avg", "exp_avg_sq"))
    assert task.optimizer.param_groups[0]["lr"] == theirs["optimizer"]["param_groups"][0]["lr"]


def test_after_a_stop_the_same_command_goes_on_from_its_own_checkpoint_and_says_so(tmp_path: Path) -> None:
    asked = job(guide_config(tmp_path))
    code, said = session(asked, stop_at=13)
    assert code == 75 and "after step 13" in said

    code, said = session(asked)

    assert code == 0
    assert f"load checkpoint from {asked.directory / 'iter_13.pth'}" in said
    assert list(steps_printed(said)) == list(range(14, 21))
    assert f"note: {TEN} was the start of this run; it has gone on since" in said
    assert evaluated(asked.directory) == [20]


def test_interrupted_after_the_import_it_is_the_twin_of_the_uninterrupted_import(tmp_path: Path) -> None:
    whole, cut = (job(guide_config(tmp_path, name=name)) for name in ("whole.py", "cut.py"))
    assert session(whole)[0] == 0
    assert session(cut, stop_at=14)[0] == 75
    assert session(cut)[0] == 0
    losses = [{step: line["loss"] for step, line in scalars(each.directory).items()} for each in (whole, cut)]
    assert losses[0] == losses[1]
    one, other = (read_checkpoint(each.directory / "iter_20.pth")["state_dict"] for each in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)


# -- (b) a folder that MMEngine wrote ----------------------------------------------------------------------------------


def test_a_folder_of_mmengine_is_adopted_in_place_at_its_furthest_step(tmp_path: Path) -> None:
    run = tmp_path / "work_dirs" / "nano"
    shutil.copytree(FOLDER, run, copy_function=shutil.copyfile)
    os.utime(run / "iter_10.pth", (2e9, 2e9))  # a newer time means nothing
    before = {path.name: path.read_bytes() for path in run.glob("*.pth")}
    asked = job(write_nano_job(tmp_path, steps=24, end=24))
    assert asked.directory == Path("work_dirs/nano")

    code, said = session(asked)

    assert code == 0
    assert "iter_20.pth is the furthest checkpoint here (step 20, MMEngine checkpoint)" in said
    assert f"load checkpoint from {asked.directory / 'iter_20.pth'}" in said
    assert list(steps_printed(said)) == [21, 22, 23, 24]
    assert "not used: iter_10.pth (step 10)" in said and "not used: best_mIoU_iter_10.pth" in said
    assert {name: (run / name).read_bytes() for name in before} == before, "MMEngine's files are still there, unchanged"
    assert {path.name for path in run.glob("iter_*.pth")} == {"iter_10.pth", "iter_20.pth", "iter_24.pth"}


def test_a_file_under_a_wrong_name_counts_by_the_step_inside(tmp_path: Path) -> None:
    run = tmp_path / "work_dirs" / "nano"
    run.mkdir(parents=True)
    shutil.copyfile(TEN, run / "iter_9000.pth")
    shutil.copyfile(TWENTY, run / "iter_15.pth")
    plan = plan_of(write_nano_job(tmp_path, steps=24, end=24))
    assert isinstance(plan, Resume)
    assert (plan.source.name, plan.source.step) == ("iter_15.pth", 20)


# -- (c) the best weights ----------------------------------------------------------------------------------------------


def test_resuming_from_the_best_weights_is_refused_and_fine_tuning_offered(tmp_path: Path) -> None:
    asked = job(guide_config(tmp_path, BEST))
    with pytest.raises(Refused) as refused:
        session(asked)
    assert refused.value.exit_code == 10
    assert "without optimizer state, training cannot continue from it" in str(refused.value)
    assert f"--tag nano_finetune --pretrained_model {BEST}" in str(refused.value)
    offered = plan_of(guide_config(tmp_path, BEST), "--tag", "nano_finetune", "--pretrained_model", BEST)
    assert isinstance(offered, FineTune) and offered.source.path == BEST
    assert not asked.directory.exists()


@pytest.mark.parametrize("by_option", [False, True], ids=["resume=False", "--pretrained_model"])
def test_the_best_weights_begin_a_training_of_its_own(tmp_path: Path, by_option: bool) -> None:
    config = write_nano_job(tmp_path, steps=2) if by_option else guide_config(tmp_path, BEST, resume=False, steps=2)
    asked = job(config, *(["--pretrained_model", BEST] if by_option else []))
    assert isinstance(plan_of(config, "--pretrained_model", BEST), FineTune)

    code, said = session(asked)

    assert code == 0
    assert "plan: FINE-TUNE" in said and "from step 1 of 2" in said
    assert f"load weights from {BEST}" in said and "124 of 124 tensors loaded" in said
    assert list(steps_printed(said)) == [1, 2]
    assert "resume optimizer" not in said


def test_the_rows_of_a_class_that_is_gone_are_left_out_and_the_rest_is_taken(tmp_path: Path) -> None:
    seven = "', '".join(["background", "building", "road", "water", "barren", "forest", "agriculture"])
    config = write_nano_job(tmp_path, steps=1)
    dataset = f"type='BaseSegDataset', reduce_zero_label=True, metainfo=dict(classes=('{seven}'))"
    text = config.read_text().replace('type="EarthVQADataset"', dataset)
    config.write_text(text.replace("num_classes=8", "num_classes=7"))
    for mask in (tmp_path / "data").rglob("masks_png/*.png"):
        _without_playgrounds(mask)
    asked = job(config, "--pretrained_model", BEST)

    code, said = session(asked)

    assert code == 0
    assert "122 of 124 tensors loaded" in said
    assert "  by class name: background, building, road, water, barren, forest, agriculture (7 of 7 rows); " in said
    assert "  by class name  decode_head.conv_seg.weight  [7, 8, 1, 1]  [8, 8, 1, 1]" in said


def test_resuming_with_another_head_is_refused_before_a_weight_is_copied(tmp_path: Path) -> None:
    config = guide_config(tmp_path)
    config.write_text(config.read_text().replace("channels=8", "channels=16"))
    asked = job(config)
    with pytest.raises(UnbrokenError) as refused:
        session(asked)
    assert refused.value.exit_code == 13
    assert "model.decode_head.channels: 8 -> 16 (shape)" in str(refused.value)
    assert "keep both as experiments of their own: --tag nano_channels_16 --fresh\n" in str(refused.value)
    assert isinstance(plan_of(config, "--tag", "nano_channels_16", "--fresh"), Fresh)
    assert isinstance(plan_of(config, "--tag", "nano_channels_16", "--pretrained_model", TEN), FineTune)
    (said,) = [line for line in str(refused.value).splitlines() if "decode_head.conv_seg.weight" in line]
    assert "[8, 16, 1, 1] in the model" in said and "[8, 8, 1, 1] in the file" in said
    assert not list(asked.directory.rglob("*.pth")) and not (asked.directory / "unbroken" / "run.json").exists()


# -- (d) another schedule ----------------------------------------------------------------------------------------------


def test_a_schedule_that_is_not_the_files_is_followed_and_said_in_numbers(tmp_path: Path) -> None:
    asked = job(guide_config(tmp_path, end=40, steps=12))
    code, said = session(asked)
    assert code == 0
    assert "the checkpoint's schedule is not the config's, which is followed from step 11 on" in said
    rate = scalars(asked.directory)[11]["lr"]
    assert rate == pytest.approx(0.001 * (34 - 5) / 34)
    assert f"learning rate 0.000642857 -> {rate:.6g}" in said
    assert f"at step 11 of 12, learning rate {rate:.6g}" in said


# -- (e) files that want to execute something --------------------------------------------------------------------------


class Bomb:
    """What an attacker puts into a checkpoint."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return os.mkdir, (self.trace,)


def plant(path: Path, trace: Path, *, legacy: bool) -> None:
    """A file that looks like iter_10.pth of MMEngine, with a bomb where MMEngine has its history."""
    tree = {
        "meta": {"iter": 10, "epoch": 0, "mmengine_version": "0.10.7", "note": Bomb(trace)},
        "state_dict": {"backbone.layers.0.0.projection.weight": torch.zeros(4, 3, 7, 7)},
        "optimizer": {"state": {}, "param_groups": [{"params": [0], "lr": 0.1}]},
        "param_schedulers": [],
        "message_hub": {"runtime_info": Bomb(trace)},
    }
    torch.save(tree, path, _use_new_zipfile_serialization=not legacy)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_bomb_in_place_of_the_file_is_never_executed(tmp_path: Path, legacy: bool) -> None:
    trace, bomb = tmp_path / "it_went_off", tmp_path / "iter_10.pth"
    plant(bomb, trace, legacy=legacy)
    config = guide_config(tmp_path, bomb, steps=1)
    with pytest.raises(UnbrokenError):
        session(job(config))
    with pytest.raises(UnbrokenError):
        session(job(config, "--ckpt", bomb, "--tag", "exact"))
    only_weights = ["--cfg-options", "load_from=None", "resume=False"]
    code, said = session(job(config, "--pretrained_model", bomb, "--tag", "tuned", *only_weights))
    assert code == 0 and "1 of 124 tensors loaded" in said, "its one tensor is as good as any other"
    for command in (["why", "mapsage", config], ["inspect", bomb], ["verify", bomb], ["show", tmp_path]):
        done = run_command([sys.executable, "-m", "unbroken", *map(str, command)], timeout=60)
        assert "Traceback" not in done.stderr, done.stderr
    assert not trace.exists()
    with pytest.raises(Exception):  # noqa: B017 - only to show that the bomb is a real one
        torch.load(bomb, weights_only=False)["no such key"]
    assert trace.exists()


def test_a_bare_pickle_and_a_zip_with_a_bomb_in_its_pickle_are_damage_not_code(tmp_path: Path) -> None:
    trace = tmp_path / "it_went_off"
    bare, packed = tmp_path / "bare.pth", tmp_path / "packed.pth"
    bare.write_bytes(pickle.dumps({"state_dict": Bomb(trace)}))
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Bomb(trace)))
        file.writestr("archive/version", "3\n")
    for path in (bare, packed):
        with pytest.raises((DamagedFile, Refused)):
            session(job(guide_config(tmp_path, path)))
    assert not trace.exists()


# -- (f) our own files for their tools ---------------------------------------------------------------------------------


def test_our_checkpoint_opens_with_plain_torch_and_fits_freshly_built_objects(tmp_path: Path) -> None:
    asked = job(guide_config(tmp_path, steps=12))
    assert session(asked)[0] == 0

    tree = torch.load(asked.directory / "iter_12.pth", weights_only=True)

    assert tree.keys() == {"meta", "state_dict", "optimizer", "param_schedulers", "message_hub", "unbroken"}
    assert (tree["meta"]["iter"], tree["meta"]["epoch"]) == (12, 0)
    assert tree["meta"]["dataset_meta"]["classes"][-1] == "playground"
    assert tree["param_schedulers"][0]["_global_step"] == 12
    task = built(job(guide_config(tmp_path, name="other.py")))
    task.model.load_state_dict(tree["state_dict"], strict=True)
    task.optimizer.load_state_dict(tree["optimizer"])
    assert float(task.optimizer.state_dict()["state"][0]["step"]) == 12.0
    assert read_checkpoint(TEN).keys() == tree.keys() - {"unbroken"}


# -- (g) a path that is not there --------------------------------------------------------------------------------------


def test_a_path_that_is_not_there_says_what_is_near_it(tmp_path: Path) -> None:
    asked = job(guide_config(tmp_path, FOLDER / "iter_8000.pth"))
    with pytest.raises(UsageError) as missing:
        session(asked)
    assert missing.value.exit_code == 2
    assert "iter_8000.pth: there is no such file" in str(missing.value)
    assert "iter_10.pth, iter_20.pth" in str(missing.value)
    assert not asked.directory.exists()


def _without_playgrounds(path: Path) -> None:
    with Image.open(path) as picture:
        labels = np.array(picture)
    labels[labels == 8] = 0
    Image.fromarray(labels).save(path)


# -- their folder, only looked at --------------------------------------------------------------------------------------


def test_a_folder_that_mmengine_left_is_a_run_for_every_command_that_looks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def typed(*words: str) -> str:
        capsys.readouterr()
        assert main(list(words)) == 0
        return capsys.readouterr().out

    shutil.copytree(FOLDER, "runs/theirs")
    shutil.copytree(FOLDER, "runs/theirs/archive/old")
    config = write_nano_job(tmp_path)

    (row,) = json.loads(typed("ls", "runs", "--json"))
    assert (row["tag"], row["status"], row["step"]) == ("theirs", "left by MMEngine", 20)
    assert row["best"] == {"metric": "mIoU", "value": pytest.approx(6.79), "step": 10}
    shown = typed("show", "runs/theirs")
    assert "theirs - left by MMEngine" in shown and "to go on with it here" in shown
    assert "all 3 are whole" in typed("verify", "runs/theirs")
    assert "MMEngine checkpoint" in typed("inspect", "runs/theirs/iter_20.pth")
    plan = typed("why", "mapsage", str(config), "--work-dir", "runs/theirs", "--cfg-options", "train_cfg.max_iters=30")
    assert "iter_20.pth is the furthest checkpoint here (step 20, MMEngine checkpoint)" in plan
    assert "it holds the config and the classes that it was written with" in plan
    assert "a copy of iter_20.pth is kept in archive/" in plan
    assert not list(Path("runs").rglob("unbroken"))
