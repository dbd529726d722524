from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from unbroken.checkpoint.describe import describe, summary
from unbroken.checkpoint.structure import read_structure


def described(path: Path) -> dict[str, Any]:
    result = describe(read_structure(path))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    return result


def described_pickle(tmp_path: Path, data: bytes) -> dict[str, Any]:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data)
    return described(path)


def test_a_checkpoint_is_described_in_full(torch_file: Path) -> None:
    found = described(torch_file)
    assert found["format"] == f"torch {torch_file.stem}"
    assert found["kind"] == "OpenPCDet checkpoint"
    assert (found["step"], found["epoch"]) == (120, 3)
    assert found["keys"]["epoch"] == "3"
    assert found["keys"]["plain"] == "dict of 4: size, dtype, device, n"
    assert found["model"] == {"tensors": 9, "parameters_and_buffers": 57 + 6 + 7 + 10}
    rows = {row["name"]: row for row in found["tensors"]}
    assert rows["model_state.0.weight"] == {
        "name": "model_state.0.weight",
        "shape": [3, 2, 3, 3],
        "dtype": "float32",
        "bytes": 216,
    }
    assert rows["odd.bfloat16"]["bytes"] == 12
    assert rows["odd.zero_dim"]["shape"] == []
    optimizer = found["optimizer"]
    assert optimizer["parameters_with_state"] == 6
    assert optimizer["state_names"] == ["step", "exp_avg", "exp_avg_sq"]
    assert optimizer["groups"][0]["lr"] == 1e-3
    assert optimizer["groups"][0]["params"] == 6
    assert found["foreign"] == []


def test_the_files_of_mmengine_are_described(mmengine: Path) -> None:
    found = described(mmengine / "iter_20.pth")
    assert found["kind"] == "MMEngine checkpoint"
    assert found["step"] == 20
    foreign = {row["class"]: row["count"] for row in found["foreign"]}
    assert foreign["mmengine.logging.history_buffer.HistoryBuffer"] == 12
    assert len(found["tensors"]) == 451
    assert described(mmengine / "best_mIoU_iter_10.pth")["optimizer"] is None


def test_a_file_that_is_not_a_dict_is_described(tmp_path: Path) -> None:
    torch.save([torch.ones(2), 5], tmp_path / "a.pth")
    found = described(tmp_path / "a.pth")
    assert found["keys"] == {"": "list of 2"}
    assert [row["name"] for row in found["tensors"]] == ["0"]


def test_our_own_entry_is_shown(tmp_path: Path) -> None:
    own = {"format": 1, "kind": "weights", "step": 3, "metrics": {"loss": float("nan")}, "best": None}
    torch.save({"unbroken": own, "state_dict": {"w": torch.ones(2)}}, tmp_path / "a.pth")
    found = described(tmp_path / "a.pth")
    assert found["unbroken"] == own | {"metrics": {"loss": "nan"}}
    assert found["metrics"] == {"loss": "nan"}


@pytest.mark.parametrize(
    ("value", "phrase"),
    [
        (torch.float16, "torch.float16"),
        (torch.device("cpu"), "'cpu'"),
        (b"abc", "3 bytes"),
        ({1, 2}, "set of 2"),
        ("x\x1b[31mred\n", "'x�[31mred�'"),
        ("x" * 500, "'" + "x" * 119 + "…'"),
        (2**70, str(2**70)),
        (1 + 2j, "(1+2j)"),
        (Path("x"), "pathlib.PosixPath (kept shut)"),
        (torch.zeros(()), "tensor float32 scalar"),
        (torch.zeros(2, 3), "tensor float32 2x3"),
    ],
)
def test_each_kind_of_value_has_a_short_phrase(tmp_path: Path, value: object, phrase: str) -> None:
    torch.save({"v": value}, tmp_path / "a.pth")
    structure = read_structure(tmp_path / "a.pth")
    assert summary(structure.tree["v"]) == phrase
    assert describe(structure)["keys"] == {"v": phrase}


def test_strange_trees_are_described_as_json(tmp_path: Path) -> None:
    strange = {
        "unbroken": {"format": 1, 2**400: [2**400, {(1, 2): {3}}], "deep": [[[[[[[1]]]]]]]},
        "optimizer": {"param_groups": [{"params": 3, "lr": float("inf")}, 5], "state": {0: 1}},
        b"\xff": None,
        None: "\ud800",
        1.5: slice(1, 2),
    }
    found = described_pickle(tmp_path, pickle.dumps(strange, 4))
    assert found["optimizer"]["groups"][0]["lr"] == "inf"
    assert found["keys"]["None"] == "'�'"
    for odd in (
        {"optimizer": {"param_groups": 3}},
        {"optimizer": {"state": [1]}},
        {"optimizer": [1]},
        5,
        None,
    ):
        described_pickle(tmp_path, pickle.dumps(odd))


def test_objects_inside_of_one_another_are_counted_once_each(tmp_path: Path) -> None:
    data = b"(cm\nA\n)Rq\x00}X\x01\x00\x00\x00ah\x00sbh\x00cm\nB\n(h\x00tRt."
    found = described_pickle(tmp_path, data)
    assert [(row["class"], row["count"]) for row in found["foreign"]] == [("m.A", 1), ("m.B", 1)]
