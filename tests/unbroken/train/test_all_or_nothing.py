"""Loading is a transaction: whatever fails, model, optimizer and the run's folder are what they were."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unbroken.real_runs import contents
from unbroken.errors import DamagedFile, Incompatible, UnbrokenError
from unbroken.train import open_run, read_checkpoint
from unbroken.train.state import parts
from unbroken.train.state.tree import map_leaves
from unbroken.train.stop import Exit


class Training:
    """Some of everything that can be tracked."""

    def __init__(self, *, width: int = 6, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.Linear(width, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2)
        self.generator = torch.Generator().manual_seed(seed)
        self.counters = {"seen": seed, "names": ["a"]}
        self.extra: Any = {}

    def parts(self) -> dict[str, Any]:
        tracked = {name: value for name, value in vars(self).items() if name != "extra"}
        return {**tracked, **self.extra}

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.model(torch.randn(8, 4, generator=self.generator)).square().mean().backward()
        self.optimizer.step()
        self.scheduler.step()
        self.counters["seen"] += 8

    def digest(self) -> str:
        found = hashlib.sha256()
        for name, part in sorted(self.parts().items()):
            state = map_leaves(parts.state_of(part), torch.Tensor, lambda tensor: tensor.numpy().tobytes())
            found.update(f"{name} {state!r}".encode())
        return found.hexdigest()


class Refuses:
    """A part of the user's own that takes no state, or takes half of it first."""

    def __init__(self) -> None:
        self.value, self.willing = 1, False

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        before, self.value = self.value, state["value"]
        if not self.willing and self.value != before:
            raise RuntimeError("this state is of another version")


def dataset() -> list[int]:
    return list(range(16))


def session(folder: Path, training: Training, *, until: int = 8) -> None:
    with open_run(folder, tag="t", save_every=2) as run:
        run.track(**training.parts())
        for _ in run.batches(dataset(), batch_size=4, steps=8):
            training.step()
            run.end_step(loss=1.0)
            if run.step == until:
                break


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a run that was left after half of its steps."""
    session(tmp_path, Training(), until=4)
    return tmp_path


def without_locks(run: Path) -> dict[str, str]:
    return {name: digest for name, digest in contents(run).items() if Path(name).name not in ("lock", "holder.json")}


def narrower() -> Training:
    return Training(width=5, seed=1)


def one_group_more() -> Training:
    training = Training(seed=1)
    training.optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(2))]})
    return training


def not_tracked_any_more() -> Training:
    training = Training(seed=1)
    training.parts = lambda: {"model": training.model}  # type: ignore[method-assign]
    return training


def tracked_since() -> Training:
    training = Training(seed=1)
    training.extra = {"ema": nn.Linear(2, 2)}
    return training


def another_kind() -> Training:
    training = Training(seed=1)
    training.counters = [1, 2]  # type: ignore[assignment]
    return training


def another_precision() -> Training:
    training = Training(seed=1)
    training.model = training.model.double()
    return training


MISFITS = [narrower, one_group_more, not_tracked_any_more, tracked_since, another_kind, another_precision]


@pytest.mark.parametrize("make", MISFITS)
def test_what_does_not_fit_leaves_everything_as_it_was(folder: Path, make: Callable[[], Training]) -> None:
    training = make()
    before, on_disk = training.digest(), without_locks(folder / "t")
    with pytest.raises(Exit) as refused:
        session(folder, training)
    assert refused.value.code == Incompatible.exit_code
    if make is not not_tracked_any_more:  # there all that was tracked did fit; it is refused before the first step
        assert training.digest() == before
    assert without_locks(folder / "t") == on_disk


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_part_that_refuses_its_state_takes_the_others_back_with_it(folder: Path, place: str) -> None:
    state = {name: parts.state_of(part) for name, part in Training(seed=3).parts().items()}
    training, stubborn = Training(seed=1), Refuses()
    tracked = training.parts()
    tracked = {"own": stubborn, **tracked} if place == "first" else {**tracked, "own": stubborn}
    before = training.digest()
    with pytest.raises(DamagedFile, match=r"state of own is refused.*another version"):
        parts.restore(tracked, {**state, "own": {"value": 7}}, "file")
    assert training.digest() == before
    assert stubborn.value == 1
    stubborn.willing = True
    parts.restore(tracked, {**state, "own": {"value": 7}}, "file")
    assert training.digest() == Training(seed=3).digest() and stubborn.value == 7


def test_numbers_damaged_behind_a_whole_structure_are_found_before_a_weight_is_copied(folder: Path) -> None:
    """One bit of a tensor, no manifest to say so: the zip's own checksum counts."""
    for file in sorted((folder / "t").glob("iter_*.pth")):
        data = bytearray(file.read_bytes())
        data[data.find(read_checkpoint(file)["state_dict"]["0.weight"].numpy().tobytes())] ^= 1
        file.write_bytes(data)
    training = Training(seed=1)
    before, on_disk = training.digest(), without_locks(folder / "t")
    with pytest.raises((Exit, UnbrokenError)) as refused:
        session(folder, training)
    assert getattr(refused.value, "code", getattr(refused.value, "exit_code", None)) == 12
    assert training.digest() == before and without_locks(folder / "t") == on_disk
