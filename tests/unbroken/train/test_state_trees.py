"""State as plain trees, and parts that are checked before any of them is touched."""

from __future__ import annotations

import copy
import enum
import errno
import gc
import math
import weakref
from collections import ChainMap, Counter, OrderedDict, UserDict, defaultdict, deque
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import nn

from unbroken.errors import Incompatible, UsageError
from unbroken.storage import Disk
from unbroken.storage.digest import DigestingFile
from unbroken.train.state import parts
from unbroken.train.state.serialise import read_tree, write_tree
from unbroken.train.state.tree import from_plain, to_plain


class Phase(enum.IntEnum):
    WARM = 2


class FullDisk:
    def write(self, data: bytes, /) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    def flush(self) -> None:
        """Nothing is there."""


def through_a_file(value: Any, folder: Path) -> Any:
    disk = Disk()
    file = disk.create(folder / "state.pth")
    write_tree(file, {"value": to_plain(value)})
    disk.close(file)
    return from_plain(read_tree(folder / "state.pth")["value"])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (Phase.WARM, 2),
        (True, True),
        (None, None),
        (-0.0, -0.0),
        (2**80, 2**80),
        ("测试", "测试"),
        ((1, (2.5, "x"), []), (1, (2.5, "x"), [])),
        ({1, 2, 3}, {1, 2, 3}),
        ({"a": {0: [1], 1.5: None, True: "t"}}, {"a": {0: [1], 1.5: None, True: "t"}}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        ([], []),
        ({}, {}),
    ],
    ids=repr,
)
def test_plain_values_come_back_through_a_file_as_what_they_stood_for(
    tmp_path: Path, value: Any, expected: Any
) -> None:
    back = through_a_file(value, tmp_path)
    assert back == expected and type(back) is type(expected)
    if isinstance(expected, float):
        assert back.hex() == expected.hex()


@pytest.mark.parametrize("value", [math.nan, math.inf, 5e-324])
def test_odd_floats_come_back_bit_for_bit(tmp_path: Path, value: float) -> None:
    assert np.float64(through_a_file(value, tmp_path)).tobytes() == np.float64(value).tobytes()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float64).reshape(2, 3).T,
        np.arange(10)[::3],
        np.zeros((0, 4), dtype=np.float32),
        np.array([True, False]),
        np.array([1 + 2j]),
        np.array([1, 255], dtype=np.uint8),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_numpy_arrays_come_back_with_dtype_and_shape(tmp_path: Path, array: np.ndarray) -> None:
    back = through_a_file({"deep": (array,)}, tmp_path)["deep"][0]
    assert isinstance(back, np.ndarray)
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(back, array)


def test_a_numpy_array_without_dimensions_keeps_its_shape(tmp_path: Path) -> None:
    assert through_a_file(np.array(3.5), tmp_path).shape == ()


def test_an_array_that_torch_does_not_know_is_refused_with_its_path() -> None:
    with pytest.raises(UsageError, match=r"names"):
        to_plain({"names": np.array(["a", "b"])})


def test_a_tensor_is_kept_alone_without_the_storage_it_is_a_view_of(tmp_path: Path) -> None:
    large = torch.arange(1_000_000, dtype=torch.float32)
    assert torch.equal(through_a_file(large[10:13], tmp_path), torch.tensor([10.0, 11.0, 12.0]))
    assert (tmp_path / "state.pth").stat().st_size < 10_000


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": [0, {"b": object()}]}, r"a\[1\]\.b"),
        ({"a": (1, lambda: 0)}, r"a\[1\]"),
        ({"a": b"bytes"}, "a"),
        ({"a": {(1, 2): 3}}, r"a.*neither text nor a number"),
        (object(), "state"),
        ({"a": 1j}, "a"),
    ],
)
def test_what_is_not_plain_is_refused_with_its_path(value: Any, where: str) -> None:
    with pytest.raises(UsageError, match=where):
        to_plain(value)


def model(width: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 1))


def tracked(width: int = 4) -> dict[str, Any]:
    network = model(width)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    network(torch.randn(8, 2)).sum().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    return {"model": network, "optimizer": optimizer, "scheduler": scheduler, "counters": {"n": 3}, "history": [1, 2]}


