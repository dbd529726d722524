"""What a script gives wrongly is answered in one sentence of the one family, with the argument and what to write."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unbroken.train.test_start import Quiet
from unbroken.config import Effect
from unbroken.errors import UsageError
from unbroken.train import Exit, arguments, open_run

OPENED = [
    ({"config": argparse.Namespace(lr=1)}, ["open_run(config)", "found Namespace", "config=vars(config)"]),
    ({"config": [("lr", 1)]}, ["open_run(config)", "Expected a dict", "found list"]),
    ({"config": {"model": {"act": torch.nn.ReLU}}}, ["config['model.act']", "Give it as text: str(model.act)"]),
    ({"config": {"lr": np.float32(0.1)}}, ["config['lr']", "found float32", "Give lr.item()"]),
    ({"effects": {"width": "shapes"}}, ["open_run(effects['width'])", "'shape' or 'meaning'", 'Did you mean "shape"?']),
    ({"effects": {"widht": "shape"}}, ["open_run(effects)", "no such key", "Did you mean 'width'?"]),
    ({"effects": ["width"]}, ["open_run(effects)", "Expected a dict"]),
    ({"seed": "0"}, ["open_run(seed)", "0 or more, found '0'", "without quotes"]),
    ({"seed": -1}, ["open_run(seed)", "found -1"]),
    ({"save_every": 0}, ["open_run(save_every)", "1 or more, found 0"]),
    ({"save_every_epochs": 0.5}, ["open_run(save_every_epochs)", "found 0.5"]),
    ({"log_every": 0}, ["open_run(log_every)", "found 0"]),
    ({"keep_last": -3}, ["open_run(keep_last)", "found -3"]),
    ({"on_bad": "ignore"}, ["open_run(on_bad)", "'stop' or 'skip'", "found 'ignore'"]),
    ({"search": "/kaggle/input"}, ["open_run(search)", 'search=["/kaggle/input"]']),
    ({"layout": "epochs"}, ["open_run(layout)", "from unbroken import EPOCHS"]),
    ({"root": None}, ["open_run(root)", "Expected a path", "found None"]),
    ({"root": ""}, ["open_run(root)"]),
    ({"quota": 20}, ["open_run(quota)"]),
    ({"session_s": "12"}, ["session_s"]),
]
BATCHES = [
    ({"batch_size": 0}, ["run.batches(batch_size)", "1 or more, found 0"]),
    ({"batch_size": -4}, ["run.batches(batch_size)", "found -4"]),
    ({"batch_size": 2.0}, ["run.batches(batch_size)", "a whole number", "found 2.0"]),
    ({"batch_size": "4"}, ["run.batches(batch_size)", "found '4'", "without quotes"]),
    ({"batch_size": True}, ["run.batches(batch_size)", "found True"]),
    ({"workers": -1}, ["run.batches(workers)", "0 or more, found -1"]),
    ({"workers": None}, ["run.batches(workers)", "found None"]),
    ({"accumulate": 0}, ["run.batches(accumulate)", "found 0"]),
    ({"shuffle": "foo"}, ["run.batches(shuffle)", "True or False or 'epoch' or 'stream' or 'none'", "found 'foo'"]),
    ({"shuffle": "steam"}, ['Did you mean "stream"?']),
    ({"shuffle": None}, ["run.batches(shuffle)", "found None"]),
    ({"epochs": "3"}, ["run.batches(epochs)", "without quotes"]),
    ({"epochs": -1}, ["run.batches(epochs)", "found -1"]),
    ({"epochs": None}, ["how long to train?", "found neither"]),
    ({"epochs": None, "steps": 1.5}, ["run.batches(steps)", "found 1.5"]),
    ({"steps": 3}, ["how long to train?", "found both"]),
]
LOGGED: list[tuple[dict[str, Any], list[str]]] = [
    ({"loss": "0.5"}, ["run.end_step(loss=...)", "this is no number", "found '0.5'"]),
    ({"loss": [1.0, 2.0]}, ["run.end_step(loss=...)", "found a list"]),
    ({"loss": torch.ones(3)}, ["found a tensor of 3 elements", "loss.mean()"]),
    ({"loss": np.ones(2)}, ["found a ndarray", "loss.mean()"]),
    ({"loss": None}, ["found None"]),
    ({"args": argparse.Namespace(lr=1)}, ["run.end_step(args=...)", "found a Namespace"]),
    ({"loss": 1.0, "step": 3}, ["run.end_step(step=...)", "my_step=..."]),
]


def said(words: list[str], text: str) -> bool:
    return "Traceback" not in text and all(word in text for word in words)


@pytest.mark.parametrize(("given", "words"), OPENED, ids=lambda each: str(each)[:50])
def test_what_open_run_cannot_take_is_named_and_nothing_is_touched(
    tmp_path: Path, given: dict[str, Any], words: list[str]
) -> None:
    options: dict[str, Any] = {"root": tmp_path, "config": {"width": 8}, **given}
    with pytest.raises(Exit) as refused:
        open_run(options.pop("root"), tag="t", console=Quiet(), **options)
    assert refused.value.code == 2 and said(words, refused.value.reason), refused.value.reason
    assert list(tmp_path.iterdir()) == []


def loop(root: Path, **batches: Any) -> Iterator[Any]:
    options: dict[str, Any] = {"batch_size": 2, "epochs": 1, **batches}
    with open_run(root, tag="t", console=Quiet()) as run:
        run.track(counters={"n": 0})
        for _ in run.batches(list(range(4)), **options):
            yield run
            run.end_step(loss=1.0)


@pytest.mark.parametrize(("given", "words"), BATCHES, ids=lambda each: str(each)[:50])
def test_what_no_batches_can_be_made_of_is_named(tmp_path: Path, given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(Exit) as refused:
        list(loop(tmp_path, **given))
    assert refused.value.code == 2 and said(words, refused.value.reason), refused.value.reason


@pytest.mark.parametrize(("given", "words"), LOGGED, ids=lambda each: str(each)[:50])
def test_what_is_no_number_is_not_logged(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(UsageError) as refused:
        arguments.numbers("run.end_step", given)
    assert said(words, str(refused.value)), refused.value


def test_numbers_of_any_kind_are_logged() -> None:
    given = {"a": 1, "b": torch.tensor([2.0], requires_grad=True), "c": np.float32(0.5), "d": float("nan"), "e": True}
    found = arguments.numbers("run.end_step", given)
    assert [found[name] for name in "abce"] == [1.0, 2.0, 0.5, 1.0]


def test_a_loop_that_logs_or_evaluates_wrongly_ends_with_one_sentence(tmp_path: Path) -> None:
    def log(run: Any) -> None:
        run.end_step(loss="0.5")

    def evaluate(run: Any) -> None:
        run.end_step(loss=1.0)
        run.record_evaluation(best="acc", accuracy=0.5)

    def judge(run: Any) -> None:
        run.end_step(loss=1.0)
        run.record_evaluation(accuracy=[0.5])

    for number, (do, words) in enumerate(
        [(log, "run.end_step(loss=...)"), (evaluate, "run.record_evaluation(best)"), (judge, "(accuracy=...)")]
    ):
        with pytest.raises(Exit) as refused:
            for run in loop(tmp_path / str(number)):
                with run:
                    do(run)
        assert refused.value.code == 2 and words in refused.value.reason


def test_an_interval_that_is_none_and_a_class_that_is_tracked_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run.evaluation_due\(every\).* found '100'. It is a number"):
        arguments.interval("run.evaluation_due", "100")
    assert arguments.interval("run.evaluation_due", None) is None
    with pytest.raises(Exit, match="2"), open_run(tmp_path, tag="t", console=Quiet()) as run:
        run.track(model=torch.nn.Linear)


def test_a_dotted_key_names_one_in_a_dict_of_the_config() -> None:
    config = {"model": {"width": 8, "depth": 2}, "lr": 0.1}
    effects = arguments.effects_of({"model.width": "shape", "lr": "schedule"}, config)
    assert effects.of("model.width") is Effect.SHAPE and effects.of("lr") is Effect.SCHEDULE
    assert effects.of("model.depth") is Effect.DATA and effects.of("other") is Effect.DATA
    whole = arguments.effects_of({"model": "shape"}, config)
    assert whole.of("model") is Effect.SHAPE and whole.of("model.depth") is Effect.SHAPE
