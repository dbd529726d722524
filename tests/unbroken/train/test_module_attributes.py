"""What training changes of modules beside their tensors is state: which parameters learn, and plain attributes."""

from __future__ import annotations

import signal
from collections import OrderedDict, deque
from contextlib import redirect_stdout, suppress
from enum import IntEnum
from io import StringIO
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from tests.unbroken.train.test_boundaries import Here, Parts, Points, twin_of_peace
from unbroken.train import Exit, TrainingRun, open_run, read_checkpoint
from unbroken.train.state.module_attributes import misplaced


class Own(nn.Module):
    """A layer of one's own, whose attributes decide what it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.step = 0
        self.scale = 1.0
        self.recent: list[float] = []
        self.window: deque[float] = deque(maxlen=3)
        self.mean = torch.zeros(1)  # no buffer
        self.seen: torch.Tensor | None = None
        self.mode = "warm"

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.step += 1
        self.recent.append(float(x.detach().mean()))
        self.window.append(self.recent[-1])
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean()
        self.seen = x.detach().mean() if self.seen is None else self.seen + x.detach().mean()
        self.mode = "warm" if self.step < 5 else "hot"
        factor = self.scale / (1 + self.step) + sum(self.recent) / 99 + sum(self.window) / 9 + (self.mode == "hot")
        return x * factor + self.mean / 9 + self.seen / 99


def with_own(run: TrainingRun, *, name: str = "own") -> tuple[Parts, Own]:
    parts, own = Parts(run), Own()
    run.track(**{name: own})
    return parts, own


def unfrozen_step_by_step(run: TrainingRun, here: Here) -> None:
    """Progressive unfreezing, and a layer frozen for good."""
    parts = Parts(run)
    if run.step == 0:
        parts.model[0].requires_grad_(False)
    for batch in run.batches(Points(), batch_size=4, epochs=3):
        run.log(loss=parts.step(batch))
        if run.step == 3:
            parts.model[0].requires_grad_(True)
            parts.model[3].bias.requires_grad_(False)
        here("step")


def a_temperature_that_comes_later(run: TrainingRun, here: Here) -> None:
    """A leaf tensor enters a tracked dict in mid-run; no optimizer knows it, the loop steps it itself."""
    parts, kept = Parts(run), dict[str, torch.Tensor]()
    run.track(kept=kept)
    for batch in run.batches(Points(), batch_size=4, epochs=3):
        if run.step == 2 and "heat" not in kept:
            kept["heat"] = torch.zeros(1, requires_grad=True)
        scale = 1.0
        if (heat := kept.get("heat")) is not None:
            (heat.exp() - 2).square().sum().backward()
            assert heat.grad is not None
            with torch.no_grad():
                heat -= 0.1 * heat.grad
            heat.grad, scale = None, float(heat.detach().exp())
        run.log(loss=parts.step(batch * scale))
        here("step")


def another_dropout_and_momentum(run: TrainingRun, here: Here) -> None:
    parts: Any = Parts(run)
    for batch in run.batches(Points(), batch_size=4, epochs=3):
        run.log(loss=parts.step(batch))
        if run.step == 3:
            parts.model[2].p, parts.model[1].momentum = 0.7, 0.4
        here("step")


def counting_in_a_module(run: TrainingRun, here: Here) -> None:
    parts, own = with_own(run)
    for batch in run.batches(Points(), batch_size=4, epochs=3):
        run.log(loss=parts.step(own(batch)))
        if run.step == 4:
            own.scale = 0.25
        here("step")


def toggled_in_a_validation(run: TrainingRun, here: Here) -> None:
    """A stop between two settings of a validation keeps those of the boundary; what it leaves afterwards counts."""
    parts, own = with_own(run)

    def validate() -> dict[str, float]:
        own.scale, kept = 0.0, own.scale
        parts.model[0].requires_grad_(False)
        here("validation")
        run.poll()
        parts.model[0].requires_grad_(True)
        own.scale = kept / 2
        return {"value": 0.0}

    for batch in run.batches(Points(), batch_size=4, epochs=3, evaluate=validate, evaluate_every=3):
        run.log(loss=parts.step(own(batch)))
        here("step")


def changed_at_the_end_of_an_epoch(run: TrainingRun, here: Here) -> None:
    parts, own = with_own(run)
    points = Points()
    for _ in run.epochs(3):
        for batch in run.batches(points, batch_size=4):
            run.log(loss=parts.step(own(batch)))
            here("step")
        own.scale /= 2
        here("end")
        run.poll()


LOOPS: dict[Any, tuple[str, tuple[int, int]]] = {
    unfrozen_step_by_step: ("step", (8, 5)),
    a_temperature_that_comes_later: ("step", (8, 5)),
    another_dropout_and_momentum: ("step", (8, 5)),
    counting_in_a_module: ("step", (8, 5)),
    toggled_in_a_validation: ("validation", (2, 2)),
    changed_at_the_end_of_an_epoch: ("end", (1, 1)),
}


@pytest.mark.parametrize(
    ("loop", "number"),
    [
        (unfrozen_step_by_step, signal.SIGKILL),
        (unfrozen_step_by_step, signal.SIGTERM),
        (a_temperature_that_comes_later, signal.SIGKILL),
        (another_dropout_and_momentum, signal.SIGKILL),
        (counting_in_a_module, signal.SIGKILL),
        (toggled_in_a_validation, signal.SIGTERM),
        (changed_at_the_end_of_an_epoch, signal.SIGTERM),
    ],
)
def test_what_is_no_tensor_survives_a_kill_and_a_stop(tmp_path: Path, loop: Any, number: int) -> None:
    place, turns = LOOPS[loop]
    one, _ = twin_of_peace(tmp_path, loop, place, turns, number)
    assert all(weight.isfinite().all() for weight in one["state_dict"].values()), "a NaN would hide all"


def session(folder: Path, model: nn.Module, *, change: Any = lambda: None, steps: int = 4, **names: Any) -> list[str]:
    """One of the two sessions of a run; returns what it says."""
    optimizer, said = torch.optim.SGD(model.parameters(), lr=0.1), StringIO()
    with redirect_stdout(said), suppress(Exit), open_run(folder, tag="t", save_every=1, save_every_s=None) as run:
        run.track(model=model, optimizer=optimizer, **names)
        for _ in run.steps(8):
            model(torch.ones(2, 2)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if run.step == 2:
                change()
            if run.step == steps:
                run.stop("the test")
    return said.getvalue().splitlines()


def network() -> Any:
    return nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5), nn.Linear(2, 1))


def test_what_was_put_back_is_said_and_what_nothing_changed_is_as_it_is_built(tmp_path: Path) -> None:
    model = network()

    def change() -> None:
        model[1].p = 0.25
        model[0].requires_grad_(False)

    session(tmp_path, model, change=change)
    again = network()
    said = session(tmp_path, again, steps=8)
    assert "model.1.p = 0.25: as when it was saved, not as it was built" in said
    assert "model.0.weight and 1 more: is frozen as when it was saved, not as it was built" in said
    assert again[1].p == 0.25 and not again[0].weight.requires_grad and again[2].weight.requires_grad
    stamp = read_checkpoint(tmp_path / "t/iter_1.pth")["unbroken"]
    assert "attributes" not in stamp and "learning" not in stamp, "a model that is left alone keeps nothing"


def test_an_attribute_that_is_too_large_for_a_state_is_named_where_it_changes(tmp_path: Path) -> None:
    model = network()
    model.cache, model.table = torch.zeros(70_000), torch.zeros(70_000)
    said = session(tmp_path, model, change=lambda: model.cache.add_(1))
    named = [line for line in said if "model.cache" in line]
    assert len(named) == 1 and named[0].startswith("note: ") and "is not tracked" in named[0], said
    assert not any("model.table" in line for line in said)


class Phase(IntEnum):
    WARM = 1
    HOT = 2


class Row(NamedTuple):
    count: int


class Kinds(nn.Module):
    """Attributes of kinds that come back, and some that no file keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.row, self.size, self.by_name = Row(0), torch.Size([0]), OrderedDict(a=0)
        self.later: Any = None
        self.word = np.str_("a")
        self.phase, self.path = Phase.WARM, PurePath("a")
        self.came_later: Any = None

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)

    def change(self) -> None:
        self.row, self.size, self.by_name = Row(3), torch.Size([3]), OrderedDict(a=3)
        self.later = [torch.Size([1]), OrderedDict(b=1)]
        self.word = np.str_("b")
        self.phase, self.path = Phase.HOT, PurePath("b")
        self.came_later = Row(5)