def states(of: dict[str, Any]) -> dict[str, Any]:
    return {name: parts.state_of(part) for name, part in of.items()}


def copied(state: Any) -> Any:
    return from_plain(to_plain({"x": state}))["x"]


def test_states_fit_the_parts_they_were_taken_from_and_restore_them_in_place() -> None:
    one = tracked()
    saved = {name: (list(state) if name == "history" else state) for name, state in states(one).items()}
    other = tracked()
    with torch.no_grad():
        for parameter in other["model"].parameters():
            parameter.fill_(7)
    counters, history = other["counters"], other["history"]
    other["counters"]["n"], other["history"][0] = 9, 9
    parts.check(other, saved, "file")
    parts.restore(other, saved, "file")
    assert other["counters"] is counters == {"n": 3} and other["history"] is history == [1, 2]
    assert all(torch.equal(a, b) for a, b in zip(one["model"].parameters(), other["model"].parameters()))


def test_every_disagreement_is_listed_and_nothing_is_loaded() -> None:
    saved = states(tracked(width=6))
    del saved["scheduler"]
    saved["ema"] = {}
    del saved["model"]["0.bias"]
    saved["model"]["extra"] = torch.zeros(1)
    ours = tracked()
    before = [parameter.clone() for parameter in ours["model"].parameters()]
    with pytest.raises(Incompatible) as caught:
        parts.check(ours, saved, "iter_10.pth")
    text = str(caught.value)
    for words in (
        "iter_10.pth: the state does not fit",
        "model.0.bias: missing in the checkpoint",
        "model.extra: only in the checkpoint",
        "model.0.weight: expected (4, 2) float32, found (6, 2) float32",
        "and ",
    ):
        assert words in text, text
    assert caught.value.exit_code == 13
    assert all(torch.equal(a, b) for a, b in zip(before, ours["model"].parameters()))


@pytest.mark.parametrize(
    ("ruin", "words"),
    [
        (lambda saved: saved.pop("scheduler"), "scheduler: the checkpoint has no state for it"),
        (lambda saved: saved.update(ema={}), "ema: in the checkpoint, but not tracked"),
        (lambda saved: saved["optimizer"]["param_groups"].pop(), "optimizer: expected parameter groups of"),
        (lambda saved: saved.update(optimizer=3), "optimizer: expected an optimizer state, found none"),
        (lambda saved: saved.update(model=[1]), "model: expected weights by name, found list"),
        (
            lambda saved: saved["optimizer"]["state"][0].update(exp_avg=torch.zeros(9, 9)),
            r"optimizer.state\[0\].exp_avg: expected \(4, 2\), found \(9, 9\)",
        ),
    ],
)
def test_each_kind_of_disagreement_has_its_words(ruin: Any, words: str) -> None:
    saved = states(tracked())
    ruin(saved)
    with pytest.raises(Incompatible, match=words):
        parts.check(tracked(), saved, "file")


def test_a_plain_part_of_another_kind_is_found_before_anything_is_restored() -> None:
    saved = states(tracked())
    saved["counters"] = [1, 2]
    with pytest.raises(Incompatible, match="counters"):
        parts.check(tracked(), saved, "file")


@pytest.mark.parametrize("part", [3, "text", None, (1, 2), object()])
def test_what_cannot_be_restored_in_place_cannot_be_tracked(part: Any) -> None:
    with pytest.raises(UsageError, match="cannot be tracked"):
        parts.require_part("counter", part)


