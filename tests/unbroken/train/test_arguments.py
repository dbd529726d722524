"""What a script gives wrongly is answered in one sentence of the one family, with the argument and what to write."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tests.unbroken.train.test_start import Quiet
from unbroken.config import Effect
from unbroken.errors import UsageError
from unbroken.train import Exit, arguments, open_run

OPENED = [
    ({"config": Quiet()}, ["open_run(config)", "found Quiet", "config=vars(config)"]),
    ({"config": argparse.Namespace(act=torch.nn.ReLU)}, ["config['act']", "Give it as text: str(act)"]),
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
        arguments.interval("run.evaluation_due(every)", "100")
    assert arguments.interval("run.evaluation_due(every)", None) is None
    with pytest.raises(Exit, match="2"), open_run(tmp_path, tag="t", console=Quiet()) as run:
        run.track(model=torch.nn.Linear)


class Act(Enum):
    RELU = 1


@dataclass
class Optimizer:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)


@dataclass(frozen=True)
class Settings:
    optimizer: Optimizer = field(default_factory=Optimizer)
    act: Act = Act.RELU
    data: Path = Path("data/tiles")


PLAIN = {"optimizer": {"lr": 0.1, "betas": [0.9, 0.99]}, "act": "RELU", "data": "data/tiles"}
RESOLVED = {**PLAIN, "out": "data/tiles/out"}
CONFIGS = {
    "a namespace": (argparse.Namespace(optimizer=argparse.Namespace(**PLAIN["optimizer"]), act=Act.RELU), 2),
    "a simple namespace": (SimpleNamespace(optimizer=Optimizer(), act=Act.RELU, data=Path("data/tiles")), 3),
    "a dataclass": (Settings(), 3),
    "a dict of them": ({**PLAIN, "optimizer": Optimizer()}, 3),
    "omegaconf": (OmegaConf.create({**PLAIN, "out": "${data}/out"}), 4),
    "a structured one": (OmegaConf.structured(Settings), 3),
    "omegaconf in a dict": ({"optimizer": OmegaConf.create(PLAIN["optimizer"])}, 1),
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_config_may_be_a_namespace_a_dataclass_or_one_of_omegaconf(tmp_path: Path, kind: str) -> None:
    config, keys = CONFIGS[kind]
    expected = dict([*RESOLVED.items()][:keys])

    def begin(config: Any) -> list[str]:
        console = Quiet()
        with open_run(tmp_path, tag="t", console=console, config=config, effects={"optimizer.lr": "shape"}) as run:
            run.track(counters={"n": 0})
            for _ in run.batches(list(range(8)), batch_size=2, epochs=1):
                run.end_step()
                break
        return console.lines

    begin(config)
    (kept,) = (tmp_path / "t/unbroken/configs").iterdir()
    assert json.loads(kept.read_text()) == expected
    assert not [line for line in begin(expected) if "changed" in line]  # it is the same config
    with pytest.raises(Exit) as refused:
        begin({**expected, "optimizer": {**PLAIN["optimizer"], "lr": 0.2}})
    assert refused.value.code == 13 and "optimizer.lr: 0.1 -> 0.2 (shape)" in refused.value.reason


def holding_itself() -> dict[str, Any]:
    config: dict[str, Any] = {}
    config["again"] = config
    return config


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (OmegaConf.create({"lr": "???"}), ["cannot be resolved", "Missing mandatory value: lr"]),
        (OmegaConf.create({"lr": "${nowhere}"}), ["cannot be resolved", "nowhere"]),
        (OmegaConf.create([1, 2]), ["this is no dict", "found list"]),
        (Settings, ["this is no dict"]),
        (holding_itself(), ["holds itself"]),
        (argparse.Namespace(run=print), ["config['run']", "this cannot be recorded"]),
    ],
)
def test_a_config_that_cannot_be_resolved_or_recorded_is_refused_in_one_sentence(
    tmp_path: Path, config: Any, words: list[str]
) -> None:
    with pytest.raises(Exit) as refused:
        open_run(tmp_path, tag="t", console=Quiet(), config=config)
    assert refused.value.code == 2 and said(words, refused.value.reason), refused.value.reason
    assert list(tmp_path.iterdir()) == []


def test_metrics_of_an_evaluation_may_be_numbers_of_numpy_and_torch(tmp_path: Path) -> None:
    given = {
        "a": np.float32(0.5),
        "b": torch.tensor(0.25, dtype=torch.bfloat16),
        "c": np.array([2.0]),
        "d": torch.nn.Parameter(torch.tensor([[4.0]])),
        "e": np.int64(3),
        "f": np.array(7),
    }
    for best, larger in (("a", True), ("b", False)):
        for run in loop(tmp_path / best):
            run.end_step(**given)
            assert run.record_evaluation(best=best, larger=larger, **given) == (run.step == 1)
            break
        records = [json.loads(line) for line in (tmp_path / best / "t/unbroken/metrics.jsonl").read_text().splitlines()]
        found = {"a": 0.5, "b": 0.25, "c": 2.0, "d": 4.0, "e": 3.0, "f": 7.0}
        assert [record["evaluation"] for record in records if "evaluation" in record] == [found]


def test_a_dotted_key_names_one_in_a_dict_of_the_config() -> None:
    config = {"model": {"width": 8, "depth": 2}, "lr": 0.1}
    effects = arguments.effects_of({"model.width": "shape", "lr": "schedule"}, config)
    assert effects.of("model.width") is Effect.SHAPE and effects.of("lr") is Effect.SCHEDULE
    assert effects.of("model.depth") is Effect.DATA and effects.of("other") is Effect.DATA
    whole = arguments.effects_of({"model": "shape"}, config)
    assert whole.of("model") is Effect.SHAPE and whole.of("model.depth") is Effect.SHAPE
