"""A checkpoint whose own entry is not what was written is damage: named, set aside, and nothing of it is loaded."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.unbroken.real_runs import contents, look, rewrite
from tests.unbroken.train.test_all_or_nothing import Training, dataset, session, without_locks
from unbroken.checkpoint.stamp import RULES, checked_stamp
from unbroken.checkpoint.structure import read_structure
from unbroken.checkpoint.tree import TensorRef
from unbroken.errors import DamagedFile
from unbroken.run import ITERATIONS
from unbroken.train import open_run, read_checkpoint
from unbroken.train.source import Source
from unbroken.train.stop import Exit

GONE = object()
REF = TensorRef(dtype="uint8", shape=(3,), stride=(1,), offset=0, storage_key="0", storage_bytes=3)
WRONG = [
    GONE, None, "x", b"x", -1, 1.5, 2**63, 10**1000, True, float("nan"), [], [None], ["x", "x"], [[]], [[-1, 0]], {},
    {"x": None}, {"x": {"x": [b"x"]}}, [{}], REF, [REF], {"x": REF}, {1: 2},
    [{"step": 1, "micro_batch": 0, "recompute": False}], [{"step": "1", "key": "a", "words": "b"}],
    {"metric": 1, "value": "x", "step": 2}, {"id": "a"}, {"id": 5, "seed": "x"}, {"threads": 10**9}, "x" * 100_000,
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was left after half of its steps, saved twice."""
    folder = tmp_path_factory.mktemp("trained")
    session(folder, Training(), until=4)
    return folder


def with_entry(tree: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    tree = copy.deepcopy(tree)
    *above, own = ("unbroken", *name.split("."))
    holder = tree
    for key in above:
        holder = holder[key]
    if value is GONE:
        holder.pop(own, None)
    else:
        holder[own] = value
    return tree


def fields(tree: dict[str, Any]) -> Iterator[str]:
    yield from (name for name in RULES if not name.startswith("best."))
    yield from (name for name in tree["unbroken"] if name not in RULES)


def put(path: Path, tree: dict[str, Any]) -> Path:
    def change(old: dict[str, Any]) -> None:
        old.clear()
        old.update(tree)

    return rewrite(path, change)


def test_whatever_stands_in_a_field_it_is_believed_whole_or_the_file_and_the_field_are_named(trained: Path) -> None:
    structure, refused = read_structure(trained / "t" / "iter_4.pth"), 0
    names = list(fields(structure.tree))
    for name in names:
        for value in WRONG:
            other = replace(structure, tree=with_entry(structure.tree, name, value))
            try:
                stamp = checked_stamp(other)
            except DamagedFile as error:
                refused += 1
                assert f"unbroken.{name.split('.')[0]}" in error.what, (name, value, str(error))
                assert str(structure.path) in str(error) and len(str(error)) < 1000
            else:
                assert stamp is not None and type(stamp.step) is int and type(stamp.position) is int
    assert refused > 15 * len(names)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("position", "here"),
        ("tracked", GONE),
        ("tracked", ["model", "model"]),
        ("parts", []),
        ("step", "4"),
        ("best", {"metric": "x"}),
        ("divisions", [{"step": 1}]),
        ("excluded", [3]),
        ("format", "1"),
        ("run", "mine"),
        ("", 5),
        ("parts.counters", GONE),
        ("parts.more", {}),
    ],
)
def test_a_launch_takes_the_next_older_checkpoint_and_says_what_is_wrong_with_the_newest(
    trained: Path, tmp_path: Path, name: str, value: Any
) -> None:
    folder = tmp_path / "runs"
    shutil.copytree(trained, folder, symlinks=True)
    newest = folder / "t" / "iter_4.pth"
    tree = read_checkpoint(newest)
    put(newest, with_entry(tree, name, value) if name else {**tree, "unbroken": value})
    (folder / "t" / "unbroken" / "manifests" / "iter_4.pth.json").unlink()
    seen = {item.name: item for item in look(folder / "t").candidates}
    assert seen["iter_4.pth"].state == "damaged"
    field = (
        "the state of counters" if name == "parts.counters" else f"unbroken.{name}".removesuffix(".more").rstrip(".")
    )
    assert field in seen["iter_4.pth"].reason
    assert seen["iter_2.pth"].state == "good"
    training = Training(seed=1)
    before, on_disk = training.digest(), without_locks(folder / "t")
    with pytest.raises(Exit) as refused:  # asked for by name, it is not passed over in silence
        session_of(folder, training, ckpt=newest)
    assert refused.value.code == DamagedFile.exit_code
    assert training.digest() == before and without_locks(folder / "t") == on_disk
    session(folder, training)
    assert "iter_4.pth" in " ".join(contents(folder / "t" / "archive"))


@pytest.mark.parametrize("key", ["state_dict", "optimizer", "param_schedulers"])
def test_a_checkpoint_without_one_of_its_states_is_passed_over_for_the_next_older(
    trained: Path, tmp_path: Path, key: str
) -> None:
    folder = Path(shutil.copytree(trained, tmp_path / "runs", symlinks=True))
    rewrite(folder / "t" / "iter_4.pth", lambda tree: tree.pop(key))
    (folder / "t" / "unbroken" / "manifests" / "iter_4.pth.json").unlink()
    seen = {item.name: item for item in look(folder / "t").candidates}
    assert (seen["iter_4.pth"].state, seen["iter_2.pth"].state) == ("damaged", "good")
    assert "is missing" in seen["iter_4.pth"].reason


@pytest.mark.parametrize("counter", ["x", -1, 2**63, [1], {"a": 1}])
@pytest.mark.parametrize("form", ["mmengine", "openpcdet"])
def test_a_file_of_another_program_whose_counters_are_none_is_damage(tmp_path: Path, form: str, counter: Any) -> None:
    state = {"w": torch.zeros(2)}
    tree: dict[str, Any] = {"model_state": state, "optimizer_state": {"state": {}}, "epoch": 1, "it": counter}
    if form == "mmengine":
        tree = {"state_dict": state, "optimizer": {"state": {}}, "meta": {"iter": counter}}
    torch.save(tree, tmp_path / "file.pth")
    with pytest.raises(DamagedFile, match=r"file\.pth: `(it|iter)` is no count"):
        Source(tmp_path / "file.pth", ITERATIONS)


@pytest.mark.parametrize("tree", ["x", [1], 5, torch.zeros(2), None])
def test_a_file_that_holds_no_dict_is_damage(tmp_path: Path, tree: Any) -> None:
    torch.save(tree, tmp_path / "file.pth")
    with pytest.raises(DamagedFile, match=r"file\.pth: it holds no states by name"):
        Source(tmp_path / "file.pth", ITERATIONS)


def session_of(folder: Path, training: Training, **asked: Any) -> None:
    with open_run(folder, tag="t", save_every=2, **asked) as run:
        run.track(**training.parts())
        for _ in run.batches(dataset(), batch_size=4, steps=8):
            training.step()
            run.end_step(loss=1.0)
