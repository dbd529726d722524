"""The way back: the original resumes from what is written here, with all that it looks at, and loses nothing of ours.

Its program is `original_checkpoints.Program`: the names, the order and the shapes of its network, the groups of its
optimizer, and the strictness of its loading are those of its own code, which was run beside this.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from focalsst.config import detector_settings
from focalsst.model.settings import DetectorSettings
from focalsst.task import build
from tests.focalsst.nano_job import BATCH, FRAMES, Listener, job, session, steps
from tests.focalsst.original_checkpoints import Original, Program, copy_of, gradient_of, train_as_the_original
from unbroken import EPOCHS, Job
from unbroken.errors import DamagedFile
from unbroken.train import Task, read_checkpoint
from unbroken.train.fit import hand_over
from unbroken.train.start import launch
from unbroken.train.state.contents import compose
from unbroken.train.state.optimizer_state import put_back
from unbroken.train.state.parts import regroupings_of, state_of

pytestmark = pytest.mark.usefixtures("in_the_application_s_folder")

PER_EPOCH = -(-FRAMES // BATCH)
EPOCHS_OF_ALL = 4
TOTAL = PER_EPOCH * EPOCHS_OF_ALL
SEED = 11
PUBLISHED = ("AS_PUBLISHED", True, "OPTIMIZATION.LR", 0.001, "OPTIMIZATION.WEIGHT_DECAY", 0.01)
REPAIRED = ("MODEL.MAP_TO_BEV.HEIGHT_AWARE", False)
HEIGHT_AWARE = ("MODEL.MAP_TO_BEV.HEIGHT_AWARE", True)
TABLES = ("global_step", "backbone_3d.focal_encoder.kernel_offsets", "backbone_3d.focal_encoder.inv_idx")


def asked(output: Path, *options: object, keys: tuple[object, ...] = PUBLISHED) -> Job:
    given = ("--workers", 0, "--output", output, "--epochs", EPOCHS_OF_ALL, "--eval_interval", 0)
    return job(*given, *options, "--set", *keys)


def settings_there(found: Job) -> DetectorSettings:
    """The network that the original builds for this config; it knows no map that is aware of heights."""
    settings = detector_settings(found.options.own.config)
    return replace(settings, bev=replace(settings.bev, height_aware=False))


def program(found: Job) -> Program:
    return Program(settings_there(found), total=TOTAL)


def restored(found: Job) -> Task:
    """The parts of a task as a launch of it restores them."""
    torch.set_num_threads(1)
    task = build(found, lambda _line: None)
    with launch(found, console=Listener()) as run:
        hand_over(task, run)
    return task


def written(task: Task, path: Path, *, it: int, epoch: int) -> Path:
    """A file of the present states, as a save composes it."""
    states = {name: state_of(part) for name, part in task.parts().items()}
    progress: Any = type("Progress", (), {"step": it, "epoch": epoch})
    extra, regroupings = task.exchange.extra(progress), regroupings_of(task.parts())
    torch.save(compose(EPOCHS, states, {}, meta=extra, regroupings=regroupings), path)
    return path


def moments_by_name(task: Task) -> dict[str, dict[str, torch.Tensor]]:
    names = {id(parameter): name for name, parameter in task.model.named_parameters()}
    return {names[id(parameter)]: state for parameter, state in task.optimizer.state.items()}


def moments_there(state: Original) -> dict[str, dict[str, torch.Tensor]]:
    return {state.trained[number]: moments for number, moments in state.optimizer_state["state"].items()}


def assert_equal(one: Any, other: Any, where: str = "") -> None:
    """The same keys, and tensors of the same type and bits; numbers of NumPy are numbers."""
    if isinstance(other, torch.Tensor):
        assert one.dtype == other.dtype and torch.equal(one, other), where
    elif isinstance(other, dict):
        assert one.keys() == other.keys(), where
        for key, value in other.items():
            assert_equal(one[key], value, f"{where}.{key}")
    elif isinstance(other, list | tuple):
        assert len(one) == len(other) and type(one) is type(other), where
        for place, value in enumerate(other):
            assert_equal(one[place], value, f"{where}[{place}]")
    else:
        assert one == other, where


# -- there, here, and there again --------------------------------------------------------------------------------------


@pytest.mark.parametrize("keys", [PUBLISHED, REPAIRED], ids=["published", "repaired"])
@pytest.mark.parametrize(("it", "name"), [(10, "checkpoint_epoch_2.pth"), (12, "latest_model.pth")])
def test_what_the_original_wrote_comes_back_to_it_bit_for_bit_and_its_next_step_is_the_same(
    tmp_path: Path, it: int, name: str, keys: tuple[object, ...]
) -> None:
    found = asked(tmp_path, keys=keys)
    (before,) = (
        state
        for number, state in zip(
            range(1, it + 1), train_as_the_original(settings_there(found), per_epoch=PER_EPOCH, epochs=EPOCHS_OF_ALL)
        )
        if number == it
    )
    before.write(found.directory / "ckpt" / name)

    file = written(restored(found), tmp_path / name, it=it, epoch=it // PER_EPOCH)

    there, whole = program(found), program(found)
    assert there.resume(file) == (it, it // PER_EPOCH)
    assert_equal(there.state(it=it, epoch=0).model_state, before.model_state)
    now = there.optimizer.adam.state_dict()
    assert_equal(now["state"], before.optimizer_state["state"])
    for group, was in zip(now["param_groups"], before.optimizer_state["param_groups"], strict=True):
        settings = [key for key in was if key not in ("lr", "betas")]  # its schedule sets those before each step
        assert_equal({key: group[key] for key in settings}, {key: was[key] for key in settings})
    whole.network.load_state_dict(before.model_state)
    whole.optimizer.adam.load_state_dict(before.optimizer_state)
    for each in (there, whole):
        each.step(it, torch.Generator().manual_seed(SEED))
    assert_equal(there.state(it=it + 1, epoch=0).model_state, whole.state(it=it + 1, epoch=0).model_state)
    assert_equal(there.optimizer.adam.state_dict(), whole.optimizer.adam.state_dict())


# -- here, there, and here again ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(app: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[object, ...], Job]]:
    """Runs that were stopped two steps into their second epoch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(app)
        found = {keys: asked(tmp_path_factory.mktemp("runs"), keys=keys) for keys in (PUBLISHED, HEIGHT_AWARE)}
        for each in found.values():
            assert session(each, stop_at=PER_EPOCH + 2)[0] == 75
        yield found


