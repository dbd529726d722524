"""A step ends when its optimizer has stepped, a run where its loop says so: nothing of that is told by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unbroken.train.sessions_of_loops import Loop, cut, difference, said, steps, train
from unbroken.cli import main
from unbroken.errors import UsageError
from unbroken.journal import read_events
from unbroken.report.audit import audit
from unbroken.run.history import history_of, how_it_ended
from unbroken.train import Exit, TrainingRun, open_run

COUNTED = "warning: enumerate(...) counts from 0 in this session, and the next batch is number"
DATA = torch.arange(20.0).reshape(-1, 1) / 20


class Both:
    """Two networks and their optimizers."""

    def __init__(self, run: TrainingRun) -> None:
        self.one, self.other = (nn.Sequential(nn.Linear(1, 3), nn.Dropout(0.3), nn.Linear(3, 1)) for _ in range(2))
        self.first = torch.optim.Adam(self.one.parameters(), lr=0.01)
        self.second = torch.optim.SGD(self.other.parameters(), lr=0.01, momentum=0.9)
        self.schedule = torch.optim.lr_scheduler.StepLR(self.first, step_size=2, gamma=0.9)
        run.track(one=self.one, other=self.other, first=self.first, second=self.second, schedule=self.schedule)

    def learn(self, batch: torch.Tensor, optimizer: torch.optim.Optimizer) -> torch.Tensor:
        """One backward pass and one step of one of them."""
        loss: torch.Tensor = self.one(batch).square().mean() + self.other(batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss


def plain(run: TrainingRun, workers: int) -> Iterator[None]:
    both = Both(run)
    for batch in run.batches(DATA, batch_size=3, workers=workers, epochs=2):
        loss = both.learn(batch, both.first)
        yield  # a signal comes between the optimizer and what follows it
        both.schedule.step()
        run.log(loss=loss)


def two_optimizers(run: TrainingRun, workers: int) -> Iterator[None]:
    both = Both(run)
    for batch in run.batches(DATA, batch_size=3, workers=workers, epochs=2):
        first = both.learn(batch, both.first)
        run.log(loss=first)
        second = both.learn(batch, both.second)
        both.schedule.step()
        run.log(second=second, at=run.step)
        yield


def accumulating(run: TrainingRun, workers: int) -> Iterator[None]:
    both = Both(run)
    for batch in run.batches(DATA, batch_size=2, workers=workers, epochs=3):
        loss = both.one(batch).square().mean()
        loss.backward()
        run.log(loss=loss, number=run.batch)
        if run.batch % 2 == 1:
            both.first.step()
            both.first.zero_grad()
            both.schedule.step()
            yield


def few_of_each_epoch(run: TrainingRun, workers: int) -> Iterator[None]:
    both = Both(run)
    for _ in run.epochs(4):
        for batch in run.batches(DATA, batch_size=3, workers=workers):
            if run.batch == 4:
                break
            run.log(loss=both.learn(batch, both.first), number=run.batch)
            yield
        both.schedule.step()


def evaluating(run: TrainingRun, workers: int) -> Iterator[None]:
    both = Both(run)
    for batch in run.batches(DATA, batch_size=3, workers=workers, epochs=2):
        run.log(loss=both.learn(batch, both.first))
        if run.evaluation_due(2):
            run.record_evaluation(value=float(both.one(DATA).detach().mean()), drawn=float(torch.rand(())))
        run.log(after=torch.rand(()))
        yield
        both.schedule.step()


def drawing(run: TrainingRun, workers: int) -> Iterator[None]:
    both = Both(run)
    for _ in run.steps(9):
        run.log(loss=both.learn(torch.rand(4, 1), both.first))
        both.schedule.step()
        yield


def ending_each_micro_batch(run: TrainingRun, workers: int) -> Iterator[None]:
    both = Both(run)
    for batch in run.batches(DATA, batch_size=2, workers=workers, epochs=2):
        loss = both.one(batch).square().mean()
        loss.backward()
        if (run.step + 1) % 3 == 0:
            both.first.step()
            both.first.zero_grad()
        run.end_step(loss=loss)
        yield


def stepping_first(run: TrainingRun, workers: int) -> Iterator[None]:
    both = Both(run)
    for batch in run.batches(DATA, batch_size=3, workers=workers, epochs=2):
        both.first.step()
        both.first.zero_grad()
        loss = both.one(batch).square().mean()
        loss.backward()
        run.log(loss=loss)
        yield


@pytest.mark.parametrize(
    "loop",
    [
        plain,
        two_optimizers,
        accumulating,
        few_of_each_epoch,
        evaluating,
        drawing,
        ending_each_micro_batch,
        stepping_first,
    ],
    ids=lambda each: each.__name__,
)
def test_a_loop_that_says_no_end_of_its_steps_is_exact(tmp_path: Path, loop: Loop) -> None:
    peace, apart = tmp_path / "peace", tmp_path / "apart"
    assert train(peace, loop, workers=0) == 0
    cut(apart, loop, workers=(2, 0, 2))
    assert difference(peace, apart) == ""
    for run in (peace, apart):
        found = audit(run / "t")
        assert found.good, found.findings


def test_what_is_logged_in_the_micro_batches_of_a_step_is_its_mean(tmp_path: Path) -> None:
    assert train(tmp_path / "a", accumulating, workers=0) == 0
    records = steps(tmp_path / "a")
    assert [records[step]["number"] for step in range(1, 16)] == [0.5, 2.5, 4.5, 6.5, 8.5] * 3
    assert [len(records[step]["samples"]) for step in range(1, 16)] == [4] * 15


def test_values_that_are_logged_after_the_end_of_a_step_belong_to_it(tmp_path: Path) -> None:
    with open_run(tmp_path, tag="t") as run:
        both = Both(run)
        for batch in run.batches(DATA, batch_size=10, epochs=1):
            run.end_step(loss=both.learn(batch, both.first))
            run.log(later=run.step)
    assert [record["later"] for record in steps(tmp_path).values()] == [1, 2]


def test_an_epoch_that_its_loop_ends_early_is_followed_by_the_next_one(tmp_path: Path) -> None:
    assert train(tmp_path / "a", few_of_each_epoch, workers=0) == 0
    records = steps(tmp_path / "a")
    assert [record["epoch"] for record in records.values()] == [0] * 4 + [1] * 4 + [2] * 4 + [3] * 4
    assert said(tmp_path / "a").count("the loop ended epoch") == 1
    assert "the loop ended epoch 1 after 12 of its 20 samples" in said(tmp_path / "a")


@pytest.mark.parametrize("wrapped", [lambda each: each, lambda each: (x for x in each), lambda each: zip(each, each)])
def test_an_enumerate_that_begins_anew_in_mid_epoch_is_said(tmp_path: Path, capsys: Any, wrapped: Any) -> None:
    def session(*, stop: int) -> str:
        with open_run(tmp_path, tag="t", save_every_s=None) as run:
            both = Both(run)
            for number, batch in enumerate(wrapped(run.batches(DATA, batch_size=2, epochs=2))):
                run.log(loss=both.learn(batch if isinstance(batch, torch.Tensor) else batch[0], both.first))
                if number == stop:
                    break
        return str(capsys.readouterr().out)

    assert COUNTED not in session(stop=3)
    assert COUNTED in session(stop=99)


def test_a_loop_without_a_counter_of_its_own_hears_nothing_of_one(tmp_path: Path, capsys: Any) -> None:
    for stop in (3, 99):
        with open_run(tmp_path, tag="t", save_every_s=None) as run:
            both = Both(run)
            for batch in run.batches(DATA, batch_size=2, epochs=2):
                run.log(loss=both.learn(batch, both.first))
                if run.batch == stop:
                    break
    assert COUNTED not in capsys.readouterr().out


def unfreezing(run: TrainingRun, workers: int) -> Iterator[None]:
    model = nn.Sequential(nn.Linear(1, 4), nn.Dropout(0.3), nn.Linear(4, 1))
    optimizer = torch.optim.Adam(model[2].parameters(), lr=0.01)

    def unfreeze() -> None:
        if run.step >= 4 and len(optimizer.param_groups) == 1:
            optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.001})

    unfreeze()
    run.track(model=model, optimizer=optimizer)
    for batch in run.batches(DATA, batch_size=3, workers=workers, epochs=2):
        unfreeze()
        loss = model(batch).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.log(loss=loss)
        yield


def test_parameters_that_join_in_mid_run_are_joined_before_they_are_restored(tmp_path: Path) -> None:
    peace, apart = tmp_path / "peace", tmp_path / "apart"
    assert train(peace, unfreezing, workers=0) == 0
    cut(apart, unfreezing, workers=(2, 0, 2))
    assert [line for line in difference(peace, apart).splitlines() if ".built_with." not in line] == []
    assert said(peace).count("note: optimizer has 2 groups of parameters, and had 1 when it was tracked") == 1


# -- loops that are left -----------------------------------------------------------------------------------------------


def left(folder: Path, *, at: int, finish: bool = False, epochs: int = 2, **config: Any) -> tuple[int, list[str]]:
    """One session whose loop is left by `break` after a step; the step that it reached, and what it said."""
    console: list[str] = []

    class Said:
        def say(self, text: str) -> None:
            console.extend(text.splitlines())

        def progress(self, *_: Any, **__: Any) -> None:
            pass

    with open_run(folder, tag="t", config={"epochs": epochs, **config}, save_every_s=None) as run:
        run.session_log.console = Said()  # type: ignore[attr-defined]
        both = Both(run)
        for batch in run.batches(DATA, batch_size=5, epochs=epochs):
            run.log(loss=both.learn(batch, both.first))
            both.schedule.step()
            if run.step + 1 == at:
                if finish:
                    run.finish("no better for 3 epochs")
                break
    return run.step, console


def test_a_loop_that_is_left_is_saved_says_how_to_go_on_and_does(tmp_path: Path, capsys: Any) -> None:
    left(tmp_path / "peace", at=99)
    assert left(tmp_path / "cut", at=3)[0] == 3
    told = capsys.readouterr().out
    assert "the loop was left after step 3: everything is saved" in told and "to continue, " in told
    events = read_events(tmp_path / "cut/t/unbroken/journal.jsonl")
    assert how_it_ended(events) == "stopped by its own loop, which was left"
    assert main(["ls", str(tmp_path / "cut")]) == 0 and "stopped" in capsys.readouterr().out
    assert left(tmp_path / "cut", at=99)[0] == 8
    assert difference(tmp_path / "peace", tmp_path / "cut") == ""


def test_a_loop_that_is_left_in_the_middle_of_a_step_keeps_nothing_of_it(tmp_path: Path, capsys: Any) -> None:
    def session(*, stop: int) -> None:
        with open_run(tmp_path, tag="t", save_every=1, save_every_s=None) as run:
            both = Both(run)
            for batch in run.batches(DATA, batch_size=5, epochs=2):
                loss = both.one(batch).square().mean()
                loss.backward()
                both.first.step()
                both.first.zero_grad()
                if run.step == stop:
                    break  # before it says that the step has ended
                run.end_step(loss=loss)

    session(stop=2)
    told = capsys.readouterr().out
    assert "the loop was left in the middle of step 3, which is not kept" in told
    session(stop=99)
    assert "at step 3" in capsys.readouterr().out
    assert sorted(steps(tmp_path)) == list(range(1, 9))


@pytest.mark.parametrize("said", [{"accumulate": 2}, {}])
@pytest.mark.parametrize("batch_size", [4, 5])  # 5 batches leave one over at the end of an epoch, 4 none
def test_the_last_evaluation_is_due_at_the_end_however_many_steps_that_takes(
    tmp_path: Path, batch_size: int, said: dict[str, int]
) -> None:
    evaluated = []
    with open_run(tmp_path, tag="t", save_every_s=None) as run:
        both = Both(run)
        for batch in run.batches(DATA, batch_size=batch_size, epochs=3, **said):
            loss = both.one(batch).square().mean()
            loss.backward()
            run.log(loss=loss)
            if run.batch % 2 == 1 or run.at_end_of_epoch:
                both.first.step()
                if run.evaluation_due():
                    run.record_evaluation(error=1.0)
                    evaluated.append(run.step)
    last = 9 if batch_size == 4 else 6
    assert evaluated == [last]
    assert [path.name for path in (tmp_path / "t").glob("iter_*.pth")] == [f"iter_{last}.pth"]


@pytest.mark.parametrize("by_hand", [True, False])
def test_the_rate_of_a_step_is_the_one_that_its_optimizer_stepped_with(tmp_path: Path, *, by_hand: bool) -> None:
    used = []
    with open_run(tmp_path, tag="t") as run:
        both = Both(run)
        for step in run.steps(4):
            for group in both.first.param_groups if by_hand else ():
                group["lr"] = 0.1 / (step + 1)  # as scripts do that keep no schedule
            both.second.param_groups[0]["lr"] = 7.0  # the recorded one is that of the first optimizer
            used.append(both.first.param_groups[0]["lr"])
            loss = both.learn(DATA[:4], both.first)
            both.learn(DATA[4:], both.second)
            both.schedule.step()
            run.log(loss=loss)
    assert [record["lr"] for record in steps(tmp_path).values()] == used


@pytest.mark.parametrize("leaves", [True, False])
def test_a_run_that_its_loop_finishes_is_finished_from_then_on(tmp_path: Path, capsys: Any, *, leaves: bool) -> None:
    def session(*, patience: int) -> int:
        with open_run(tmp_path, tag="t", config={"epochs": 9, "patience": patience}) as run:
            both = Both(run)
            for _ in run.epochs(9):
                for batch in run.batches(DATA, batch_size=5):
                    run.log(loss=both.learn(batch, both.first))
                if run.epoch == patience:
                    run.finish("no better for 2 epochs")
                    if leaves:
                        break
        return run.step

    assert session(patience=2) == 8
    assert "finished: 8 steps, ended by no better for 2 epochs" in capsys.readouterr().out
    assert history_of(read_events(tmp_path / "t/unbroken/journal.jsonl")).finished_at == 8
    assert audit(tmp_path / "t").good
    assert session(patience=2) == 8
    told = capsys.readouterr().out
    assert "plan: FINISHED" in told and "its loop ended the run at step 8 (no better for 2 epochs)" in told
    assert session(patience=3) == 12
    assert "plan: RESUME" in capsys.readouterr().out


def test_steps_end_in_one_way_only(tmp_path: Path) -> None:
    with pytest.raises(Exit) as refused, open_run(tmp_path, tag="t") as run:
        both = Both(run)
        for number, batch in enumerate(run.batches(DATA, batch_size=5, epochs=2)):
            loss = both.learn(batch, both.first)
            if number == 2:
                run.end_step(loss=loss)
    assert refused.value.code == UsageError.exit_code
    assert "2 steps did, without this" in str(refused.value.__cause__)


@pytest.mark.parametrize(("tracked", "is_said"), [(False, True), (True, False)])
def test_that_no_step_will_end_is_said_long_before_the_end(tmp_path: Path, tracked: bool, is_said: bool) -> None:
    """As where a language model's weights are changed by hand; many batches a step alone are nothing to say."""

    def loop(run: TrainingRun, workers: int) -> Iterator[None]:
        net = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        run.track(net=net, **({"optimizer": optimizer} if tracked else {}))
        for _ in run.steps(1):
            net(DATA[:1]).sum().backward()
            if run.current.turns == 12:
                if not tracked:
                    run.end_step()
                optimizer.step()
            yield

    assert train(tmp_path / "run", loop, workers=0) == 0, said(tmp_path / "run")
    assert said(tmp_path / "run").count("warning: no step has ended in 10 batches") == is_said, said(tmp_path / "run")


def test_a_value_that_is_of_no_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exit) as refused, open_run(tmp_path, tag="t") as run:
        run.log(loss=1.0)
    assert refused.value.code == UsageError.exit_code
    assert json.dumps(str(refused.value.__cause__)).count("run.log") == 1


@pytest.mark.parametrize(("every", "first", "shown"), [(1, 0, 10), (2, 1, 0), (3, 0, 1)])
def test_a_total_of_steps_is_shown_only_where_it_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], every: int, first: int, shown: int
) -> None:
    """Steps of several batches that nothing was said of have no total, from the first one that takes several on."""
    with open_run(tmp_path, tag="t", log_every=1) as run:
        both = Both(run)
        for batch in run.batches(DATA, batch_size=4, epochs=2):
            both.one(batch).square().mean().backward()
            if run.batch % every == first:
                both.first.step()
            run.log(loss=1.0)
    out = capsys.readouterr().out
    totals = re.findall(r"\[ *\d+/(\d+)\]", out)
    assert totals == ["10"] * shown, out
