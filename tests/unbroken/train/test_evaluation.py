"""`evaluate=`: done where it is due, first thing after a kill, with the modes of the training left as they were."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn, optim

from tests.twin.killing import evaluations, events
from tests.unbroken.train.test_boundaries import Here, Parts, Points, trained
from unbroken.errors import UsageError
from unbroken.train import Every, Exit, PlainConsole, TrainingRun, differences, open_run, read_checkpoint

Validate = Callable[[], Any]


def validation(parts: Parts, run: TrainingRun, here: Here) -> Validate:
    """Draws, uses the model in evaluation mode, leaves it so, and tells that it was there."""

    def validate() -> dict[str, float]:
        parts.model.eval()
        parts.model[2].train()
        here("validation")
        run.poll()
        return {"value": float(parts.model(torch.rand(4, 1)).detach().mean()) + float(np.random.rand())}

    return validate


def every_few_steps(run: TrainingRun, here: Here) -> None:
    parts = Parts(run)
    how: Any = {"evaluate": validation(parts, run, here), "evaluate_every": 4, "best": "value", "larger": False}
    for batch in run.batches(Points(), batch_size=4, epochs=3, **how):
        run.log(loss=parts.step(batch))
        parts.schedule.step()


def each_epoch_beside_what_is_done_between(run: TrainingRun, here: Here) -> None:
    parts = Parts(run)

    def count() -> None:
        parts.seen["values"] = [*parts.seen["values"][:1], float(torch.rand(()))]

    evaluate = validation(parts, run, here)
    for batch in run.batches(Points(), batch_size=4, epochs=3, evaluate=evaluate, best="value", between=count):
        run.log(loss=parts.step(batch))


def within_epochs(run: TrainingRun, here: Here) -> None:
    parts = Parts(run)
    points, evaluate = Points(), validation(parts, run, here)
    for _ in run.epochs(3):
        for batch in run.batches(points, batch_size=4, evaluate=evaluate, best="value"):
            run.log(loss=parts.step(batch))
        parts.plateau.step(run.progress.metrics["value"])


def over_steps(run: TrainingRun, here: Here) -> None:
    parts = Parts(run)
    for _ in run.steps(18, evaluate=validation(parts, run, here), evaluate_every=4, best="value"):
        run.log(loss=parts.step(torch.rand(4, 1)))


LOOPS = {every_few_steps: 5, each_epoch_beside_what_is_done_between: 3, within_epochs: 3, over_steps: 5}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_kill_or_a_stop_inside_an_evaluation_changes_nothing(tmp_path: Path, loop: Any, number: int) -> None:
    torch.set_num_threads(1)
    assert trained(tmp_path / "peace", loop, "", 0, 0) == 0
    ended = [trained(tmp_path / "cut", loop, "validation", turn, number) for turn in (1, 2)]
    ended.append(trained(tmp_path / "cut", loop, "", 0, 0))
    log = (tmp_path / "cut.log").read_text("utf-8")
    assert ended == [-9 if number == signal.SIGKILL else 75] * 2 + [0], log
    assert "differs" not in log, log
    one, other = (tmp_path / name / "t" for name in ("peace", "cut"))
    assert evaluations(one) == evaluations(other) and len(evaluations(one)) == LOOPS[loop], log
    best = sorted(path.name for path in one.glob("best_value_*.pth"))
    assert best and best == sorted(path.name for path in other.glob("best_value_*.pth")), log
    for name in ("iter_18.pth", *best):
        differ = differences(*(read_checkpoint(run / name) for run in (one, other)))
        # A loop that does not say how many batches a step takes learns its length in its first step.
        assert [each for each in differ if not each.startswith(".unbroken.total")] == [], log


def found_in(run: Path) -> list[tuple[int, dict[str, float]]]:
    """The step and the metrics of each evaluation that a run records."""
    return [(event["step"], event["metrics"]) for event in events(run, "evaluated")]


class Quiet(PlainConsole):
    def say(self, text: str) -> None:
        pass


def session(folder: Path, *, body: Callable[[TrainingRun], None] = lambda _run: None, **how: Any) -> TrainingRun:
    """Six steps, two epochs, of a model that a validation may use."""
    with open_run(folder, tag="t", save_every_s=None, console=Quiet()) as run:
        model = nn.Linear(1, 1)
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(Points(), batch_size=8, epochs=2, **how):
            optimizer.zero_grad()
            model(batch).square().mean().backward()
            optimizer.step()
            body(run)
    return run


@pytest.mark.parametrize(
    ("every", "steps"),
    [(None, [3, 6]), (2, [2, 4, 6]), (4, [4, 6]), (np.int64(5), [5, 6]), (0, [6]), (Every(epochs=2), [6]), (9, [6])],
)
def test_it_is_done_every_so_many_steps_or_at_the_end_of_each_epoch_and_after_the_last_step(
    tmp_path: Path, every: Any, steps: list[int]
) -> None:
    def validate() -> dict[str, float]:
        return {"number": len(steps)}

    session(tmp_path, evaluate=validate, evaluate_every=every)
    assert [step for step, _ in found_in(tmp_path / "t")] == steps


def test_a_loop_that_says_that_it_is_done_is_evaluated_at_its_end(tmp_path: Path) -> None:
    def body(run: TrainingRun) -> None:
        if run.step == 3:
            run.finish("enough")

    session(tmp_path, body=body, evaluate=lambda: {"a": 1.0}, evaluate_every=100)
    assert [step for step, _ in found_in(tmp_path / "t")] == [4]


def test_an_evaluation_may_end_the_training(tmp_path: Path) -> None:
    def validate() -> dict[str, float]:
        seen.append(len(seen))
        if len(seen) == 2:
            run[0].finish("no better")
        return {"value": -float(len(seen))}

    seen, run = list[int](), list[TrainingRun]()
    session(tmp_path, body=lambda each: run.append(each) if not run else None, evaluate=validate, evaluate_every=2)
    assert [step for step, _ in found_in(tmp_path / "t")] == [2, 4]
    assert (tmp_path / "t/iter_4.pth").exists() and not (tmp_path / "t/iter_6.pth").exists()


@pytest.mark.parametrize(
    ("returned", "best", "words"),
    [
        (None, None, "evaluate: it returns no metrics.*found None.*Let it return"),
        (0.5, None, r"evaluate: it returns no metrics.*found 0\.5"),
        ([("a", 1.0)], None, "evaluate: it returns no metrics.*found a list"),
        ({1: 1.0}, None, "evaluate: it returns no metrics.*found a dict"),
        ({"a": "high"}, None, r"evaluate\(a=\.\.\.\): this is no number.*'high'"),
        ({"a": torch.ones(2)}, None, r"evaluate\(a=\.\.\.\): this is no number.*a\.mean\(\)"),
        ({"step": 1.0}, None, r"evaluate\(step=\.\.\.\).*my_step"),
        ({"accuracy": 1.0}, "acuracy", r"run\.batches\(best\).*'accuracy'.*'acuracy'"),
        ({}, "a", r"run\.batches\(best\)"),
    ],
)
def test_what_it_returns_is_metrics_or_an_error_that_says_what_to_return(
    tmp_path: Path, returned: Any, best: str | None, words: str
) -> None:
    with pytest.raises(Exit) as refused:
        session(tmp_path, evaluate=lambda: returned, evaluate_every=2, best=best)
    assert refused.value.code == UsageError.exit_code
    with pytest.raises(UsageError, match=f"(?s){words}"):
        raise refused.value.__cause__ or refused.value
    assert (tmp_path / "t/iter_2.pth").exists(), "the state before it is kept"


def test_metrics_are_numbers_of_any_library_and_may_be_none_at_all(tmp_path: Path) -> None:
    found = iter([{"a": np.float32(0.5)}, {"a": torch.tensor([2.0])}, {}])
    session(tmp_path, evaluate=lambda: next(found), evaluate_every=2)
    assert [metrics.get("a", math.inf) for _, metrics in found_in(tmp_path / "t")] == [0.5, 2.0, math.inf]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"evaluate": {"a": 1.0}}, r"run\.batches\(evaluate\): this cannot be called.*found a dict.*lambda"),
        ({"evaluate": lambda model: {}}, r"run\.batches\(evaluate\): this cannot be called.*model.*lambda"),
        ({"evaluate": dict, "evaluate_every": "2"}, r"run\.batches\(evaluate_every\).*'2'"),
        ({"evaluate": dict, "evaluate_every": -1}, r"run\.batches\(evaluate_every\).*-1"),
        ({"evaluate": dict, "evaluate_every": 2.5}, r"run\.batches\(evaluate_every\).*2\.5"),
        ({"evaluate": dict, "best": 3}, r"run\.batches\(best\).*found 3"),
        ({"evaluate_every": 2}, r"run\.batches: there is nothing to evaluate by.*evaluate="),
        ({"best": "a"}, r"run\.batches: there is nothing to evaluate by.*evaluate="),
    ],
)
def test_what_can_be_no_evaluation_is_refused_before_anything_is_trained(
    tmp_path: Path, how: dict[str, Any], words: str
) -> None:
    with pytest.raises(Exit) as refused:
        session(tmp_path, **how)
    with pytest.raises(UsageError, match=f"(?s){words}"):
        raise refused.value.__cause__ or refused.value
    assert not list(tmp_path.rglob("*.pth"))