@pytest.mark.parametrize("keys", [PUBLISHED, HEIGHT_AWARE], ids=["published", "height-aware"])
@pytest.mark.parametrize(
    ("name", "it", "epoch"), [("checkpoint_epoch_1.pth", PER_EPOCH, 1), ("latest_model.pth", PER_EPOCH + 2, 1)]
)
def test_the_original_resumes_from_each_of_our_files_and_what_it_writes_is_resumed_here(
    trained: dict[tuple[object, ...], Job], tmp_path: Path, keys: tuple[object, ...], name: str, it: int, epoch: int
) -> None:
    file = trained[keys].directory / "ckpt" / name
    here = restored(asked(tmp_path / "here", "--ckpt", file, keys=keys))
    there = program(trained[keys])
    assert there.resume(file) == (it, epoch)
    weights, moments = here.model.state_dict(), moments_by_name(here)
    took = there.state(it=it, epoch=epoch)
    assert_equal(
        {key: weights[key] for key in took.model_state if key not in TABLES},
        {key: value for key, value in took.model_state.items() if key not in TABLES},
    )
    assert took.model_state.keys() - weights.keys() == set(TABLES)
    fresh = program(trained[keys]).network.state_dict()
    assert int(took.model_state["global_step"]) == it
    assert_equal({key: took.model_state[key] for key in TABLES[1:]}, {key: fresh[key] for key in TABLES[1:]})
    assert_equal({key: value for key, value in moments.items() if key in took.trained}, moments_there(took))
    beyond = {key for key in moments if key not in took.trained}
    assert all("in_proj" in key or "map_to_bev_module" in key for key in beyond)
    assert bool(beyond) == (keys is HEIGHT_AWARE)

    there.step(it, torch.Generator().manual_seed(SEED))
    if keys is PUBLISHED:
        step_here(here, took, torch.Generator().manual_seed(SEED))
        after = here.model.state_dict()
        for key, tensor in there.network.named_parameters():
            torch.testing.assert_close(after[key], tensor, rtol=2e-7, atol=1e-9)
        back = asked(tmp_path / "back", "--ckpt", tmp_path / "back.pth")
        state = there.state(it=it + 1, epoch=epoch)
        state.write(tmp_path / "back.pth")
        again = restored(back)
        own = again.model.state_dict()
        assert_equal(own, {key: state.model_state[key] for key in own})
        assert_equal(moments_by_name(again), moments_there(state))


def step_here(task: Task, original: Original, generator: torch.Generator) -> None:
    """One step of our optimizer with the gradients that the original's step draws, in its order."""
    own = dict(task.model.named_parameters())
    for name in [name for name in original.model_state if name in own]:
        own[name].grad = None if ".conv_imp." in name else gradient_of(own[name], generator)
        if not own[name].requires_grad:
            own[name].grad = None
    task.optimizer.step()


