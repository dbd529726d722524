"""The real MMEngine and MapSage continue each other's trainings, with and without SegFormer's usual `paramwise_cfg`.

Both see one tile twice in each batch, without augmentation or dropout, so what follows from the same state is the same
training. Measured: schedules and optimizer agree to the last bit; the networks' forward passes differ by rounding
(2e-6 of a logit), which AdamW's division by small moments makes at most 2e-5 of a weight within four steps (a step at
these rates is 1e-3, and 1e-2 in the head).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from both_programs import difference, mmengine_trains, needs_mmengine, write_config, write_tile
from nano_job import Listener, built, job, scalars, session

from unbroken.cli import main
from unbroken.errors import UnbrokenError
from unbroken.launch import Resume, gather
from unbroken.train import decide_by_shapes, read_checkpoint, require_takeover
from unbroken.train.fit import hand_over
from unbroken.train.start import launch

pytestmark = needs_mmengine
RECIPES = pytest.mark.parametrize("recipe", ["plain", "paramwise"])
AT_MOST = 5e-5
# Schedules of MMEngine that MapSage has not, and their settings.
OTHER_SCHEDULES = {
    "MultiStepLR": "milestones=[2, 6], gamma=0.1",
    "CosineAnnealingLR": "T_max=12",
    "ConstantLR": "factor=0.5",
    "LinearMomentum": "start_factor=0.5",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tile, the configs, and what the real MMEngine trained by them: saves after 4 and 8 iterations."""
    folder = tmp_path_factory.mktemp("both")
    write_tile(folder)
    asked: list[dict[str, Any]] = []
    for recipe in ("plain", "paramwise"):
        config = write_config(folder, recipe, paramwise=recipe == "paramwise")
        asked += [{"config": config, "work_dir": folder / f"{recipe}_theirs", "probe": folder / f"{recipe}_probe.pth"}]
    short = {"train_cfg.max_iters": 4}
    plain = {"config": folder / "plain.py", "options": short}
    ema = {**short, "custom_hooks": [{"type": "EMAHook", "momentum": 0.5}]}
    asked += [{**plain, "work_dir": folder / "ema", "options": ema}]
    without = {**short, "default_hooks.checkpoint.save_param_scheduler": False}
    asked += [{**plain, "work_dir": folder / "without_schedule", "options": without}]
    for name, settings in OTHER_SCHEDULES.items():
        config = write_config(
            folder, name, schedule=f"[dict(type='{name}', {settings}, begin=0, end=12, by_epoch=False)]"
        )
        asked += [{"config": config, "work_dir": folder / f"{name}_theirs", "options": short}]
    config = write_config(folder, "accumulated", accumulate=2)
    asked += [{"config": config, "work_dir": folder / "accumulated_theirs", "options": short}]
    mmengine_trains(*asked)
    return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rates(tree: Mapping[str, Any]) -> list[float]:
    return [group["lr"] for group in tree["optimizer"]["param_groups"]]


def rates_logged(run: Path) -> dict[int, float]:
    """The learning rate that MMEngine logged of each iteration."""
    lines = [json.loads(line) for line in next(run.glob("*/vis_data/scalars.json")).read_text().splitlines()]
    return {line["iter"]: line.get("base_lr", line["lr"]) for line in lines if "lr" in line}


def probed(config: Path, file: Path) -> dict[str, torch.Tensor]:
    """What one more step of our optimizer makes of the weights of a file, from the gradients of `mmengine_program`."""
    asked = job(config, "--ckpt", file, "--tag", "probe", "--cfg-options", "train_cfg.max_iters=12")
    task = built(asked)
    with launch(asked, console=Listener()) as run:
        hand_over(task, run)
    for parameter in task.model.parameters():
        parameter.grad = parameter.detach() * 0.125
    task.optimizer.step()
    return task.model.state_dict()


# -- from MMEngine to here ---------------------------------------------------------------------------------------------


@RECIPES
def test_what_follows_from_their_file_is_what_follows_there(folder: Path, recipe: str) -> None:
    theirs = folder / f"{recipe}_theirs"
    asked = job(folder / f"{recipe}.py", "--ckpt", theirs / "iter_4.pth")

    code, said = session(asked)

    assert code == 0 and "plan: RESUME" in said and "resumed epoch: 0, iter: 4" in said
    here, there = read_checkpoint(asked.directory / "iter_8.pth"), read_checkpoint(theirs / "iter_8.pth")
    assert here["param_schedulers"] == there["param_schedulers"]
    assert rates(here) == rates(there)
    states = here["optimizer"]["state"], there["optimizer"]["state"]
    assert states[0].keys() == states[1].keys()
    assert {float(state["step"]) for state in states[0].values()} == {8.0}
    found = difference(here["state_dict"], there["state_dict"])
    assert found < AT_MOST, found
    moved = difference(there["state_dict"], read_checkpoint(theirs / "iter_4.pth")["state_dict"])
    assert moved > 20 * AT_MOST, "the steps are far larger than what is tolerated"
    of_them = rates_logged(theirs)
    assert {step: line["lr"] for step, line in scalars(asked.directory).items()} == {n: of_them[n] for n in range(5, 9)}


