"""A loss that is not finite: nothing of its step is kept, its samples are named, and the run can do without them."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.twin.frail import SIZE, build, read
from tests.twin.killing import assert_twins, events, step_records
from tests.unbroken.train.frail_sessions import fitted, session
from unbroken.errors import Refused
from unbroken.launch import Environment
from unbroken.launch.job import Accidents
from unbroken.train import GradientSettings, differences, read_checkpoint

SHAKY = ["--dropout", 0.3]
BAD = 7


def first_step_with(run: Path, sample: int) -> int:
    return next(step for step, record in sorted(step_records(run).items()) if sample in record["samples"])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same training with nothing wrong in it."""
    run = tmp_path_factory.mktemp("sound") / "run"
    assert session(run, *SHAKY, "--save-every", 1)[0] == 0
    return run


def test_it_stops_with_the_state_before_the_step_saved_and_the_samples_named(tmp_path: Path, sound: Path) -> None:
    step, run = first_step_with(sound, BAD), tmp_path / "run"
    with pytest.raises(Refused) as bad:
        session(run, *SHAKY, "--bad", BAD, "--save-every", 100)
    assert bad.value.exit_code == 10
    named = ", ".join(str(sample) for sample in step_records(sound)[step]["samples"])
    assert f"step {step}: the loss is not a number any more; nothing of this step was kept" in str(bad.value)
    assert f"Found nan on samples {named} of epoch 0" in str(bad.value)
    assert f"the state after step {step - 1} is saved" in str(bad.value) and "--on-nan rollback" in str(bad.value)
    file = f"iter_{step - 1}.pth"
    assert [path.name for path in run.glob("iter_*.pth")] == [file]
    assert differences(read_checkpoint(run / file), read_checkpoint(sound / file)) == []


def test_only_the_micro_batches_that_are_not_finite_are_named(tmp_path: Path) -> None:
    with pytest.raises(Refused) as bad:
        session(tmp_path / "run", "--no-norm", "--bad", BAD, "--batch", 1, "--accumulate", 4)
    assert f"Found nan on sample {BAD} of epoch 0." in str(bad.value)


def test_it_goes_back_and_leaves_these_samples_out_of_each_epoch(tmp_path: Path, sound: Path) -> None:
    run, steps = tmp_path / "run", 14
    code, said = session(run, *SHAKY, "--bad", BAD, "--on-nan", "rollback", "--steps", steps)
    assert code == 0
    back = events(run, "rollback")
    assert back[0]["step"] == first_step_with(sound, BAD)
    assert all([epoch, BAD] in event["samples"] for epoch, event in enumerate(back)), "once in each epoch"
    assert "going back to the last checkpoint; the samples of this step are left out of their epoch" in said
    records = step_records(run)
    assert list(records) == list(range(1, steps + 1))
    used = [(record["epoch"], sample) for record in records.values() for sample in record["samples"]]
    gone = {(epoch, sample) for event in back for epoch, sample in event["samples"]}
    assert len(used) == len(set(used)) and not gone & set(used)
    told = {(event["epoch"], event["sample"]) for event in events(run, "skipped")}
    assert told == gone, "what `audit` reads"
    whole = {(0, sample) for sample in range(SIZE)}
    assert {key for key in {*used, *gone} if key[0] == 0} == whole
    assert "bit-identical" in said, "the steps before the failed one were done again"
    assert read_checkpoint(run / f"iter_{steps}.pth")["unbroken"]["skipped"] == 0, "all of them could be read"


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_went_back_and_was_cut_off_is_its_twin(tmp_path: Path, workers: int) -> None:
    asked = [*SHAKY, "--bad", BAD, "--on-nan", "rollback", "--workers", workers]
    session(tmp_path / "whole", *asked)
    for crash in ("raise@6", "raise@9", "raise@13"):
        with pytest.raises(ValueError, match="the training code is wrong"):
            session(tmp_path / "cut", *asked, "--crash", crash, "--times", 9)
    assert session(tmp_path / "cut", *asked)[0] == 0
    assert_twins(tmp_path / "cut", tmp_path / "whole", "iter_16.pth")
    assert len(events(tmp_path / "cut", "rollback")) == len(events(tmp_path / "whole", "rollback"))


def test_before_the_first_checkpoint_it_goes_back_to_the_beginning(tmp_path: Path) -> None:
    code, said = session(tmp_path / "run", *SHAKY, "--bad", BAD, "--on-nan", "rollback", "--save-every", 100)
    assert code == 0 and said.count("plan: FRESH") > 1