def test_what_the_original_has_not_is_kept_and_put_back(trained: dict[tuple[object, ...], Job], tmp_path: Path) -> None:
    file = trained[HEIGHT_AWARE].directory / "ckpt/latest_model.pth"
    kept = read_checkpoint(file)["unbroken"]["regrouped"]["optimizer"]
    names = [name for name, _ in restored(trained[HEIGHT_AWARE]).model.named_parameters()]
    assert len(kept["state"]) == sum("in_proj" in name or "map_to_bev_module" in name for name in names) > 4
    code, _ = session(trained[HEIGHT_AWARE])
    assert code == 0
    whole = asked(tmp_path, keys=HEIGHT_AWARE)
    assert session(whole)[0] == 0
    ends = [read_checkpoint(each.directory / "ckpt/checkpoint_epoch_4.pth") for each in (trained[HEIGHT_AWARE], whole)]
    for key in ("model_state", "optimizer_state"):
        assert_equal(ends[0][key], ends[1][key])
    assert_equal(*(end["unbroken"]["regrouped"] for end in ends))


def test_weights_files_are_not_taken_for_states_by_the_original(tmp_path: Path) -> None:
    """It takes the newest file of the folder that it can load, and would begin its optimizer anew without a word."""
    found = asked(tmp_path, "--eval_interval", 1, "--epochs", 1)
    assert session(found)[0] == 0
    (best,) = found.directory.glob("ckpt/best_*.pth")
    with pytest.raises(RuntimeError, match="global_step"):
        program(found).resume(best)
    assert program(found).resume(found.directory / "ckpt/checkpoint_epoch_1.pth") == (PER_EPOCH, 1)


# -- here alone --------------------------------------------------------------------------------------------------------


def of_then(file: Path) -> None:
    """The same state as it was written before: our own groups under the original's key, and no tables."""
    tree = torch.load(file, weights_only=True)
    own = tree["unbroken"]
    tree["optimizer_state"] = put_back(tree["optimizer_state"], own.pop("regrouped")["optimizer"])
    for name in own.pop("beside")["model"]:
        del tree["model_state"][name]
    own["format"] = 1
    torch.save(tree, file)
    (file.parents[1] / "unbroken/manifests" / f"{file.name}.json").unlink()


def test_a_run_of_before_goes_on_bit_for_bit(tmp_path: Path) -> None:
    then, whole = (asked(tmp_path, "--extra_tag", tag, "--epochs", 2, keys=REPAIRED) for tag in ("then", "whole"))
    assert session(then, stop_at=PER_EPOCH + 2)[0] == 75
    of_then(then.directory / "ckpt/latest_model.pth")
    assert session(then)[0] == 0 and session(whole)[0] == 0
    assert [line["loss"] for line in steps(then.directory)] == [line["loss"] for line in steps(whole.directory)]
    ends = [read_checkpoint(each.directory / "ckpt/checkpoint_epoch_2.pth") for each in (then, whole)]
    for key in ("model_state", "optimizer_state"):
        assert_equal(ends[0][key], ends[1][key])


def test_the_tables_are_no_weights_here_even_where_all_must_be_used(
    trained: dict[tuple[object, ...], Job], tmp_path: Path
) -> None:
    file = trained[PUBLISHED].directory / "ckpt/checkpoint_epoch_1.pth"
    assert set(TABLES) <= read_checkpoint(file)["model_state"].keys()
    tuned = restored(asked(tmp_path, "--pretrained_model", file, "--strict", "--extra_tag", "tuned"))
    given, own = read_checkpoint(file)["model_state"], tuned.model.state_dict()
    assert_equal(own, {name: given[name] for name in own})


@pytest.mark.parametrize("spoil", ["numbers", "groups"])
def test_groups_that_contradict_the_file_are_damage(
    trained: dict[tuple[object, ...], Job], tmp_path: Path, spoil: str
) -> None:
    tree = copy_of(read_checkpoint(trained[PUBLISHED].directory / "ckpt/latest_model.pth"))
    kept = tree["unbroken"]["regrouped"]["optimizer"]
    if spoil == "numbers":
        kept["numbers"] = kept["numbers"][:3]
    else:
        kept["param_groups"] = 5
    torch.save(tree, tmp_path / "spoiled.pth")
    with pytest.raises(DamagedFile, match=r"unbroken\.regrouped"):
        restored(asked(tmp_path, "--ckpt", tmp_path / "spoiled.pth"))
