"""On an accelerator the bits are the same only with deterministic algorithms: every launch without them says so.

There is no accelerator where these tests run. Which device counts is asked of the tracked tensors; torch's own fake
tensors have a GPU for a device without one being there, as far as an optimizer's step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from unbroken.errors import UsageError
from unbroken.train import open_run
from unbroken.train.device import accelerators_of, exactness_lines, pick_device

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    torch.use_deterministic_algorithms(before)


@pytest.mark.parametrize("device", [GPU, torch.device("cuda", 3), torch.device("mps"), torch.device("xpu", 0)], ids=str)
def test_each_accelerator_needs_deterministic_algorithms(device: torch.device) -> None:
    (line,) = exactness_lines([device], deterministic=False, do="--deterministic")
    assert f"not bit for bit on {device}" in line and "--deterministic makes them equal" in line
    assert exactness_lines([device], deterministic=True, do="--deterministic") == []
    assert exactness_lines([], deterministic=False, do="--deterministic") == []


class OnTheGpu(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with FakeTensorMode():
            self.weight = nn.Parameter(torch.empty(2, device=GPU))


def test_the_devices_are_those_of_all_that_is_tracked() -> None:
    on_cpu, on_meta = nn.Linear(2, 1), nn.Linear(2, 1, device="meta")
    tracked = {"model": on_cpu, "shapes": on_meta, "seen": 3, "optimizer": torch.optim.SGD(on_cpu.parameters(), lr=0.1)}
    assert accelerators_of(tracked) == []
    assert accelerators_of(tracked | {"critic": OnTheGpu(), "again": OnTheGpu()}) == [GPU]
    assert accelerators_of({"average": OnTheGpu().weight}) == [GPU]


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")  # the size of a save is asked
@pytest.mark.parametrize(("model", "deterministic", "said"), [
    (OnTheGpu, False, True), (OnTheGpu, True, False), (lambda: nn.Linear(2, 1), False, False),
])  # fmt: skip
def test_a_loop_says_it_once_before_its_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: type[nn.Module], deterministic: bool, said: bool
) -> None:
    torch.use_deterministic_algorithms(deterministic)
    with (
        pytest.raises(KeyboardInterrupt),
        open_run(tmp_path, tag="gpu", session_s=float("inf"), search=()) as run,
    ):
        run.track(model=model())
        for _batch in run.batches([torch.zeros(2)] * 4, batch_size=2, steps=2):
            raise KeyboardInterrupt
    printed = capsys.readouterr().out
    words = "torch.use_deterministic_algorithms(True) before the loop makes them equal"
    assert printed.count("not bit for bit on cuda:0") == printed.count(words) == int(said)
    (log,) = (tmp_path / "gpu").glob("2*/*.log")
    assert log.read_text("utf-8").count("not bit for bit on cuda:0") == int(said)


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU that is asked for is not there")
@pytest.mark.parametrize(
    ("deterministic", "chosen", "then"),
    [(True, None, ":4096:8"), (True, ":16:8", ":16:8"), (False, None, None), (False, ":16:8", ":16:8")],
)
def test_deterministic_asks_cublas_before_the_gpu_is_used_unless_the_user_did(
    monkeypatch: pytest.MonkeyPatch, deterministic: bool, chosen: str | None, then: str | None
) -> None:
    name = "CUBLAS_WORKSPACE_CONFIG"
    monkeypatch.setenv(name, chosen or "")
    if chosen is None:
        monkeypatch.delenv(name)
    with pytest.raises(UsageError, match="no GPU"):
        pick_device("cuda", deterministic=deterministic)
    assert os.environ.get(name) == then


def test_deterministic_is_what_the_option_asks_of_torch() -> None:
    for wanted in (True, False):
        assert pick_device("cpu", deterministic=wanted) == CPU
        assert torch.are_deterministic_algorithms_enabled() is wanted


def test_what_is_so_already_is_not_asked_of_torch_which_would_load_its_compiler_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[bool] = []
    real = torch.use_deterministic_algorithms
    monkeypatch.setattr(
        torch,
        "use_deterministic_algorithms",
        lambda mode, *, warn_only: (asked.append(mode), real(mode, warn_only=True)),
    )
    for deterministic in (False, True, False, False):
        pick_device("cpu", deterministic=deterministic)
        assert torch.are_deterministic_algorithms_enabled() == deterministic
    assert asked == [True, False]
