"""States that are none, and tensors that the file's bytes cannot account for: refused before one weight is loaded."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    CosineAnnealingWarmRestarts,
    CyclicLR,
    OneCycleLR,
    SequentialLR,
    StepLR,
)

from tests.unbroken.real_runs import rewrite
from tests.unbroken.train.test_all_or_nothing import Training, dataset, session, without_locks
from unbroken.checkpoint.describe import describe
from unbroken.checkpoint.structure import read_structure
from unbroken.checkpoint.verify import verify_file
from unbroken.errors import DamagedFile, Incompatible
from unbroken.run import look_at
from unbroken.run.layout import manifests
from unbroken.train import open_run, read_checkpoint
from unbroken.train.pretrained.weights_file import read_weights
from unbroken.train.state.serialise import read_tree
from unbroken.train.state.state_checks import require_sound
from unbroken.train.stop import Exit

Change = Callable[[dict[str, Any]], Any]


def group(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["optimizer"]["param_groups"][0]


def own(tree: dict[str, Any]) -> dict[str, Any]:
    return tree["unbroken"]["parts"]


CHANGES: dict[str, Change] = {
    "no optimizer": lambda tree: tree.pop("optimizer"),
    "optimizer of text": lambda tree: tree.update(optimizer="x"),
    "optimizer without state": lambda tree: tree["optimizer"].pop("state"),
    "groups of numbers": lambda tree: tree["optimizer"].update(param_groups=[1]),
    "groups without params": lambda tree: group(tree).pop("params"),
    "params that are text": lambda tree: group(tree).update(params=["a"] * 6),
    "params of a hundred thousand": lambda tree: group(tree).update(params=list(range(100_000))),
    "params that are one": lambda tree: group(tree).update(params=[0] * 6),
    "lr of text": lambda tree: group(tree).update(lr="fast"),
    "no lr": lambda tree: group(tree).pop("lr"),
    "betas of text": lambda tree: group(tree).update(betas=["a", "b"]),
    "one beta": lambda tree: group(tree).update(betas=(0.9,)),
    "one beta, as older versions wrote it": lambda tree: group(tree).update(
        betas={"__unbroken__": "tuple", "value": [0.9]}
    ),
    "no betas": lambda tree: group(tree).pop("betas"),
    "no moment": lambda tree: [moments.pop("exp_avg") for moments in tree["optimizer"]["state"].values()],
    "eps of none": lambda tree: group(tree).update(eps=None),
    "moments of text": lambda tree: tree["optimizer"]["state"].update({0: "x"}),
    "a moment of text": lambda tree: tree["optimizer"]["state"][0].update(exp_avg="x"),
    "a moment of another shape": lambda tree: tree["optimizer"]["state"][0].update(exp_avg=torch.zeros(3)),
    "a moment of a parameter that is not there": lambda tree: tree["optimizer"]["state"].update({"x": {}}),
    "a step of text": lambda tree: tree["optimizer"]["state"][0].update(step="x"),
    "a step of many": lambda tree: tree["optimizer"]["state"][0].update(step=torch.zeros(4)),
    "a step before the first": lambda tree: tree["optimizer"]["state"][0].update(step=-1),
    "a step that nothing counts to": lambda tree: tree["optimizer"]["state"][0].update(step=2**64),
    "lr that no float holds": lambda tree: group(tree).update(lr=10**400),
    "a switch that is a number": lambda tree: group(tree).update(capturable=2**53),
    "scheduler of a list": lambda tree: tree.update(param_schedulers=[1]),
    "scheduler that hides a method": lambda tree: tree["param_schedulers"].update(step=3),
    "scheduler that hides another": lambda tree: tree["param_schedulers"].update(get_lr="x"),
    "last_epoch of text": lambda tree: tree["param_schedulers"].update(last_epoch="x"),
    "rates of text": lambda tree: tree["param_schedulers"].update(base_lrs=["x"]),
    "too many rates": lambda tree: tree["param_schedulers"].update(base_lrs=[0.1] * 9),
    "a generator's state that is short": lambda tree: own(tree)["generator"].update(state=torch.zeros(3).byte()),
    "a generator's state that is none": lambda tree: own(tree).update(generator={}),
    "a generator's state of zeros": lambda tree: own(tree)["generator"].update(state=torch.zeros(5056).byte()),
    "counters that are gone": lambda tree: own(tree).pop("counters"),
    "counters that are a list": lambda tree: own(tree).update(counters=[1]),
    "counters with an array of text": lambda tree: own(tree).update(
        counters={"seen": {"__unbroken__": "numpy", "value": "x"}}
    ),
    "counters with a tuple of a number": lambda tree: own(tree).update(
        counters={"seen": {"__unbroken__": "tuple", "value": 5}}
    ),
    "counters with a wrap of nothing": lambda tree: own(tree).update(counters={"seen": {"__unbroken__": "set"}}),
    "a weight of text": lambda tree: tree["state_dict"].update({"0.weight": "x"}),
    "a weight without a name": lambda tree: tree["state_dict"].update({5: torch.zeros(2)}),
    "no weights": lambda tree: tree.update(state_dict=[]),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was left after half of its steps."""
    folder = tmp_path_factory.mktemp("trained")
    session(folder, Training(), until=4)
    return folder