@RECIPES
def test_one_more_step_of_their_optimizer_has_the_same_bits_here(folder: Path, recipe: str) -> None:
    ours = probed(folder / f"{recipe}.py", folder / f"{recipe}_theirs" / "iter_8.pth")
    theirs = read_checkpoint(folder / f"{recipe}_probe.pth")["state_dict"]
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


@RECIPES
def test_a_training_of_its_own_begins_with_their_weights(folder: Path, recipe: str) -> None:
    file = folder / f"{recipe}_theirs" / "iter_8.pth"
    asked = job(
        folder / f"{recipe}.py", "--pretrained_model", file, "--tag", "tuned", "--cfg-options", "train_cfg.max_iters=1"
    )
    code, said = session(asked)
    assert code == 0 and "plan: FINE-TUNE" in said and "124 of 124 tensors loaded" in said
    tuned = read_checkpoint(asked.directory / "iter_1.pth")
    head = "decode_head.conv_seg.weight"  # one step of a new warm-up moves it by less than rounding does elsewhere
    assert torch.allclose(tuned["state_dict"][head], read_checkpoint(file)["state_dict"][head], rtol=0, atol=1e-7)


def seven_classes(folder: Path) -> Path:
    config = folder / "seven.py"
    text = (folder / "plain.py").read_text().replace("num_classes=8", "num_classes=7")
    config.write_text(text.replace('"forest", "agriculture", "playground"', '"forest", "agriculture"'))
    return config


@pytest.mark.parametrize("its_config", ["known", "not known"])
@pytest.mark.parametrize(
    ("file", "config", "key", "words"),
    [
        ("plain", "paramwise", "paramwise_cfg", "optimizer: expected parameter groups of"),
        ("paramwise", "plain", "paramwise_cfg", "optimizer: expected parameter groups of"),
        ("plain", "seven", "num_classes", "model.decode_head.conv_seg.weight: expected (7, 8, 1, 1)"),
    ],
)
def test_the_state_of_another_config_is_refused_by_why_and_train_alike_before_anything_is_loaded(
    folder: Path, its_config: str, file: str, config: str, key: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seven_classes(folder)
    source = folder / f"{file}_theirs/iter_4.pth"
    if its_config == "not known":
        tree = read_checkpoint(source)
        source = Path("no_config.pth").resolve()
        meta = {name: value for name, value in tree["meta"].items() if name in ("epoch", "iter", "mmengine_version")}
        torch.save({**tree, "meta": meta, "message_hub": {}}, source)
        key = words
    typed = [str(folder / f"{config}.py"), "--ckpt", str(source)]
    capsys.readouterr()
    assert main(["why", "mapsage", *typed]) == 13
    said = "".join(capsys.readouterr())
    asked = job(Path(typed[0]), *typed[1:])
    with pytest.raises(UnbrokenError) as refused:
        session(asked)
    assert refused.value.exit_code == 13
    for text in (said, str(refused.value)):
        assert key in text and "resumed" not in text
    assert not list(asked.directory.rglob("*.pth")) and not (asked.directory / "unbroken/run.json").exists()


@pytest.mark.parametrize("name", list(OTHER_SCHEDULES))
def test_a_schedule_that_is_not_known_here_is_named_and_the_configs_counts(folder: Path, name: str) -> None:
    config = "plain"
    asked = job(folder / f"{config}.py", "--ckpt", folder / f"{name}_theirs/iter_4.pth", "--tag", name)
    plan = decide_by_shapes(asked, gather(asked))
    words = f"its learning-rate schedule is not known here ({name}): the config's counts"
    assert isinstance(plan, Resume) and words in require_takeover(asked, plan)

    code, said = session(asked, stop_at=5)

    assert code == 75 and words in said
    known = rates_logged(folder / "plain_theirs")
    assert scalars(asked.directory)[5]["lr"] == known[5]
    assert rates(read_checkpoint(asked.directory / "iter_5.pth"))[0] == known[6]


def test_a_file_without_a_schedule_gets_the_configs_at_its_step_and_no_second_warm_up(folder: Path) -> None:
    asked = job(folder / "plain.py", "--ckpt", folder / "without_schedule/iter_4.pth")
    code, said = session(asked, stop_at=5)
    assert code == 75 and "the file has no lr_scheduler: the config's schedule counts" in said
    known = rates_logged(folder / "plain_theirs")
    assert scalars(asked.directory)[5]["lr"] == known[5]


def test_of_a_file_with_averaged_weights_the_trained_ones_are_continued(folder: Path) -> None:
    asked = job(folder / "plain.py", "--ckpt", folder / "ema/iter_4.pth")
    task = built(asked)
    listener = Listener()
    with launch(asked, console=listener) as run:
        hand_over(task, run)
    assert "the average of its EMA hook ends here" in listener.text
    trained = read_checkpoint(folder / "plain_theirs/iter_4.pth")["state_dict"]
    assert all(torch.equal(value, trained[name]) for name, value in task.model.state_dict().items())
    averaged = read_checkpoint(folder / "ema/iter_4.pth")["state_dict"]
    assert not torch.equal(averaged["decode_head.conv_seg.weight"], trained["decode_head.conv_seg.weight"])


def test_that_its_iterations_were_batches_is_said(folder: Path) -> None:
    asked = job(folder / "accumulated.py", "--ckpt", folder / "accumulated_theirs/iter_4.pth")
    code, said = session(asked, stop_at=5)
    assert code == 75 and "its optimizer has stepped 2 times in 4 iterations" in said


def changed(source: Path, **parts: Any) -> Path:
    """One of their files with parts of it changed; its history, of a class of theirs, is left out."""
    file = Path("changed.pth").resolve()
    torch.save({**read_checkpoint(source), "message_hub": {}, **parts}, file)
    return file


def test_the_gradient_scaler_in_their_optimizers_entry_is_continued_and_stands_there_in_our_files(
    folder: Path,
) -> None:
    """AmpOptimWrapper itself needs a GPU; its file differs in this entry alone."""
    source = folder / "plain_theirs/iter_4.pth"
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0).state_dict() | {"_growth_tracker": 7}
    file = changed(source, optimizer={**read_checkpoint(source)["optimizer"], "loss_scaler": scaler})

    code, said = session(job(folder / "plain.py", "--amp", "--ckpt", file, "--tag", "amp"), stop_at=5)

    assert code == 75 and "resume scaler: <class 'torch.amp.grad_scaler.GradScaler'>" in said
    assert "initial scale" not in said
    ours = read_checkpoint(Path("work_dirs/amp/iter_5.pth"))
    for state in (ours["optimizer"]["loss_scaler"], ours["unbroken"]["parts"]["scaler"]):
        assert (state["scale"], state["_growth_tracker"]) == (1024.0, 8)
    code, said = session(job(folder / "plain.py", "--ckpt", file, "--tag", "full"), stop_at=5)
    assert code == 75 and "its gradient scaler is not used: the config has no mixed precision" in said


