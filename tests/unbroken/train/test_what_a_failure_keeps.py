"""A training that fails, wherever and however, keeps the state after its last finished step, or says what is lost."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from unbroken.errors import DamagedFile, UsageError
from unbroken.journal import read_events
from unbroken.train import Exit, Task, differences, fit, one_pass, open_run, read_checkpoint

SIZE, BATCH = 12, 2
LOST = pytest.mark.parametrize("workers", [0, 2])


class Numbers:
    """Samples 0 to 11; `fails` is called for the one that cannot be read, while it is one."""

    def __init__(self, fails: Callable[[], Any] | None = None, bad: int = 7) -> None:
        self.fails, self.bad = fails, bad

    def __len__(self) -> int:
        return SIZE

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.bad and self.fails is not None:
            self.fails()
        return torch.full((2,), float(index)) + torch.rand(2)


def raising(error: BaseException) -> Callable[[], None]:
    def fails() -> None:
        raise error

    return fails


def unreadable_picture() -> None:
    Image.open(Path(__file__))


def undecodable_picture() -> None:
    cv2.cvtColor(np.zeros((0, 0)), cv2.COLOR_BGR2RGB)


def reads_a_file_that_is_gone() -> None:
    Path("/nowhere/tile_7.png").read_bytes()


FAILURES = [
    raising(KeyError("label")), raising(ValueError("not a number")), raising(StopIteration()), raising(MemoryError()),
    raising(AssertionError()), raising(RuntimeError("CRC")), raising(EOFError()), raising(NotImplementedError()),
    raising(DamagedFile("tile_7.png", "it is truncated")), unreadable_picture, undecodable_picture,
    reads_a_file_that_is_gone, lambda: sys.exit(3), raising(GeneratorExit()), lambda: next(iter([])),
]  # fmt: skip


def network(*, norm: bool = False) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3) if norm else nn.Dropout(0.4), nn.Linear(3, 1))


def train(
    folder: Path,
    dataset: Any,
    *,
    tag: str = "t",
    workers: int = 0,
    accumulate: int = 1,
    norm: bool = False,
    body: Callable[[Any], None] = lambda _run: None,
    before_step: Callable[[Any], None] = lambda _run: None,
    on_bad: Any = "stop",
    **more: Any,
) -> None:
    """One session of a plain loop; `body` runs after each step, `before_step` after each backward pass."""
    with open_run(folder, tag=tag, save_every_s=None, on_bad=on_bad) as run:
        model = network(norm=norm)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        run.track(model=model, optimizer=optimizer)
        batches = run.batches(
            dataset, batch_size=BATCH, epochs=2, shuffle=False, workers=workers, accumulate=accumulate, **more
        )
        for turn, batch in enumerate(batches, start=1):
            model(batch).square().mean().backward()
            before_step(run)
            if turn % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
                run.end_step()
                body(run)


def last_of(folder: Path, tag: str = "t") -> Path:
    return max((folder / tag).glob("iter_*.pth"), key=lambda path: int(path.stem[5:]))


def is_a_twin(folder: Path, **how: Any) -> None:
    """What was left goes on, from sound data, to where an untouched training ends."""
    train(folder, Numbers(), **how)
    train(folder / "twin", Numbers(), **how)
    are_the_same(folder)


def are_the_same(folder: Path) -> None:
    assert differences(read_checkpoint(last_of(folder)), read_checkpoint(last_of(folder / "twin"))) == []


@LOST
@pytest.mark.parametrize("fails", FAILURES)
def test_whatever_reading_a_sample_raises_the_last_finished_step_is_saved(
    tmp_path: Path, fails: Callable[[], Any], workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exit) as ending:
        train(tmp_path, Numbers(fails), workers=workers)
    said = capsys.readouterr().out
    assert ending.value.code == 12
    assert last_of(tmp_path).name == "iter_3.pth"
    assert "the state after step 3, the last one that was finished, is saved" in said
    assert 'to leave such samples out: open_run(..., on_bad="skip")' in said
    assert "sample 7 of epoch 0 of Numbers" in said or "tile_7.png: it is truncated" in said
    assert read_events(tmp_path / "t/unbroken/journal.jsonl")[-1]["event"] == "failed"


@LOST
def test_it_goes_on_as_the_untouched_twin_once_the_sample_can_be_read(tmp_path: Path, workers: int) -> None:
    with pytest.raises(Exit):
        train(tmp_path, Numbers(raising(KeyError(7))), workers=workers)
    is_a_twin(tmp_path, workers=workers)


@LOST
def test_the_file_is_named_where_the_system_or_a_variable_of_the_data_set_knows_it(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    tile = tmp_path / "tile_7.npy"
    tile.write_bytes(b"no array")

    def fails() -> None:
        path = tile
        if (shape := getattr(cv2.imread(str(path)), "shape", None)) is None:
            raise ValueError(f"shape {shape}")

    for index, (failure, name) in enumerate([(fails, str(tile)), (reads_a_file_that_is_gone, "/nowhere/tile_7.png")]):
        with pytest.raises(Exit):
            train(tmp_path, Numbers(failure), workers=workers, tag=str(index))
        assert f"{name}: sample 7 of epoch 0 of Numbers cannot be read" in capsys.readouterr().out


@LOST
def test_in_mid_accumulation_the_state_is_that_after_the_last_finished_step(tmp_path: Path, workers: int) -> None:
    with pytest.raises(Exit):
        train(tmp_path, Numbers(raising(OSError("I/O")), bad=11), workers=workers, accumulate=4)
    assert read_checkpoint(last_of(tmp_path))["unbroken"]["position"] == 8
    is_a_twin(tmp_path, accumulate=4)


def test_what_cannot_be_put_back_is_not_saved_and_what_is_lost_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exit) as ending:
        train(tmp_path, Numbers(raising(OSError("I/O")), bad=11), accumulate=2, norm=True)
    assert ending.value.code == 12
    words = "steps 1-2 are lost, nothing was saved before (the step that was not finished has already changed: model)"
    assert words in capsys.readouterr().out
    assert not list((tmp_path / "t").glob("iter_*.pth"))


@LOST
def test_a_first_batch_that_cannot_be_read_ends_it_with_its_sample_named(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exit) as ending:
        train(tmp_path, Numbers(raising(KeyError("x")), bad=0), workers=workers)
    assert ending.value.code == 12
    assert "sample 0 of epoch 0 of Numbers: it cannot be read. Found KeyError: 'x'" in capsys.readouterr().out


@LOST
def test_a_validation_sample_that_cannot_be_read_costs_no_step_and_the_evaluation_is_owed(
    tmp_path: Path, workers: int
) -> None:
    runs: list[Any] = []

    def validate() -> None:
        if runs and runs[0].evaluation_due(every=4):
            sum(
                float(each.sum())
                for each in one_pass(Numbers(raising(ValueError("bits"))), batch_size=2, workers=workers)
            )

    with pytest.raises(Exit) as ending:
        train(tmp_path, Numbers(), body=lambda run: runs.append(run), between=validate)
    assert ending.value.code == 12
    saved = read_checkpoint(last_of(tmp_path))["unbroken"]
    assert (saved["step"], saved["evaluated_step"]) == (4, 0)


def test_what_fails_after_the_end_of_a_step_in_its_body_leaves_no_state_to_be_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def slip(run: Any) -> None:
        if run.step == 4:
            raise NameError("lss")

    with pytest.raises(NameError):
        train(tmp_path, Numbers(), body=slip)
    words = "steps 1-4 are lost, nothing was saved before (of step 4, what follows in the loop's body was not done)"
    assert words in capsys.readouterr().out and not list((tmp_path / "t").glob("iter_*.pth"))


def test_a_mistake_in_the_loop_costs_no_step_as_long_as_no_optimizer_has_stepped(tmp_path: Path) -> None:
    def slip(run: Any) -> None:
        if run.step == 5:
            raise NameError("lss")

    with pytest.raises(NameError):
        train(tmp_path, Numbers(), before_step=slip)
    assert last_of(tmp_path).name == "iter_5.pth"
    is_a_twin(tmp_path)


@pytest.mark.parametrize("writes", ["in place", "past the version"])
def test_a_mistake_after_the_optimizer_has_stepped_saves_no_half_step(
    tmp_path: Path, writes: str, capsys: pytest.CaptureFixture[str]
) -> None:
    class PastTheVersion(torch.optim.Optimizer):
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.data.sub_(0.1)

    with pytest.raises(ZeroDivisionError), open_run(tmp_path, tag="t", save_every=2, save_every_s=None) as run:
        model = network()
        made = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer = made if writes == "in place" else PastTheVersion(model.parameters(), {"lr": 0.1})
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(Numbers(), batch_size=BATCH, epochs=2, shuffle=False):
            model(batch).square().mean().backward()
            optimizer.step()
            if run.step == 3:
                _ = 1 / 0
            run.end_step()
    assert "step 3 is lost, the last save is of step 2 (the step that was not finished" in capsys.readouterr().out
    assert last_of(tmp_path).name == "iter_2.pth"


def test_the_end_of_an_epoch_that_was_begun_is_not_saved_half(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A schedule that has stepped, and then a validation that fails: the next session would step it again."""

    def session(folder: Path, *, fails: bool) -> None:
        with open_run(folder, tag="t", save_every=4, save_every_s=None) as run:
            model = network()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
            run.track(model=model, optimizer=optimizer, scheduler=scheduler)
            numbers = Numbers()
            for _epoch in run.epochs(2):
                for batch in run.batches(numbers, batch_size=BATCH, shuffle=False):
                    model(batch).square().mean().backward()
                    optimizer.step()
                    optimizer.zero_grad()
                    run.end_step()
                scheduler.step()
                if fails:
                    raise UsageError("validation", "it cannot be done")

    with pytest.raises(Exit):
        session(tmp_path, fails=True)
    assert "steps 5-6 are lost, the last save is of step 4 (" in capsys.readouterr().out
    for folder in (tmp_path, tmp_path / "twin"):
        session(folder, fails=False)
    are_the_same(tmp_path)


