"""A run that begins with the weights of a file: what is copied, what is said and recorded, and what is refused."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.unbroken.train.weight_files import (
    KNOWN,
    RUN,
    Classifier,
    mmengine,
    new_classifier,
    same,
    saved,
    session,
    tune,
    weights,
    write_safetensors,
)
from unbroken.journal import read_events
from unbroken.run import read_record
from unbroken.train import preserved


@pytest.fixture(autouse=True)
def _streams_threads_and_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    with preserved():
        yield
    torch.set_num_threads(threads)


def event() -> dict[str, Any]:
    (found,) = (each for each in read_events(RUN / "unbroken" / "journal.jsonl") if each["event"] == "weights")
    return found


# -- the files of the world --------------------------------------------------------------------------------------------

SOURCES: dict[str, Callable[[dict[str, Tensor]], Path]] = {
    "a plain state_dict": lambda w: saved(OrderedDict(w)),
    "of a data-parallel model": lambda w: saved({f"module.{name}": tensor for name, tensor in w.items()}),
    "of a compiled model": lambda w: saved({f"_orig_mod.{name}": tensor for name, tensor in w.items()}),
    "under state_dict": lambda w: saved({"state_dict": w, "epoch": 3}),
    "under model": lambda w: saved({"model": w, "optimizer": {"state": {}}, "ema": {"decay": 0.9}}),
    "under model_state, legacy": lambda w: saved(
        {"epoch": 80, "it": 1920, "model_state": w, "optimizer_state": {"state": {}}},
        _use_new_zipfile_serialization=False,
    ),
    "under two keys": lambda w: saved({"model": {"state_dict": {f"module.{n}": t for n, t in w.items()}}}),
    "MMEngine's best": lambda w: saved(mmengine(w)),
    "safetensors": lambda w: write_safetensors(Path("file.safetensors"), w, {"format": "pt"}),
}


@pytest.mark.parametrize("form", SOURCES)
def test_every_form_of_file_gives_its_weights_bit_for_bit(form: str) -> None:
    given = weights()
    code, said, began = tune(SOURCES[form](given), strict=True)
    assert code == 0, said
    assert same(began, given)
    assert "9 of 9 tensors loaded" in said
    assert event()["counts"] == {"loaded": 9, "by class name": 0, "missing": 0, "misfit": 0, "unused": 0}


def test_a_full_checkpoint_and_best_weights_of_ours_are_taken(tmp_path: Path) -> None:
    assert session(tmp_path / "first", saved(weights()), steps=4, save_every=2)[0] == 0
    file = tmp_path / "first" / "tuned" / "iter_4.pth"
    theirs = torch.load(file, weights_only=True)
    code, said, began = tune(file, names=("roof", "water"))
    assert code == 0, said
    assert torch.equal(began["head.weight"], theirs["state_dict"]["head.weight"][[3, 0]])
    assert "by class name: roof, water (2 of 2 rows); only in the file: road, forest" in said
    assert "beside the weights, not read: " in said and "optimizer" in said
    parent = json.loads((RUN / "unbroken" / "run.json").read_text())["parent"]
    record = read_record(file.parent)
    assert record is not None
    assert parent == {
        "file": str(file),
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "size_bytes": file.stat().st_size,
        "written_by": "unbroken checkpoint",
        "step": 4,
        "run": record.id,
        "tag": "tuned",
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_converted_and_that_is_said(dtype: torch.dtype) -> None:
    half = {name: tensor.to(dtype) for name, tensor in weights().items()}  # the counter of batches too
    code, said, began = tune(saved({"model": half}))
    assert code == 0, said
    assert all(torch.equal(began[name], tensor.to(began[name].dtype)) for name, tensor in half.items())
    kind = str(dtype).removeprefix("torch.")
    assert f"converted: 8 tensors from {kind} to float32" in said
    assert f"converted: 8 tensors from {kind} to float32" in event()["notes"]


def test_the_original_path_stays_as_typed_and_a_number_in_a_strangers_name_is_no_step() -> None:
    Path("nets").mkdir()
    file = write_safetensors(Path("nets/resnet50.safetensors"), weights())
    assert tune(Path("nets/../nets/resnet50.safetensors"))[0] == 0
    record = read_record(RUN)
    assert record is not None and record.parent is not None
    assert record.parent["file"] == "nets/../nets/resnet50.safetensors"
    assert record.parent["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert (record.parent["step"], record.parent["run"]) == (None, "")


def test_a_file_in_the_runs_own_folder_is_digested_before_a_fresh_start_moves_it() -> None:
    assert tune(saved(weights()), steps=4, save_every=2)[0] == 0
    file = RUN / "iter_4.pth"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    code, said, _ = tune(file, fresh=True)
    assert code == 0, said
    record = read_record(RUN)
    assert record is not None and record.parent is not None
    assert (record.parent["sha256"], record.parent["file"]) == (digest, str(file))
    assert [hashlib.sha256(path.read_bytes()).hexdigest() for path in RUN.glob("archive/*/iter_4.pth")] == [digest]


def test_before_the_first_save_another_file_becomes_the_parent() -> None:
    assert tune(saved(weights(), "one.pth"))[0] == 0
    for path in RUN.glob("*.pth"):
        path.unlink()
    lines = (RUN / "unbroken" / "journal.jsonl").read_text().splitlines(keepends=True)
    (RUN / "unbroken" / "journal.jsonl").write_text(lines[0])  # as a kill right after the first session's beginning
    shutil.rmtree(RUN / "unbroken" / "manifests")
    before = read_record(RUN)
    assert tune(saved(weights(seed=8), "two.pth"))[0] == 0
    after = read_record(RUN)
    assert before is not None and after is not None and after.parent is not None
    assert (after.id, after.parent["file"]) == (before.id, "two.pth")


def test_once_the_run_has_its_own_history_the_same_command_resumes() -> None:
    file = saved(weights())
    assert tune(file, strict=True)[0] == 0
    code, said, _ = tune(file, strict=True)
    assert code == 0 and "was for the first launch only: this run has its own history" in said
    assert event()["file"] == "file.pth", "only the first launch took them"


# -- classes by name ---------------------------------------------------------------------------------------------------

LISTS = {
    "reordered": ("roof", "water", "forest", "road"),
    "fewer": ("forest", "water"),
    "more": ("playground", "roof", "forest", "road", "water", "barren"),
    "as many, others": ("water", "playground", "barren", "road"),
}


@pytest.mark.parametrize("names", LISTS.values(), ids=LISTS)
def test_rows_of_known_classes_are_the_files_and_all_else_is_as_new(names: tuple[str, ...]) -> None:
    given = weights()
    code, said, began = tune(saved(mmengine(given)), names=names)
    assert code == 0, said
    new = new_classifier(len(names))
    for row, name in enumerate(names):
        for tensor in ("head.weight", "head.bias"):
            expected = given[tensor][KNOWN.index(name)] if name in KNOWN else new[tensor][row]
            assert torch.equal(began[tensor][row], expected), (tensor, name)
    assert all(torch.equal(began[name], given[name]) for name in given if not name.startswith("head."))
    assert "7 of 9 tensors loaded" in said
    assert event()["classes"] == {
        "taken": [name for name in names if name in KNOWN],
        "new": [name for name in names if name not in KNOWN],
        "left": [name for name in KNOWN if name not in names],
    }


def test_what_is_said_of_classes() -> None:
    _, said, _ = tune(saved(mmengine(weights())), names=LISTS["as many, others"])
    at = said.splitlines().index("load weights from file.pth")
    assert said.splitlines()[at + 1 : at + 8] == [
        "  7 of 9 tensors loaded",
        "    by class name  2  rows of the classes that both know",
        "  by class name: water, road (2 of 4 rows); new here: playground, barren; only in the file: forest, roof",
        "  group          tensor       model   file    why",
        "  by class name  head.weight  [4, 5]  [4, 5]",
        "  by class name  head.bias    [4]     [4]",
        "  beside the weights, not read: message_hub",
    ]


def test_without_names_equal_numbers_are_taken_in_order_and_others_are_a_misfit() -> None:
    given = weights()
    _, said, began = tune(saved(given), names=("a", "b", "c", "d"))
    assert torch.equal(began["head.weight"], given["head.weight"])
    assert "the rows of the 4 classes are taken in their order: the file names no classes" in said
    code, said, began = session(Path("others"), saved(given), names=("a", "b"))
    assert code == 0 and same({"w": began["head.weight"]}, {"w": new_classifier(2)["head.weight"]})
    assert "2 classes here, 4 in the file, and the file names no classes" in said


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (("water", "road", "forest"), "the file names 3 classes for 4 rows"),
        (("water", "road", "road", "roof"), "a class is named twice"),
    ],
)
def test_names_that_do_not_tell_the_rows_are_not_believed(theirs: tuple[str, ...], why: str) -> None:
    given = weights()
    _, said, began = tune(saved(mmengine(given, theirs)), names=("roof", "forest", "road", "water"))
    assert torch.equal(began["head.weight"], given["head.weight"])
    assert f"are taken in their order: {why}" in said


def test_no_class_in_common_leaves_the_head_as_new() -> None:
    _, said, began = tune(saved(mmengine(weights())), names=("a", "b", "c", "d"))
    assert torch.equal(began["head.weight"], new_classifier(4)["head.weight"])
    assert "no class in common with the file (water, road, forest, roof)" in said


# -- the report --------------------------------------------------------------------------------------------------------


def test_the_report_counts_first_then_names_the_first_few_and_the_journal_has_all() -> None:
    given = weights()
    del given["body.0.bias"]
    given["body.0.weight"] = torch.ones(7, 3)
    given |= {f"auxiliary.{number}": torch.ones(number) for number in range(9)}
    code, said, began = tune(saved(given))
    assert code == 0
    at = said.splitlines().index("load weights from file.pth")
    assert said.splitlines()[at + 1 : at + 15] == [
        "  7 of 9 tensors loaded",
        "    missing  1  not in the file: keep their initial values",
        "    misfit   1  in both, but differ: keep their initial values",
        "    unused   9  not in the model: left out",
        "  the rows of the 4 classes are taken in their order: the file names no classes",
        "  group    tensor         model   file    why",
        "  missing  body.0.bias    [5]     -",
        "  misfit   body.0.weight  [5, 3]  [7, 3]  another shape",
        *(f"  unused   auxiliary.{number}    -       [{number}]" for number in range(6)),
    ]
    assert "  unused   and 3 more" in said
    found = event()
    assert [each["name"] for each in found["unused"]] == [f"auxiliary.{number}" for number in range(9)]
    assert found["misfit"] == [
        {
            "name": "body.0.weight",
            "model": [5, 3],
            "file": [7, 3],
            "reason": "another shape: keeps its initial values",
        }
    ]
    assert [each["name"] for each in found["missing"]] == ["body.0.bias"]
    new = new_classifier(4)
    assert all(torch.equal(began[name], new[name]) for name in ("body.0.bias", "body.0.weight"))


def test_values_of_another_kind_do_not_pass_for_weights() -> None:
    given = weights() | {"body.0.weight": torch.ones(5, 3, dtype=torch.int8)}
    _, said, began = tune(saved(given))
    assert "misfit  body.0.weight  [5, 3]  [5, 3]  float32 here, int8 in the file" in said
    assert torch.equal(began["body.0.weight"], new_classifier(4)["body.0.weight"])


def test_weights_that_are_not_numbers_are_warned_of() -> None:
    given = weights()
    given["body.0.weight"][0, 0] = float("nan")
    assert "warning: 1 tensor with NaN or infinity, first body.0.weight" in tune(saved(given))[1]


class Tied(Classifier):
    """Two names for one tensor."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)
        self.twin = nn.Linear(5, classes)
        self.twin.weight = self.head.weight


def test_tied_weights_that_a_file_keeps_once_are_not_missing() -> None:
    given = weights() | {"twin.bias": torch.zeros(4)}
    code, said, began = tune(write_safetensors(Path("tied.safetensors"), given), make=Tied, strict=True)
    assert code == 0, said
    assert torch.equal(began["twin.weight"], given["head.weight"])


class Holder(nn.Module):
    """A network that really has a child called `module`."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.module, self.other = Classifier(classes), nn.Linear(1, 1)

    def forward(self, x_N3: Tensor) -> Tensor:
        found: Tensor = self.module(x_N3)
        return found


def test_a_child_called_module_is_no_wrapper() -> None:
    torch.manual_seed(5)
    given = Holder(4).state_dict()
    code, said, began = tune(saved(given), make=Holder, strict=True)
    assert code == 0, said
    assert same(began, given)


def test_a_wrapped_model_takes_the_weights_of_a_bare_one() -> None:
    given = weights()
    _, _, began = tune(saved(given), make=lambda classes: nn.DataParallel(Classifier(classes)))
    assert same({name.removeprefix("module."): tensor for name, tensor in began.items()}, given)