@pytest.mark.parametrize("kind", CHANGES)
def test_a_state_that_is_none_is_named_and_everything_stays_as_it_was(
    trained: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, training = Path(shutil.copytree(trained, tmp_path / "runs", symlinks=True)), Training(seed=1)
    file = rewrite(folder / "t" / "iter_4.pth", CHANGES[kind])
    (folder / "t" / "unbroken" / "manifests" / "iter_4.pth.json").unlink()
    before, streams, on_disk = training.digest(), torch.get_rng_state(), without_locks(folder / "t")
    torch.manual_seed(0)
    with pytest.raises(Exit) as refused, open_run(folder, tag="t", ckpt=file) as run:
        run.track(**training.parts())
        for _ in run.batches(dataset(), batch_size=4, steps=8):
            training.step()
            run.end_step(loss=1.0)
    assert refused.value.code in (DamagedFile.exit_code, Incompatible.exit_code), kind
    assert str(file) in capsys.readouterr().out
    assert training.digest() == before and without_locks(folder / "t") == on_disk
    torch.set_rng_state(streams)


def saved(path: Path, tree: dict[str, Any]) -> Path:
    torch.save(tree, path)
    return path


BOMBS = {
    "a stride of nothing": lambda: {"w": torch.zeros(1).expand(2**34)},
    "two of them": lambda: {"w": torch.zeros(1, 1).expand(2**17, 2**17)},
    "overlapping views": lambda: {"w": torch.zeros(20_000).as_strided((10_000, 10_000), (1, 1))},
    "one tensor very often": lambda: {f"w{n}": w for w in [torch.zeros(100_000)] for n in range(2000)},
    "one dict very often": lambda: {f"w{n}": w for w in [{"a": torch.zeros(100_000)}] for n in range(2000)},
}


@pytest.mark.parametrize("kind", BOMBS)
def test_tensors_that_unfold_into_far_more_than_the_file_has_are_damage_wherever_it_is_opened(
    tmp_path: Path, kind: str
) -> None:
    bomb = BOMBS[kind]()
    path = saved(tmp_path / "iter_4.pth", {"meta": {"iter": 4}, "state_dict": bomb, "optimizer": {"state": {0: bomb}}})
    assert path.stat().st_size < 2_000_000
    for read in (read_structure, read_weights, read_tree, read_checkpoint, lambda path: describe(read_structure(path))):
        with pytest.raises(DamagedFile, match=r"unfold into .* bytes, the largest is .*w"):
            read(path)
    assert verify_file(path).state == "damaged"
    assert look_at(path, manifests(tmp_path)).state == "damaged"
    training = Training(seed=1)
    before = training.digest()
    for start in ({"ckpt": path}, {"pretrained_model": path}):
        with pytest.raises(Exit) as refused, open_run(tmp_path / "runs", tag="t", **start) as run:
            run.track(**training.parts())
        assert refused.value.code == DamagedFile.exit_code
    assert training.digest() == before


def test_what_real_programs_share_and_expand_is_loaded(tmp_path: Path) -> None:
    tied, mask = torch.randn(300, 300), torch.ones(1, 1, dtype=torch.bool).expand(512, 512)
    tree = {"a": tied, "b": tied, "c": tied.t(), "mask": mask, "none": torch.zeros(0, 5), "one": torch.tensor(3)}
    found = read_tree(saved(tmp_path / "tied.pth", tree))
    assert all(torch.equal(found[name], tensor) and found[name].shape == tensor.shape for name, tensor in tree.items())


SCHEDULES: dict[str, tuple[Callable[[torch.optim.Optimizer], Any], tuple[str | int, ...]]] = {
    "StepLR": (lambda of: StepLR(of, 3), ("step_size",)),
    "CosineAnnealingLR": (lambda of: CosineAnnealingLR(of, 9), ("T_max",)),
    "CosineAnnealingWarmRestarts": (lambda of: CosineAnnealingWarmRestarts(of, 5), ("T_i",)),
    "CyclicLR": (lambda of: CyclicLR(of, 0.1, 1.0, 4, cycle_momentum=False), ("total_size",)),
    "CyclicLR, its rise": (lambda of: CyclicLR(of, 0.1, 1.0, 4, 2, cycle_momentum=False), ("step_ratio",)),
    "OneCycleLR": (lambda of: OneCycleLR(of, 1.0, 20, cycle_momentum=False), ("_schedule_phases", 0, "end_step")),
    "ChainedScheduler": (lambda of: ChainedScheduler([StepLR(of, 3)], of), ("_schedulers", 0, "step_size")),
    "SequentialLR": (
        lambda of: SequentialLR(of, [ConstantLR(of, 0.1, 9), CosineAnnealingLR(of, 9)], [2]),
        ("_schedulers", 1, "T_max"),
    ),
}


@pytest.mark.parametrize("spoiled", [0, "x"])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_what_a_schedule_divides_by_is_never_nothing(kind: str, spoiled: Any) -> None:
    make, (*way, last) = SCHEDULES[kind]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0, momentum=0.9)
    schedule = make(optimizer)
    state = copy.deepcopy(schedule.state_dict())
    for _ in range(4):
        optimizer.step()
        schedule.step()
        require_sound({"lr": schedule}, {"lr": schedule.state_dict()}, Path("a.pth"))
    inner = reduce(getitem, way, state)
    inner[last] = spoiled
    with pytest.raises(DamagedFile, match=rf"lr is not sound, in .*{last}"):
        require_sound({"lr": schedule}, {"lr": state}, Path("a.pth"))
