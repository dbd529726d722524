from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest
import torch

MMENGINE = Path(__file__).resolve().parents[3].parent / "shared" / "fixtures" / "mmengine"


@pytest.fixture
def mmengine() -> Path:
    if not MMENGINE.is_dir():
        pytest.skip("the files that MMEngine wrote are not beside this checkout")
    return MMENGINE


def torch_tree() -> dict[str, Any]:
    """Everything a torch file can hold that a checkpoint might."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.Linear(4, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    shared = torch.arange(24, dtype=torch.float32)
    odd = {
        "bfloat16": torch.randn(3, 2).to(torch.bfloat16),
        "float16": torch.randn(3).half(),
        "float64": torch.randn(3, dtype=torch.float64),
        "int8": torch.tensor([-1, 2, 3], dtype=torch.int8),
        "uint8": torch.tensor([1, 255], dtype=torch.uint8),
        "int16": torch.tensor([-5, 7], dtype=torch.int16),
        "uint16": torch.tensor([5, 65535], dtype=torch.uint16),
        "float8": torch.randn(4).to(torch.float8_e4m3fn),
        "bool": torch.tensor([True, False, True]),
        "complex64": torch.randn(2, 2, dtype=torch.complex64),
        "complex128": torch.randn(2, dtype=torch.complex128),
        "zero_dim": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "transposed": torch.arange(6.0).reshape(2, 3).t(),
        "expanded": torch.arange(3.0).expand(2, 3),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "shared_head": shared[:6],
        "shared_tail": shared[20:].reshape(2, 2),
        "strided": shared[1::5],
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "frozen": torch.nn.Parameter(torch.randn(2), requires_grad=False),
        "with_grad": torch.randn(2, requires_grad=True),
    }
    return {
        "model_state": model.state_dict(),
        "optimizer_state": optimizer.state_dict(),
        "odd": odd,
        "plain": {
            "size": torch.Size([2, 3]),
            "dtype": torch.float16,
            "device": torch.device("cpu"),
            "n": None,
        },
        "ordered": collections.OrderedDict(a=1, b=[1.5, "x", (True, b"y")]),
        "epoch": 3,
        "it": 120,
    }


@pytest.fixture(params=["zip", "legacy"])
def torch_file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"{request.param}.pth"
    tree = torch_tree()
    if request.param == "legacy":  # torch writes these dtypes in its legacy form, but cannot read them again
        tree["odd"] = {name: t for name, t in tree["odd"].items() if name not in ("uint16", "float8")}
    torch.save(tree, path, _use_new_zipfile_serialization=request.param == "zip")
    return path