class Before(torch.optim.Optimizer):
    """As Accelerate's stands before the optimizer that it was made from."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state_dict(self) -> Any:
        return self.optimizer.state_dict()


def test_an_optimizer_that_does_not_tell_when_it_steps_is_refused_with_what_to_track() -> None:
    with pytest.raises(UsageError, match=r"^optimizer: Before stands before another .*optimizer=\.\.\.\.optimizer"):
        parts.require_part("optimizer", Before(torch.optim.SGD(model().parameters(), lr=0.1)))


def test_whatever_has_a_state_dict_can_be_tracked() -> None:
    for name, part in tracked().items():
        parts.require_part(name, part)


class Level(enum.IntEnum):
    LOW = 1


@pytest.mark.parametrize("own", [{}, {"a": None}, "same"])
@pytest.mark.parametrize(
    "value",
    [
        OrderedDict(b=1, a={"x": OrderedDict(c=2)}),
        defaultdict(list, {"a": [1, torch.ones(2)]}),
        defaultdict(int),
        defaultdict(None, {"a": 1}),
        Counter("aab"),
        deque([defaultdict(float, {"a": 0.5})], maxlen=2),
        torch.Size([2, 3]),
        [torch.Size([]), {"x": (torch.Size([1]), 2)}],
        np.str_("a"),
    ],
)
def test_dicts_of_collections_come_back_as_what_they_were_where_nothing_stood_before(own: Any, value: Any) -> None:
    saved = parts.state_of({"a": value}, "box")
    tracked = copy.deepcopy({"a": value}) if own == "same" else dict(own)
    parts.check({"box": tracked}, {"box": saved}, "file")
    parts.restore({"box": tracked}, {"box": saved}, "file", ours=True)
    found = tracked["a"]
    assert type(found) is type(value) and repr(found) == repr(value)
    assert getattr(found, "default_factory", 0) is getattr(value, "default_factory", 0)


class Row(NamedTuple):
    loss: float


class Named(dict[str, int]):
    pass


class Rows(list[int]):
    pass


class Recent(deque[int]):
    pass


class Word(str):
    pass


class Image(np.ndarray[Any, Any]):
    pass


class Counts(Counter[str]):
    pass


@pytest.mark.parametrize(
    "value",
    [
        Level.LOW,
        {"x": [Level.LOW]},
        defaultdict(lambda: 1),
        [defaultdict(Level)],
        Row(0.5),
        [(Row(0.5), 1)],
        Named(a=1),
        {"x": Rows([1])},
        Recent([1]),
        Word("a"),
        Counts("aab"),
        ChainMap({"a": 1}, {"b": 2}),
        MappingProxyType({"a": 1}),
        UserDict(a=1),
        np.ma.masked_array([1.0, 2.0], mask=[True, False]),
        np.ones(2).view(Image),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_come_back_as_something_else_is_refused_by_its_place(value: Any) -> None:
    with pytest.raises(UsageError, match=r"^box\.a"):
        parts.state_of({"a": value}, "box")


@pytest.mark.parametrize("part", [Named(a=1), Rows([1]), Recent([1], maxlen=2), Counts("aab")])
def test_a_tracked_container_of_a_class_of_ones_own_is_filled_and_stays_what_it_is(part: Any) -> None:
    saved, fresh = parts.state_of(part, "box"), type(part)()
    if isinstance(part, Recent):
        fresh = Recent(maxlen=2)
    parts.check({"box": fresh}, {"box": saved}, "file")
    parts.restore({"box": fresh}, {"box": saved}, "file", ours=True)
    assert fresh == part and type(fresh) is type(part)


def test_a_plain_dict_of_an_earlier_file_fills_the_dict_of_collections_that_stands_there() -> None:
    counts = {"a": defaultdict(int, {"x": 1})}
    parts.restore({"box": counts}, {"box": {"a": {"x": 5}}}, "file", ours=True)
    assert counts["a"]["x"] == 5 and counts["a"]["y"] == 0


def test_a_write_that_fails_says_why_and_leaves_nothing_of_the_state_in_memory() -> None:
    """Of a disk that stays full each save fails, and each would keep a copy of the model."""

    def save() -> weakref.ref[torch.Tensor]:
        weights = torch.ones(3)
        with pytest.raises(OSError, match="No space left on device"):
            write_tree(DigestingFile(FullDisk()), {"weights": weights})
        return weakref.ref(weights)

    kept = save()
    gc.collect()
    assert kept() is None


class Reluctant:
    """Tells its state to nobody, as an optimizer does whose state lies in several processes."""

    def state_dict(self) -> dict[str, Any]:
        raise RuntimeError("the state has not been consolidated on this rank")

    def load_state_dict(self, state: dict[str, Any]) -> None:
        raise AssertionError(state)


def test_a_part_that_does_not_tell_its_state_is_refused_in_a_sentence() -> None:
    with pytest.raises(UsageError, match=r"Reluctant does not tell its state: .*consolidated.*fully_shard"):
        parts.require_part("optimizer", Reluctant())
