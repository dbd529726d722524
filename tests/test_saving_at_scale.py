"""The arithmetic of `docs/saving-at-scale.md`: what real checkpoints hold, and intervals that nothing beats."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from docs.scale import BETWEEN_S, COSTS_S, TABLES, TRAININGS, Training, lost_share, with_tables

from unbroken import open_run
from unbroken.launch.forecast import best_interval_s

Optimizer = Callable[[torch.nn.Module], torch.optim.Optimizer]


def adam(net: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(net.parameters())


# The types of the weights and of their master copy, if there is one, which the optimizer then steps.
REAL: dict[str, tuple[torch.dtype, torch.dtype | None, Optimizer]] = {
    "fp32, SGD with momentum": (
        torch.float32,
        None,
        lambda net: torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9),
    ),
    "fp32, AdamW": (torch.float32, None, adam),
    "bf16 with fp32 master weights, AdamW": (torch.bfloat16, torch.float32, adam),
    "bf16 alone, AdamW": (torch.bfloat16, None, adam),
}


@pytest.mark.parametrize("training", TRAININGS, ids=lambda each: each.english)
def test_a_real_checkpoint_has_so_many_bytes_per_parameter(tmp_path: Path, training: Training) -> None:
    dtype, master_dtype, optimizer_of = REAL[training.english]
    model = torch.nn.Linear(700, 700).to(dtype)
    stepped = copy.deepcopy(model).to(master_dtype) if master_dtype else model
    optimizer = optimizer_of(stepped)
    with open_run(tmp_path, tag="t") as run:
        run.track(model=model, optimizer=optimizer, **({} if stepped is model else {"master": stepped}))
        for x in run.batches([torch.ones(700, dtype=dtype)] * 2, batch_size=2, epochs=1):
            model(x).square().mean().backward()
            for weight, copied in zip(model.parameters(), stepped.parameters()):
                assert weight.grad is not None
                copied.grad = weight.grad.to(copied.dtype)
            optimizer.step()
            model.load_state_dict(stepped.state_dict())
            optimizer.zero_grad()
            model.zero_grad()
    size = (tmp_path / "t" / "iter_1.pth").stat().st_size
    parameters = sum(each.numel() for each in model.parameters())
    assert training.bytes_each <= size / parameters < training.bytes_each + 0.1


@pytest.mark.parametrize("between_s", BETWEEN_S)
@pytest.mark.parametrize("cost_s", COSTS_S)
def test_no_other_interval_loses_less(cost_s: float, between_s: float) -> None:
    best_s = best_interval_s(cost_s, between_s)
    least = lost_share(cost_s, best_s, between_s)
    assert all(lost_share(cost_s, best_s * factor, between_s) > least for factor in (0.5, 0.7, 1.5, 2.0))


@pytest.mark.parametrize("chinese", [False, True])
def test_the_tables_say_what_can_be_reckoned_by_hand(chinese: bool) -> None:
    assert [row for row in TABLES["per_rank"](chinese) if row[0] == "7 B"] == [
        ["7 B", "98.0 GB", "12.2 GB", "1.5 GB", "382.8 MB", "95.7 MB"]
    ]
    assert TABLES["write_time"](chinese)[1] == ["1 B", "70 s", "14 s", "2.8 s", "0.28 s"]
    page = "before\n<!-- table per_parameter -->\nold\n<!-- end -->\nafter\n"
    lines = with_tables(page, chinese=chinese).splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines and len(lines) == 4 + 2 + len(TRAININGS)
