"""A learning rate or weight decay that a script's optimizer is built with anew is that of the next steps, and said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim
from torch.optim import lr_scheduler as lr

from tests.unbroken.real_runs import rewrite
from unbroken.train import PlainConsole, open_run, read_checkpoint

STEPS, CUT = 8, 4
SCHEDULES: dict[str, Callable[[optim.Optimizer], Any]] = {
    "none": lambda _optimizer: None,
    "LambdaLR": lambda o: lr.LambdaLR(o, lambda step: 0.9**step),
    "StepLR": lambda o: lr.StepLR(o, 3, 0.5),
    "CosineAnnealingLR": lambda o: lr.CosineAnnealingLR(o, 20),
    "SequentialLR": lambda o: lr.SequentialLR(o, [lr.LinearLR(o, total_iters=3), lr.ExponentialLR(o, 0.9)], [3]),
}
Used = list[tuple[float, float]]  # rate and decay of each step


class Said(PlainConsole):
    """What a session says."""

    def __init__(self) -> None:
        self.text = ""

    def say(self, text: str) -> None:
        self.text += f"{text}\n"


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 3)


def session(
    folder: Path, built: tuple[float, float], *, schedule: str = "none", late: bool = False, until: int = STEPS
) -> tuple[Used, str]:
    """The settings that the steps of one session used, which ends after `until`, and what it said."""
    used, console, (rate, decay) = Used(), Said(), built
    with open_run(
        folder, tag="t", save_every=CUT, console=console, config={"lr": rate}, effects={"lr": "schedule"}
    ) as run:
        model = network()
        optimizer = optim.AdamW(model.parameters(), lr=rate, weight_decay=decay)
        if late:
            run.track(model=model, optimizer=optimizer)
        made = SCHEDULES[schedule](optimizer)
        tracked = {} if late else {"model": model, "optimizer": optimizer}
        run.track(**tracked, **({} if made is None else {"scheduler": made}))
        for _ in run.steps(STEPS):
            used.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]))
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            if made is not None:
                made.step()
            run.end_step()
            if run.step == until:
                break
    return used, console.text


@pytest.mark.parametrize(
    ("schedule", "late"), [*((name, False) for name in SCHEDULES), ("none", True), ("LambdaLR", True)]
)
def test_what_is_built_with_another_rate_and_decay_goes_on_with_these_where_the_schedule_is(
    tmp_path: Path, schedule: str, late: bool
) -> None:
    before, after = (0.1, 0.01), (0.01, 0.05)
    first, _ = session(tmp_path / "run", before, schedule=schedule, late=late, until=CUT)
    second, said = session(tmp_path / "run", after, schedule=schedule, late=late, until=CUT + 2)
    third, later = session(tmp_path / "run", after, schedule=schedule, late=late)
    old, new = (session(tmp_path / str(built), built, schedule=schedule)[0] for built in (before, after))
    assert first == old[:CUT]
    assert second + third == [pytest.approx(each, rel=1e-12) for each in new[CUT:]]
    assert "lr: 0.1 -> 0.01 (schedule)" in said
    assert said.count("optimizer: lr 0.1 -> 0.01, weight_decay 0.01 -> 0.05 applied") == 1
    assert "applied" not in later


def test_a_rate_that_the_loop_itself_has_lowered_stays_lowered_where_nothing_was_changed(tmp_path: Path) -> None:
    with open_run(tmp_path, tag="t", console=Said()) as run:
        model = network()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        run.track(model=model, optimizer=optimizer)
        for _ in run.steps(STEPS):
            optimizer.param_groups[0]["lr"] = 0.03
            run.end_step()
            if run.step == CUT:
                break
    with open_run(tmp_path, tag="t", console=(said := Said())) as run:
        model = network()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        run.track(model=model, optimizer=optimizer)
        assert optimizer.param_groups[0]["lr"] == 0.03
    assert "applied" not in said.text


def test_a_file_that_does_not_tell_what_its_parts_were_built_with_is_said_with_what_was_restored(
    tmp_path: Path,
) -> None:
    session(tmp_path, (0.1, 0.01), schedule="StepLR", until=CUT)
    file = tmp_path / "t" / f"iter_{CUT}.pth"

    def earlier(tree: dict[str, Any]) -> None:
        del tree["unbroken"]["built_with"]
        tree["unbroken"]["format"] = 2

    rewrite(file, earlier)
    (tmp_path / "t/unbroken/manifests" / f"{file.name}.json").unlink()
    used, said = session(tmp_path, (0.5, 0.05), schedule="StepLR", until=CUT + 1)
    assert used == [(0.05, 0.01)]
    words = "the file is of a version that did not keep what optimizer was built with: lr 0.05, weight_decay 0.01 count"
    assert said.count(words) == 1 and said.count("what scheduler was built with: its settings count") == 1, said
    _, later = session(tmp_path, (0.5, 0.05), schedule="StepLR")
    assert "did not keep" not in later and "applied" not in later


def test_the_length_of_a_schedule_stays_and_that_is_said(tmp_path: Path) -> None:
    def track(run: Any, length: int) -> Any:
        model = network()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        scheduler = lr.CosineAnnealingLR(optimizer, length)
        run.track(model=model, optimizer=optimizer, scheduler=scheduler)
        return scheduler

    with open_run(tmp_path, tag="t", console=Said()) as run:
        track(run, 10)
        for _ in run.steps(STEPS):
            run.end_step()
            if run.step == CUT:
                break
    with open_run(tmp_path, tag="t", console=(said := Said())) as run:
        assert track(run, 20).T_max == 10
    assert "scheduler: T_max 10 -> 20 is not applied" in said.text


def test_what_groups_in_another_order_were_built_with_is_compared_by_their_parameters(tmp_path: Path) -> None:
    for flipped in (False, True):
        with open_run(tmp_path, tag="t", console=(said := Said())) as run:
            model = network()
            groups = [{"params": [model.weight], "lr": 0.1}, {"params": [model.bias], "lr": 0.2}]
            optimizer = optim.SGD(groups[::-1] if flipped else groups, lr=0.1)
            run.track(model=model, optimizer=optimizer)
            for _ in run.steps(STEPS):
                run.end_step()
                if run.step == CUT:
                    break
    assert "applied" not in said.text
    saved = read_checkpoint(tmp_path / "t" / f"iter_{STEPS}.pth")["unbroken"]["built_with"]["optimizer"]
    assert [group["lr"] for group in saved] == [0.2, 0.1]


Build = Callable[[optim.Optimizer, float], Any]
OWN_RATES: dict[str, Build] = {  # schedules that say the rate themselves, whatever their optimizer was built with
    "OneCycleLR": lambda o, rate: lr.OneCycleLR(o, max_lr=rate, total_steps=20),
    "CyclicLR": lambda o, rate: lr.CyclicLR(o, base_lr=rate / 10, max_lr=rate, step_size_up=6),
    "OneCycleLR in a SequentialLR": lambda o, rate: lr.SequentialLR(
        o, [lr.LinearLR(o, total_iters=2), lr.OneCycleLR(o, max_lr=rate, total_steps=20)], [2]
    ),
    "OneCycleLR in a ChainedScheduler": lambda o, rate: lr.ChainedScheduler(
        [lr.OneCycleLR(o, max_lr=rate, total_steps=20), lr.LinearLR(o, total_iters=5)], optimizer=o
    ),
}


def rates_of(folder: Path, build: Callable[[optim.Optimizer], Any], *, late: bool, until: int = STEPS) -> Used:
    """The rate and the momentum of each step that one session takes; its schedule is tracked beside or later."""
    used = Used()
    with open_run(folder, tag="t", save_every=CUT) as run:
        model = network()
        optimizer = optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
        if late:
            run.track(model=model, optimizer=optimizer)
            run.track(scheduler=(made := build(optimizer)))
        else:
            made = build(optimizer)
            run.track(model=model, optimizer=optimizer, scheduler=made)
        for _ in run.steps(STEPS):
            used.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
            model(torch.ones(1, 3)).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            made.step()
            if run.step == until - 1:
                break
    return used


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", OWN_RATES)
def test_a_schedule_that_says_its_rates_itself_goes_on_with_other_ones_whenever_it_is_tracked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, late: bool
) -> None:
    build = OWN_RATES[name]
    whole = rates_of(tmp_path / "whole", lambda o: build(o, 0.3), late=late)
    rates_of(tmp_path / "cut", lambda o: build(o, 0.1), late=late, until=CUT)
    capsys.readouterr()
    again = rates_of(tmp_path / "cut", lambda o: build(o, 0.3), late=late)
    assert again == [pytest.approx(each) for each in whole[CUT:]]
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("optimizer: ")]
    assert len(said) == 1 and "max_lr 0.1 -> 0.3" in said[0] and "applied" in said[0], said
    same = rates_of(tmp_path / "same", lambda o: build(o, 0.3), late=late, until=CUT)
    same += rates_of(tmp_path / "same", lambda o: build(o, 0.3), late=late)
    assert same == whole and "applied" not in capsys.readouterr().out


LENGTHS: dict[str, tuple[Build, str]] = {
    "MultiStepLR": (lambda o, size: lr.MultiStepLR(o, [int(size), int(2 * size)]), "milestones"),
    "SequentialLR": (
        lambda o, size: lr.SequentialLR(o, [lr.LinearLR(o, total_iters=3), lr.CosineAnnealingLR(o, int(size))], [3]),
        "1.T_max 5 -> 7",
    ),
    "CyclicLR in a SequentialLR": (
        lambda o, size: lr.SequentialLR(o, [lr.LinearLR(o), lr.CyclicLR(o, 0.01, size, step_size_up=6)], [2]),
        "1.max_lrs [5] -> [7]",
    ),
    "ChainedScheduler": (
        lambda o, size: lr.ChainedScheduler([lr.LinearLR(o), lr.StepLR(o, int(size))], optimizer=o),
        "1.step_size 5 -> 7",
    ),
    "OneCycleLR": (lambda o, size: lr.OneCycleLR(o, 0.1, total_steps=20, pct_start=size / 20), "pct"),
    "OneCycleLR's way": (
        lambda o, size: lr.OneCycleLR(o, 0.1, 20, anneal_strategy="cos" if size > 5 else "linear"),
        "_anneal_func_type linear -> cos",
    ),
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", LENGTHS)
def test_what_else_a_schedule_is_built_with_is_said_where_it_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, late: bool
) -> None:
    build, words = LENGTHS[name]
    rates_of(tmp_path, lambda o: build(o, 5), late=late, until=CUT)
    capsys.readouterr()
    rates_of(tmp_path, lambda o: build(o, 7), late=late, until=CUT + 2)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("scheduler: ")]
    assert said and "is not applied" in said[0] and (words in said[0] or words == "pct"), said
