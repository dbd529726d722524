"""What stands in our files under the keys of other programs is what those programs would have written themselves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR, MultiStepLR, OneCycleLR, SequentialLR

from unbroken.checkpoint.structure import read_structure
from unbroken.checkpoint.tree import walk
from unbroken.run.layout import EPOCHS, ITERATIONS, Layout
from unbroken.train import Regrouping, open_run, read_checkpoint
from unbroken.train.state.tree import WRAP

WIDTH = 6


class Recorded:
    """A schedule of one's own that remembers what it did, in forms that PyTorch's have not."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.kept: dict[str, Any] = {
            "rates": np.array([0.1, 0.2]),
            "deep": [(np.arange(3), "x"), {"y": np.float64(0.5)}],
            "milestones": Counter({2: 1}),
            "seen": {1, 2},
        }

    def step(self) -> None:
        self.kept["rates"] = self.kept["rates"] * 0.5

    def state_dict(self) -> dict[str, Any]:
        return self.kept

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state


SCHEDULES = {
    "MultiStepLR": lambda optimizer: MultiStepLR(optimizer, [2, 5]),
    "OneCycleLR": lambda optimizer: OneCycleLR(optimizer, 0.1, total_steps=20),
    "LambdaLR": lambda optimizer: LambdaLR(optimizer, lambda step: 0.9**step),
    "SequentialLR": lambda optimizer: SequentialLR(
        optimizer, [MultiStepLR(optimizer, [1]), MultiStepLR(optimizer, [3])], milestones=[2]
    ),
    "one's own": Recorded,
}
OPTIMIZERS = [("AdamW", EPOCHS), *((name, ITERATIONS) for name in ("AdamW", "NAdam", "Adamax", "SGD", "Rprop"))]


def network() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 1))


def optimizer_of(name: str, model: nn.Module) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01)
    return made


def stepped(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    """The weights after one more step on a fixed batch."""
    optimizer.zero_grad()
    model(torch.linspace(-1, 1, 4 * WIDTH).reshape(4, WIDTH)).square().sum().backward()
    optimizer.step()
    return [parameter.detach().clone() for parameter in model.parameters()]


def trained(root: Path, layout: Layout, *, optimizer: str = "AdamW", schedule: str = "MultiStepLR") -> Path:
    """Three steps of a loop of one's own; the file of the last save."""
    model = network()
    stepper = optimizer_of(optimizer, model)
    scheduler = SCHEDULES[schedule](stepper)
    with open_run(root, tag="run", layout=layout, config={"lr": 0.01}, save_every_s=None) as run:
        run.track(model=model, optimizer=stepper, scheduler=scheduler)
        for _ in run.steps(3):
            stepped(model, stepper)
            scheduler.step()
            run.end_step()
    (file,) = (path for path in layout.checkpoints(root / "run").glob("*.pth") if not path.is_symlink())
    return file


@pytest.mark.parametrize(("name", "layout"), OPTIMIZERS, ids=[name for name, _ in OPTIMIZERS])
def test_a_fresh_optimizer_of_torch_takes_the_state_and_steps_on_to_the_bit(
    tmp_path: Path, name: str, layout: Layout
) -> None:
    file = trained(tmp_path, layout, optimizer=name)
    tree = torch.load(file, weights_only=True)
    model = network()
    model.load_state_dict(tree[layout.keys["model"]], strict=True)
    optimizer = optimizer_of(name, model)
    optimizer.load_state_dict(tree[layout.keys["optimizer"]])

    theirs = stepped(model, optimizer)

    uninterrupted = network()
    own = optimizer_of(name, uninterrupted)
    scheduler = SCHEDULES["MultiStepLR"](own)
    for _ in range(3):
        stepped(uninterrupted, own)
        scheduler.step()
    assert all(torch.equal(one, other) for one, other in zip(theirs, stepped(uninterrupted, own), strict=True))


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "one's own"])
def test_a_fresh_schedule_of_torch_takes_the_state_and_steps_on(tmp_path: Path, name: str) -> None:
    file = trained(tmp_path, ITERATIONS, schedule=name)
    tree = torch.load(file, weights_only=True)
    optimizer = optimizer_of("AdamW", network())
    scheduler = SCHEDULES[name](optimizer)
    uninterrupted = optimizer_of("AdamW", network())
    own = SCHEDULES[name](uninterrupted)
    for _ in range(3):
        uninterrupted.step()
        own.step()
    optimizer.load_state_dict(tree["optimizer"])
    scheduler.load_state_dict(tree["param_schedulers"])
    for _ in range(4):
        for each in (optimizer, uninterrupted, scheduler, own):
            each.step()
        assert optimizer.param_groups[0]["lr"] == uninterrupted.param_groups[0]["lr"]