def test_an_attribute_comes_back_as_the_kind_that_it_was_or_is_named(tmp_path: Path) -> None:
    trained, again = Kinds(), Kinds()
    said = session(tmp_path, trained, change=trained.change)
    (note,) = (line for line in said if "model.phase" in line)
    assert "model.path" in note and "model.came_later" in note and "is not tracked" in note.replace("are", "is"), note
    session(tmp_path, again, steps=8)
    for name in ("row", "size", "by_name", "later", "word"):
        assert repr(getattr(again, name)) == repr(getattr(trained, name)), name
        assert type(getattr(again, name)) is type(getattr(trained, name)), name
    assert again.phase is Phase.WARM and again.path == PurePath("a") and again.came_later is None


def test_a_tensor_attribute_takes_its_numbers_in_place_and_a_lazy_one_is_made(tmp_path: Path) -> None:
    one, other = network(), network()
    one.mean, other.mean = torch.zeros(3), torch.zeros(3)
    held = other.mean

    def change() -> None:
        one.mean += 2
        one.later = {"rows": [torch.ones(2), 0.5]}

    session(tmp_path, one, change=change)
    session(tmp_path, other, steps=8)
    assert other.mean is held and held.tolist() == [2, 2, 2]
    assert other.later["rows"][0].tolist() == [1, 1] and other.later["rows"][1] == 0.5


