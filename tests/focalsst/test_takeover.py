"""A folder that the original left is taken over: what is loaded, what is said, and what is refused."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from focalsst.config import detector_settings
from focalsst.model.detector import build_detector
from focalsst.optimizer import build_adam
from focalsst.original_states import TABLES, spell_as_here
from focalsst.task import build
from focalsst.testing import main as judge
from tests.focalsst.detectors import FOCAL_SST
from tests.focalsst.nano_job import BATCH, CONFIG, FRAMES, Listener, job, session, steps
from tests.focalsst.original_checkpoints import Original, copy_of, train_as_the_original
from tests.focalsst.original_network import original_network
from tests.processes import run_command
from unbroken import Job
from unbroken.errors import Incompatible
from unbroken.launch import Resume
from unbroken.train import Task, read_checkpoint
from unbroken.train.start import launch

pytestmark = pytest.mark.usefixtures("in_the_application_s_folder")

ENCODER = "backbone_3d.focal_encoder"
PER_EPOCH = -(-FRAMES // BATCH)
EPOCHS = 4
WIDTH_OF_THE_ORIGINAL = ["--set", "MODEL.MAP_TO_BEV.HEIGHT_AWARE", False]  # it has no such weights
LACKING = [
    "the file has no random state: dropout and the like begin a new stream, exactness begins here",
    "the file has no lr_scheduler: the config's schedule counts",
    "the file has no best score: the next evaluation is the best so far",
    "the config it was written under is not known: changes since then cannot be listed",
]


def asked(output: Path, *options: object, shape: list[object] | None = None) -> Job:
    given = ["--workers", 0, "--output", output, "--epochs", EPOCHS, "--eval_interval", 0, *options]
    return job(*given, *(shape or WIDTH_OF_THE_ORIGINAL))


def built(found: Job) -> Task:
    torch.set_num_threads(1)
    torch.manual_seed(5)
    return build(found, lambda _line: None)


@pytest.fixture(scope="module")
def originals(app: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Original]:
    """States of the original by their step: the ends of its first three epochs, and two steps into the third."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(app)
        settings = detector_settings(asked(tmp_path_factory.mktemp("none")).options.own.config)
    states = islice(train_as_the_original(settings, per_epoch=PER_EPOCH, epochs=EPOCHS), 3 * PER_EPOCH)
    wanted = (PER_EPOCH, 2 * PER_EPOCH, 2 * PER_EPOCH + 2, 3 * PER_EPOCH)
    return {state.it: state for state in states if state.it in wanted}


@pytest.fixture
def folder(tmp_path: Path, originals: dict[int, Original]) -> Path:
    """What the original left, with times that mean nothing and a last file that was cut off."""
    run = asked(tmp_path).directory
    for epoch in (1, 2, 3):
        originals[epoch * PER_EPOCH].write(run / f"ckpt/checkpoint_epoch_{epoch}.pth")
    originals[2 * PER_EPOCH + 2].write(run / "ckpt/latest_model.pth")
    last = run / "ckpt/checkpoint_epoch_3.pth"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    (run / "tiny.yaml").write_text("the original's copy\n")
    for name, seconds in {"checkpoint_epoch_1": 2e9, "latest_model": 1e9, "checkpoint_epoch_2": 1.5e9}.items():
        os.utime(run / f"ckpt/{name}.pth", (seconds, seconds))
    return run