@pytest.mark.parametrize(("schedule", "layout"), [*((name, ITERATIONS) for name in SCHEDULES), ("one's own", EPOCHS)])
def test_nothing_of_ours_stands_under_their_keys_and_the_next_session_has_it_all_the_same(
    tmp_path: Path, schedule: str, layout: Layout
) -> None:
    file = trained(tmp_path, layout, schedule=schedule)
    tree = torch.load(file, weights_only=True)
    foreign = {key: value for key, value in tree.items() if key != "unbroken"}
    assert foreign.keys() == set(layout.keys.values())
    marked = [path for path, _ in walk(foreign) if WRAP in path]
    assert not marked, marked
    assert isinstance(foreign[layout.keys["optimizer"]]["param_groups"][0]["betas"], tuple)

    model = network()
    optimizer = optimizer_of("AdamW", model)
    scheduler = SCHEDULES[schedule](optimizer)
    with open_run(tmp_path, tag="run", layout=layout, config={"lr": 0.01, "more": True}, save_every_s=None) as run:
        run.track(model=model, optimizer=optimizer, scheduler=scheduler)
        assert run.step == 3 and isinstance(optimizer.param_groups[0]["betas"], tuple)
        if isinstance(scheduler, Recorded):
            kept = scheduler.kept
            assert isinstance(kept["rates"], np.ndarray) and kept["rates"].tolist() == [0.0125, 0.025]
            assert isinstance(kept["deep"][0], tuple) and kept["deep"][0][0].tolist() == [0, 1, 2]
            assert kept["milestones"] == Counter({2: 1}) and isinstance(kept["milestones"], Counter)
            assert kept["seen"] == {1, 2} and kept["deep"][1] == {"y": 0.5}
        for _ in run.steps(4):
            stepped(model, optimizer)
            scheduler.step()
            run.end_step()


def _as_older_versions_wrote(value: Any) -> Any:
    """Tuples, counters and sets inside of marked dicts, as they stood there before."""
    match value:
        case tuple():
            return {WRAP: "tuple", "value": [_as_older_versions_wrote(item) for item in value]}
        case Counter():
            return {WRAP: "counter", "value": dict(value)}
        case set():
            return {WRAP: "set", "value": sorted(value)}
        case dict():
            return {key: _as_older_versions_wrote(item) for key, item in value.items()}
        case list():
            return [_as_older_versions_wrote(item) for item in value]
    return value


@pytest.mark.parametrize(
    ("schedule", "layout"), [("OneCycleLR", ITERATIONS), ("MultiStepLR", EPOCHS)], ids=["MMEngine's", "OpenPCDet's"]
)
def test_a_file_of_an_older_version_is_continued_as_one_of_today(tmp_path: Path, schedule: str, layout: Layout) -> None:
    file = trained(tmp_path, layout, schedule=schedule)
    tree = torch.load(file, weights_only=True)
    old = {key: _as_older_versions_wrote(value) for key, value in tree.items() if key != "unbroken"}
    assert old[layout.keys["optimizer"]]["param_groups"][0]["betas"][WRAP] == "tuple"
    older = tmp_path / "older.pth"
    torch.save({**old, "unbroken": tree["unbroken"]}, older)
    read = read_structure(older)
    assert read.step == 3

    ends = []
    for tag, ckpt in (("of_today", file), ("of_then", older)):
        model = network()
        optimizer = optimizer_of("AdamW", model)
        scheduler = SCHEDULES[schedule](optimizer)
        with open_run(tmp_path, tag=tag, layout=layout, config={"lr": 0.01}, save_every_s=None, ckpt=ckpt) as run:
            run.track(model=model, optimizer=optimizer, scheduler=scheduler)
            for _ in run.steps(6):
                stepped(model, optimizer)
                scheduler.step()
                run.end_step()
        ends.append([*model.state_dict().values(), torch.tensor(optimizer.param_groups[0]["lr"])])
    assert all(torch.equal(one, other) for one, other in zip(*ends, strict=True))