def test_a_training_by_several_optimizers_is_refused_as_such(folder: Path) -> None:
    source = folder / "plain_theirs/iter_4.pth"
    tree = read_checkpoint(source)
    one, schedules = tree["optimizer"], tree["param_schedulers"]
    several = {"optimizer": {"generator": one, "discriminator": one}, "param_schedulers": {"generator": schedules}}
    with pytest.raises(UnbrokenError, match=r"several optimizers.*found generator, discriminator") as refused:
        session(job(folder / "plain.py", "--ckpt", changed(source, **several)))
    assert refused.value.exit_code == 13


# -- from here to MMEngine ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def given_back(folder: Path) -> Path:
    """Our trainings of 8 steps, saved after 4, and what the real MMEngine made of those saves."""
    asked = []
    for recipe in ("plain", "paramwise"):
        config, ours = folder / f"{recipe}.py", folder / f"{recipe}_ours"
        assert session(job(config, "--work-dir", ours))[0] == 0
        resumed = {"config": config, "work_dir": folder / f"{recipe}_back", "resume": ours / "iter_4.pth"}
        asked.append({**resumed, "probe": folder / f"{recipe}_back.pth"})
    mmengine_trains(*asked)
    return folder


@RECIPES
def test_the_real_mmengine_resumes_our_file_and_goes_on_as_we_do(given_back: Path, recipe: str) -> None:
    here = read_checkpoint(given_back / f"{recipe}_ours/iter_8.pth")
    there = read_checkpoint(given_back / f"{recipe}_back/iter_8.pth")
    assert there["meta"]["iter"] == 8 and there["meta"]["mmengine_version"]
    assert here["param_schedulers"] == there["param_schedulers"]
    assert rates(here) == rates(there)
    assert {float(state["step"]) for state in there["optimizer"]["state"].values()} == {8.0}
    assert difference(here["state_dict"], there["state_dict"]) < AT_MOST
    keys = {key for key in there if key != "unbroken"}
    assert {key: _form(there[key]) for key in keys - {"meta", "message_hub"}} == {
        key: _form(here[key]) for key in keys - {"meta", "message_hub"}
    }
    assert there["message_hub"]["runtime_info"]["iter"] == here["message_hub"]["runtime_info"]["iter"] == 7


@RECIPES
def test_what_they_made_of_our_file_is_continued_here_again(given_back: Path, recipe: str) -> None:
    back = given_back / f"{recipe}_back/iter_8.pth"
    ours = probed(given_back / f"{recipe}.py", back)
    theirs = read_checkpoint(given_back / f"{recipe}_back.pth")["state_dict"]
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def _form(value: Any) -> Any:
    """Names, types and shapes of a tree: what a program that reads it relies on."""
    match value:
        case torch.Tensor():
            return tuple(value.shape), str(value.dtype)
        case dict():
            return {key: _form(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_form(item) for item in value)
    return type(value)