@pytest.mark.parametrize("name", ["forward", "__class__", "_parameters", "0.forward", "1.extra_repr", "a b"])
def test_a_file_puts_nothing_in_the_place_of_what_a_module_does(name: str) -> None:
    assert list(misplaced("model", network(), {name: 1.0}))
    assert not list(misplaced("model", network(), {"1.p": 0.1, "mean": 1.0}))


def test_values_of_the_script_that_change_late_are_named_at_the_next_save(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Curriculum:
        difficulty = 0

    tasks = Curriculum()
    tasks.difficulty = 1
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with open_run(tmp_path, tag="t", save_every=1, save_every_s=None) as run:
        run.track(model=model, optimizer=optimizer)
        for step in run.steps(6):
            (model(torch.ones(2, 2)).sum() * tasks.difficulty).backward()
            optimizer.step()
            if step == 3:
                tasks.difficulty += 1
    lines = capsys.readouterr().out.splitlines()
    said = [line for line in lines if "`tasks.difficulty`" in line]
    assert len(said) == 1 and "changes in this training and is not tracked" in said[0], lines


def test_what_a_dict_of_the_script_counts_in_place_is_named_and_not_what_is_made_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts, model = {"calls": 0, "fixed": 1}, network()

    def hook(*_: object) -> None:
        counts["calls"] += 1

    model[0].register_forward_hook(hook)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with open_run(tmp_path, tag="t", save_every=1, save_every_s=None) as run:
        run.track(model=model, optimizer=optimizer)
        for step in run.steps(4):
            batch = {"number": step}
            model(torch.ones(2, 2) * batch["number"]).sum().backward()
            optimizer.step()
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ") and "track" in line]
    assert len(lines) == 1 and "`counts['calls']` changes from step to step" in lines[0], lines