def test_a_start_over_is_meant_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    session(run, *SHAKY, "--steps", 4, "--save-every", 2)
    code, _ = session(run, *SHAKY, "--bad", BAD, "--on-nan", "rollback", "--fresh", "--save-every", 2)
    assert code == 0 and len(list((run / "archive").iterdir())) == 1


def test_it_gives_up_where_going_back_does_not_help(tmp_path: Path) -> None:
    bad = [word for sample in range(SIZE) for word in ("--bad", sample)]
    with pytest.raises(Refused, match=r"also after going back 3 times and without the samples.*--ckpt FILE"):
        session(tmp_path / "run", *SHAKY, *bad, "--on-nan", "rollback")
    assert len(events(tmp_path / "run", "rollback")) == 3


def test_a_checkpoint_that_is_broken_itself_is_named(tmp_path: Path) -> None:
    run = tmp_path / "run"
    session(run, *SHAKY, "--steps", 5, "--save-every", 5)
    task = build(read([str(run), *map(str, SHAKY)], Environment()), print)

    def loss(_batch: Any) -> Any:
        raise AssertionError("no step is tried")

    def break_it(_step: int, _extension: Any) -> None:
        torch.nn.init.constant_(task.model.one.weight, float("nan"))  # type: ignore[arg-type,union-attr]

    broken = replace(task, loss=loss, follow_config=break_it)
    with pytest.raises(AssertionError, match="no step is tried"):
        fitted(run, broken, *SHAKY, "--steps", 8, accidents=Accidents(on_nan="stop"))
    spoiled, taken, run = (
        build(read([str(run), *map(str, SHAKY)], Environment()), print),
        count(1),
        tmp_path / "spoiled",
    )

    def spoil(*_: Any) -> None:
        if next(taken) == 5:
            torch.nn.init.constant_(spoiled.model.one.weight, float("nan"))  # type: ignore[arg-type,union-attr]

    spoiled.optimizer.register_step_post_hook(spoil)
    with pytest.raises(Refused, match="the state after step 5 is saved"):
        fitted(run, spoiled, *SHAKY, "--steps", 8, accidents=Accidents(on_nan="stop"))
    task = build(read([str(run), *map(str, SHAKY)], Environment()), print)
    with pytest.raises(Refused, match=r"iter_5.pth: weights in it are not finite.*first one.weight.*--ckpt FILE"):
        fitted(run, replace(task, loss=loss), *SHAKY, "--steps", 8, accidents=Accidents(on_nan="rollback"))


def test_ignoring_goes_on_says_so_once_and_counts(tmp_path: Path) -> None:
    code, said = session(tmp_path / "run", "--bad", BAD, "--on-nan", "ignore", "--steps", 12)
    assert code == 0 and said.count("is not a number: nan on") == 1
    counted = read_checkpoint(tmp_path / "run/iter_12.pth")["unbroken"]["not_finite"]
    assert counted > 2 and f"{counted} steps of this session had a loss or a gradient that is not a number" in said
    assert len(events(tmp_path / "run", "not finite")) == 1


def test_a_gradient_that_is_not_finite_stops_too_but_not_under_a_scaler(tmp_path: Path) -> None:
    def task_of(name: str) -> Any:
        task = build(read([str(tmp_path / name), "--no-norm"], Environment()), print)
        loss = task.loss

        def steep(batch: torch.Tensor) -> Any:
            values = dict(loss(batch))
            weight = task.model.one.weight  # type: ignore[union-attr]
            values["loss"] = values["loss"] + 1e30 * (1e-30 * weight.sum()) ** 2  # type: ignore[operator]
            if task.schedule.last_epoch == 2:  # type: ignore[attr-defined]
                values["loss"] = values["loss"] + (0 * weight.sum()).abs().sqrt()  # type: ignore[operator]
            return values

        return replace(task, loss=steep)

    for clip in (5.0, None):
        with pytest.raises(Refused, match="step 3: the norm of the gradients is not a number any more"):
            clipped = GradientSettings(clip_norm=clip)
            fitted(tmp_path / f"plain {clip}", replace(task_of(f"plain {clip}"), gradients=clipped), "--no-norm")
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    scaled = replace(task_of("scaled"), gradients=GradientSettings(clip_norm=5.0, scaler=scaler))
    fitted(tmp_path / "scaled", scaled, "--no-norm")
    assert scaler.get_scale() == 4.0, "the scaler skipped that step"