def digest(run: Path) -> dict[str, str]:
    """Everything in a run's folder except the lock and who had it."""
    paths = [path for path in run.rglob("*") if path.is_file() and path.name not in ("lock", "holder.json")]
    return {str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def moments_by_name(task: Task) -> dict[str, dict[str, torch.Tensor]]:
    names = {id(parameter): name for name, parameter in task.model.named_parameters()}
    return {names[id(parameter)]: state for parameter, state in task.optimizer.state.items()}


def unbroken(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unbroken", *map(str, words)]
    done = run_command(command, timeout=120)
    assert "Traceback" not in done.stderr, done.stderr
    return done


# -- what is loaded ----------------------------------------------------------------------------------------------------


def test_weights_and_moments_are_those_of_the_furthest_file_bit_for_bit(
    tmp_path: Path, folder: Path, originals: dict[int, Original]
) -> None:
    found, original = asked(tmp_path), originals[2 * PER_EPOCH + 2]
    task = built(found)
    torch.nn.init.zeros_(next(task.model.parameters()))
    with launch(found, console=Listener()) as run:
        assert isinstance(run.plan, Resume) and run.plan.source.name == "latest_model.pth"
        run.translate = task.exchange.translate
        run.track(**task.parts())
        assert run.step == original.it

    own = task.model.state_dict()
    assert all(torch.equal(own[name], original.model_state[name]) for name in own)
    moments, expected = (
        moments_by_name(task),
        {original.trained[number]: state for number, state in original.optimizer_state["state"].items()},
    )
    assert moments.keys() == expected.keys() and len(moments) > 60
    for name, state in expected.items():
        assert float(moments[name]["step"]) == float(state["step"]) == original.it
        assert all(torch.equal(moments[name][key], state[key]) for key in ("exp_avg", "exp_avg_sq"))
    assert not any("in_proj" in name or "conv_imp" in name for name in moments)
    groups = task.optimizer.param_groups
    assert all(type(group["lr"]) is float and type(group["betas"][0]) is float for group in groups)
    assert [group["lr"] for group in groups] == [float(g["lr"]) for g in original.optimizer_state["param_groups"]]
    assert [group["weight_decay"] for group in groups] == [found.options.own.config.OPTIMIZATION.WEIGHT_DECAY] * 2


def test_training_goes_on_at_its_step_and_the_next_launch_is_as_if_it_had_always_been_ours(
    tmp_path: Path, folder: Path, originals: dict[int, Original]
) -> None:
    found = asked(tmp_path)
    damaged = (folder / "ckpt/checkpoint_epoch_3.pth").read_bytes()
    original = (folder / "ckpt/latest_model.pth").read_bytes()
    it = originals[2 * PER_EPOCH + 2].it

    code, said = session(found, stop_at=it + 1)

    assert code == 75
    lines = said.splitlines()
    expected = [
        f"load checkpoint from {folder / 'ckpt/latest_model.pth'}",
        f"resumed epoch: 2, iter: {it}",
        "resume optimizer: <class 'focalsst.optimizer.AdamDecayingAll'>",
        f"left out, as the network here makes them itself: global_step, {ENCODER}.kernel_offsets, {ENCODER}.inv_idx",
        "never trained by the original, trained from here on with new moments: "
        "in_proj_weight, in_proj_bias (4 tensors)",
        f"the file has no moments of {ENCODER}.conv_imp.weight: they begin new",
        *LACKING,
        "after 2 whole epochs, 2 of 5 steps of the next are done on samples that the file does not name: the rest "
        "follows in this run's order, so in this one epoch some samples come twice and some not at all",
    ]
    places = [lines.index(line) for line in expected]
    assert places == sorted(places)
    assert found.lr_at is not None
    assert steps(folder)[0]["step"] == it + 1
    assert steps(folder)[0]["lr"] == found.lr_at(it)
    (kept,) = (folder / "archive").rglob("checkpoint_epoch_3.pth")
    (copied,) = (folder / "archive").rglob("latest_model.pth")
    assert copied.read_bytes() == original, "our saves take its name; the original's file stays to be had"
    assert not list((folder / "archive").rglob("checkpoint_epoch_[12].pth")), "nothing will take their names"
    assert kept.read_bytes() == damaged
    first = read_checkpoint(folder / "ckpt/latest_model.pth")
    assert first["unbroken"]["step"] == first["it"] == it + 1
    states = first["optimizer_state"]["state"], first["unbroken"]["regrouped"]["optimizer"]["state"]
    assert sum(map(len, states)) == len(list(built(found).model.parameters()))

    code, said = session(found)

    assert code == 0
    assert "resume random streams" in said and "resume data position" in said
    assert not [line for line in said.splitlines() if line in expected[3:] or "the file " in line]
    assert [line["step"] for line in steps(folder)] == list(range(it + 1, EPOCHS * PER_EPOCH + 1))


def test_interrupted_after_the_takeover_it_is_the_twin_of_an_uninterrupted_takeover(
    tmp_path: Path, originals: dict[int, Original]
) -> None:
    whole, cut = asked(tmp_path / "whole"), asked(tmp_path / "cut")
    for each in (whole, cut):
        originals[2 * PER_EPOCH].write(each.directory / "ckpt/checkpoint_epoch_2.pth")
    code, said = session(whole)
    assert code == 0
    assert "after 2 whole epochs the next begins at its start: no sample is lost" in said.splitlines()
    assert session(cut, stop_at=2 * PER_EPOCH + 3)[0] == 75
    assert session(cut)[0] == 0
    one, other = ([line["loss"] for line in steps(each.directory)] for each in (whole, cut))
    assert one == other and len(one) == 2 * PER_EPOCH
    states = [read_checkpoint(each.directory / f"ckpt/checkpoint_epoch_{EPOCHS}.pth") for each in (whole, cut)]
    assert all(torch.equal(states[0]["model_state"][k], states[1]["model_state"][k]) for k in states[0]["model_state"])


def test_a_file_of_another_batch_size_loses_no_sample(tmp_path: Path, originals: dict[int, Original]) -> None:
    """Nine steps an epoch there, five here: a whole epoch stays one, of a part of one nothing is believed."""
    end, middle = asked(tmp_path / "end"), asked(tmp_path / "middle")
    originals[PER_EPOCH].write(end.directory / "ckpt/checkpoint_epoch_1.pth", epoch=1, it=9)
    originals[PER_EPOCH].write(middle.directory / "ckpt/latest_model.pth", epoch=1, it=9 + 3)
    for each, words in (
        (end, "after 1 whole epoch the next begins at its start: no sample is lost"),
        (
            middle,
            "12 steps are not 1 whole epoch of 5 steps and a part of one (another batch size?): the epoch in progress "
            "begins again at its start, no sample is lost",
        ),
    ):
        code, said = session(each)
        assert code == 0 and words in said.splitlines()
        assert len(steps(each.directory)) == (EPOCHS - 1) * PER_EPOCH


def test_a_training_that_the_original_completed_ends_at_once(tmp_path: Path, originals: dict[int, Original]) -> None:
    found = asked(tmp_path, "--epochs", 3)
    originals[3 * PER_EPOCH].write(found.directory / "ckpt/checkpoint_epoch_3.pth")
    code, said = session(found)
    assert code == 0
    assert f"finished: {3 * PER_EPOCH} steps" in said
    assert read_checkpoint(found.directory / "ckpt/checkpoint_epoch_3.pth")["it"] == 3 * PER_EPOCH


def test_a_file_of_the_original_that_is_named_is_resumed_from_wherever_it_lies(
    tmp_path: Path, originals: dict[int, Original]
) -> None:
    file = tmp_path / "elsewhere/checkpoint_epoch_2.pth"
    originals[2 * PER_EPOCH].write(file)
    found = asked(tmp_path, "--ckpt", file)
    code, said = session(found, stop_at=2 * PER_EPOCH + 1)
    assert code == 75
    assert f"resumed epoch: 2, iter: {2 * PER_EPOCH}" in said.splitlines()
    assert [line["step"] for line in steps(found.directory)] == [2 * PER_EPOCH + 1]


def test_a_file_of_the_original_is_judged_by_test_py(
    tmp_path: Path, originals: dict[int, Original], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "checkpoint_epoch_2.pth"
    originals[2 * PER_EPOCH].write(file)
    options = ["--cfg_file", CONFIG, "--workers", "0", "--scenes", "0", "--output", str(tmp_path / "runs")]
    assert judge([*options, "--ckpt", str(file), *map(str, WIDTH_OF_THE_ORIGINAL)]) == 0
    said = capsys.readouterr().out
    assert f"(OpenPCDet checkpoint, step {2 * PER_EPOCH})" in said
    assert re.search(r"unused +3 +not in the model: left out", said)
    assert "missing" not in said and "misfit" not in said


def test_the_network_has_the_original_s_names_and_shapes_and_nothing_else() -> None:
    with torch.device("meta"):
        ours, theirs = (make(FOCAL_SST).state_dict() for make in (build_detector, original_network))
    tables = {name for name in theirs if name.rpartition(".")[2] in TABLES}
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in theirs.items() if name not in tables
    }
    assert len(theirs) == 368 and len(tables) == 3


# -- what looks at it before -------------------------------------------------------------------------------------------


def test_commands_that_only_look_say_whose_files_these_are(tmp_path: Path, folder: Path) -> None:
    before = digest(folder)
    shown, verified = unbroken("show", folder), unbroken("verify", folder)
    inspected = unbroken("inspect", folder / "ckpt/latest_model.pth")
    options = ["--cfg_file", CONFIG, "--workers", 0, "--output", tmp_path, "--epochs", EPOCHS, *WIDTH_OF_THE_ORIGINAL]
    why = unbroken("why", "focalsst", *options)

    assert shown.returncode == 0, shown.stderr
    assert verified.returncode == 12 and "checkpoint_epoch_3.pth" in verified.stdout
    assert inspected.returncode == 0 and "OpenPCDet checkpoint" in inspected.stdout
    assert why.returncode == 0, why.stderr
    assert "latest_model.pth is the furthest checkpoint here (step 12, OpenPCDet checkpoint)" in why.stdout
    assert "another program wrote it" in why.stdout and "damaged: checkpoint_epoch_3.pth" in why.stdout
    assert digest(folder) == before


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_another_width_is_refused_and_nothing_in_the_folder_changes(tmp_path: Path, folder: Path) -> None:
    before = digest(folder)
    with pytest.raises(Incompatible) as refused:
        session(asked(tmp_path, shape=[*WIDTH_OF_THE_ORIGINAL, "MODEL.BACKBONE_3D.DSVT.dim_feedforward", "[48]"]))
    assert refused.value.exit_code == 13
    said = str(refused.value)
    assert "linear1.weight: expected (48, 16) float32, found (32, 16) float32" in said
    assert digest(folder) == before


def test_a_network_that_the_original_had_not_is_refused_by_the_names_of_its_weights(
    tmp_path: Path, folder: Path
) -> None:
    with pytest.raises(Incompatible, match=r"model.map_to_bev_module.weigh.weight: missing in the checkpoint"):
        session(asked(tmp_path, shape=["--set", "OPTIMIZATION.LR", 0.004]))


def moment_of_another_shape(state: dict[str, Any]) -> None:
    state["state"][0]["exp_avg"] = torch.zeros(3)


def no_second_moment(state: dict[str, Any]) -> None:
    del state["state"][5]["exp_avg_sq"]


def a_parameter_less(state: dict[str, Any]) -> None:
    state["param_groups"][0]["params"].pop()


def one_group(state: dict[str, Any]) -> None:
    first, second = state["param_groups"]
    state["param_groups"] = [{**first, "params": first["params"] + second["params"]}]


def moments_of_nobody(state: dict[str, Any]) -> None:
    state["state"][10_000] = state["state"][0]


def exchanged(state: dict[str, Any]) -> None:
    state["state"][0], state["state"][1] = state["state"][1], state["state"][0]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (moment_of_another_shape, r"number 0 .* not those of vfe.* Expected \(8, 10\), found \(3,\)"),
        (no_second_moment, r"moments number 5 .* found none"),
        (exchanged, "moments number [01] of its optimizer are not those of vfe"),
        (a_parameter_less, r"its optimizer was not made for its weights.* Expected groups of \d+ and \d+ parameters"),
        (one_group, r"Expected groups of \d+ and \d+ parameters, found groups of \d+"),
        (moments_of_nobody, "moments of parameters that are in no group"),
    ],
)
def test_an_optimizer_that_contradicts_its_weights_is_refused_before_a_tensor_is_loaded(
    tmp_path: Path, originals: dict[int, Original], spoil: Any, words: str
) -> None:
    found, original = asked(tmp_path), originals[PER_EPOCH]
    state = copy_of(original.optimizer_state)
    spoil(state)
    original.write(found.directory / "ckpt/checkpoint_epoch_1.pth", optimizer_state=state)
    before = digest(found.directory)
    task = built(found)
    fresh = copy_of(dict(task.model.state_dict()))
    with pytest.raises(Incompatible, match=words) as refused, launch(found, console=Listener()) as run:
        run.translate = task.exchange.translate
        run.track(**task.parts())
    assert refused.value.exit_code == 13 and "nothing was loaded" in str(refused.value)
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in task.model.state_dict().items())
    assert not task.optimizer.state and digest(found.directory) == before