class InOtherGroups(torch.optim.AdamW):
    """An optimizer of one's own that another program has in two groups, the last layer first, without the rest."""

    regrouping = Regrouping(groups=((5, 4), (0,)), settings={"weight_decay": 0})


@pytest.mark.parametrize("layout", [EPOCHS, ITERATIONS], ids=["OpenPCDet's", "MMEngine's"])
def test_groups_of_another_program_stand_under_its_key_and_ours_come_back_to_the_bit(
    tmp_path: Path, layout: Layout
) -> None:
    def session(tag: str, model: nn.Module, stepper: torch.optim.Optimizer, steps: int) -> None:
        with open_run(tmp_path, tag=tag, layout=layout, config={"lr": 0.01}, save_every_s=None) as run:
            run.track(model=model, optimizer=stepper)
            for _ in run.steps(steps):
                stepped(model, stepper)
                run.end_step()

    def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
        model = network()
        of_modules: list[dict[str, Any]] = [
            {"params": [*model[:2].parameters()]},
            {"params": [*model[2:].parameters()]},
        ]
        return model, InOtherGroups(of_modules, lr=0.01)

    model, stepper = parts()
    session("run", model, stepper, 3)
    (file,) = (path for path in layout.checkpoints(tmp_path / "run").glob("*.pth") if not path.is_symlink())
    theirs = torch.load(file, weights_only=True)[layout.keys["optimizer"]]
    assert [(group["params"], group["weight_decay"]) for group in theirs["param_groups"]] == [([0, 1], 0), ([2], 0)]
    own = stepper.state_dict()
    assert theirs["state"].keys() == {0, 1, 2}
    assert all(
        torch.equal(theirs["state"][place]["exp_avg"], own["state"][n]["exp_avg"]) for place, n in enumerate((5, 4, 0))
    )

    resumed, again = parts()
    whole, uninterrupted = parts()
    with open_run(tmp_path, tag="more", layout=layout, config={"lr": 0.01}, save_every_s=None, ckpt=file) as run:
        run.track(model=resumed, optimizer=again)
        assert again.state_dict()["param_groups"] == own["param_groups"]
        for _ in run.steps(5):
            stepped(resumed, again)
            run.end_step()
    session("whole", whole, uninterrupted, 5)
    assert all(map(torch.equal, resumed.state_dict().values(), whole.state_dict().values()))


def test_a_place_of_an_array_that_leads_nowhere_is_damage(tmp_path: Path) -> None:
    file = trained(tmp_path, ITERATIONS, schedule="one's own")
    tree = read_checkpoint(file)
    assert tree["unbroken"]["arrays"] == {"scheduler": [["rates"], ["deep", 0, 0]]}
    for places in ({"scheduler": [["gone"]]}, {"scheduler": [["deep", 9]]}, {"nobody": [["rates"]]}, {"scheduler": 5}):
        tree["unbroken"]["arrays"] = places
        torch.save(tree, file)
        model = network()
        optimizer = optimizer_of("AdamW", model)
        with pytest.raises(SystemExit) as ended, open_run(tmp_path, tag="other", ckpt=file) as run:
            run.track(model=model, optimizer=optimizer, scheduler=Recorded(optimizer))
        assert ended.value.code == 12