def fitted(folder: Path, dataset: Any, *, fails_at: int = -1, workers: int = 0) -> None:
    """One session of `fit`, two micro-batches to a step, with running statistics that a failed step must not keep."""
    with open_run(folder, tag="t", save_every_s=None) as run:
        model = network(norm=True)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

        def loss(batch: torch.Tensor) -> dict[str, torch.Tensor]:
            found = {"loss": model(batch).square().mean()}
            if run.step == fails_at:
                raise IndexError("target out of range")
            return found

        task = Task(
            model=model,
            optimizer=optimizer,
            schedule=torch.optim.lr_scheduler.StepLR(optimizer, 2),
            dataset=dataset,
            batch_size=BATCH,
            loss=loss,
            epochs=2,
            accumulate=2,
            workers=workers,
        )
        fit(run, task)


@LOST
def test_fit_keeps_the_last_finished_step_also_in_mid_accumulation(tmp_path: Path, workers: int) -> None:
    with pytest.raises(Exit) as ending:
        fitted(tmp_path, Numbers(raising(ValueError("tile")), bad=11), workers=workers)
    assert ending.value.code == 12 and last_of(tmp_path).name == "iter_2.pth"
    with pytest.raises(IndexError):
        fitted(tmp_path, Numbers(), fails_at=4)
    assert last_of(tmp_path).name == "iter_4.pth"
    for folder in (tmp_path, tmp_path / "twin"):
        fitted(folder, Numbers())
    are_the_same(tmp_path)


@LOST
def test_whatever_a_sample_raises_can_be_left_out_but_not_what_is_no_fault_of_the_sample(
    tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tmp_path, Numbers(unreadable_picture), workers=workers, on_bad="skip")
    assert read_checkpoint(last_of(tmp_path))["unbroken"]["skipped"] == 2
    assert "skipped sample 7 of epoch 1" in capsys.readouterr().out
    for index, error in enumerate([MemoryError(), UsageError("config", "classes are missing"), SystemExit(1)]):
        with pytest.raises(Exit):
            train(tmp_path, Numbers(raising(error)), workers=workers, on_bad="skip", tag=str(index))
        assert last_of(tmp_path, str(index)).name == "iter_3.pth"