# -- the translation by itself -----------------------------------------------------------------------------------------


def test_steps_that_are_plain_numbers_load_as_older_torch_wrote_them(
    tmp_path: Path, originals: dict[int, Original]
) -> None:
    task, original = built(asked(tmp_path)), originals[PER_EPOCH]
    optimizer = build_adam(task.model, lr=0.1, weight_decay=0.0)
    state = copy_of(original.optimizer_state)
    for moments in state["state"].values():
        moments["step"] = int(moments["step"])
    parts = {"model": original.model_state, "optimizer": state}
    spelled = spell_as_here(task.model, optimizer, parts, "file").parts
    assert spelled["model"].keys() == task.model.state_dict().keys()
    optimizer.load_state_dict(spelled["optimizer"])
    sum(parameter.sum() for parameter in task.model.parameters()).backward()
    optimizer.step()
    names = {id(parameter): name for name, parameter in task.model.named_parameters()}
    counted = {names[id(parameter)]: int(state["step"]) for parameter, state in optimizer.state.items()}
    assert {step for name, step in counted.items() if "in_proj" in name or "conv_imp" in name} == {1}
    assert {step for name, step in counted.items() if "in_proj" not in name and "conv_imp" not in name} == {
        PER_EPOCH + 1
    }


def test_a_rate_that_is_no_number_is_replaced_by_our_own(tmp_path: Path, originals: dict[int, Original]) -> None:
    task, original = built(asked(tmp_path)), originals[PER_EPOCH]
    state = copy_of(original.optimizer_state)
    state["param_groups"][1]["lr"] = None
    translate = partial(spell_as_here, task.model, task.optimizer)
    groups = translate({"model": original.model_state, "optimizer": state}, "file").parts["optimizer"]["param_groups"]
    assert groups[1]["lr"] == task.optimizer.param_groups[1]["lr"] and type(groups[0]["lr"]) is float


def test_more_blocks_than_the_config_has_are_not_taken_for_tables(
    tmp_path: Path, originals: dict[int, Original]
) -> None:
    original = originals[PER_EPOCH]
    more = replace(original, model_state=original.model_state | {"dense_head.heads_list.0.iou.weight": torch.ones(2)})
    found = asked(tmp_path)
    more.write(found.directory / "ckpt/checkpoint_epoch_1.pth")
    with pytest.raises(Incompatible, match=r"dense_head.heads_list.0.iou.weight: only in the checkpoint"):
        session(found)
