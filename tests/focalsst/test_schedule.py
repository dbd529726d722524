"""The one-cycle schedule: known values bit for bit, saved and continued, counted in optimizer steps."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import pytest
import torch
from torch.optim import AdamW

from focalsst.schedule import OneCycle, OneCycleSchedule, optimizer_steps
from unbroken import Extension
from unbroken.errors import ConfigError, Incompatible

GUIDE = OneCycle(horizon=2400, lr=5e-4)
SHORT = OneCycle(horizon=20, lr=1e-3)
EXTENSION = Extension(policy="rewarm", seam=20, total=60, warmup_steps=4, cycle_steps=60, lr=1e-8)


def rates_of(cycle, steps):
    """The rates of the first steps: entry t is used after t steps were taken."""
    return [cycle.lr_at(step) for step in range(steps)]


def adam(groups: int = 2) -> AdamW:
    return AdamW([{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)], betas=(0.5, 0.99))


def settings(optimizer: AdamW) -> list[tuple[float, tuple[float, float]]]:
    return [(group["lr"], group["betas"]) for group in optimizer.param_groups]


@pytest.mark.parametrize(
    ("step", "lr", "momentum"),
    [
        (0, 5.000000000000002e-05, 0.95),
        (480, 0.000275, 0.8999999999999999),
        (960, 0.0005, 0.85),
        (1680, 0.00025000250000000004, 0.8999999999999999),
        (2399, 5.5949497124855315e-09, 0.9499998810088676),
        (2400, 5e-09, 0.95),
    ],
)
def test_known_values_are_met_bit_for_bit(step, lr, momentum):
    assert (GUIDE.lr_at(step), GUIDE.momentum_at(step)) == (lr, momentum)


@pytest.mark.parametrize(
    ("step", "lr", "momentum"),
    [(0, 5.0e-5, 0.95), (480, 2.75e-4, 0.90), (960, 5e-4, 0.85), (1680, 2.5e-4, 0.90), (2399, 5.6e-9, 0.95)],
)
def test_the_published_table_is_met_in_all_its_digits(step, lr, momentum):
    assert f"{GUIDE.lr_at(step):.1e}" == f"{lr:.1e}"
    assert GUIDE.lr_at(step) == pytest.approx(lr, rel=2e-3)
    assert GUIDE.momentum_at(step) == pytest.approx(momentum, abs=2e-7)


def test_the_rate_never_rises_after_the_peak_nor_past_the_horizon():
    rates = rates_of(GUIDE, 3500)
    assert rates[:961] == sorted(rates[:961])
    assert rates[960:] == sorted(rates[960:], reverse=True)
    assert set(rates[2400:]) == {5e-9}
    assert GUIDE.momentum_at(3000) == 0.95


def test_momentum_mirrors_the_rate():
    for step in range(2400):
        height = (GUIDE.lr_at(step) - 5e-5) / (5e-4 - 5e-5) if step <= 960 else GUIDE.lr_at(step) / 5e-4
        assert (0.95 - GUIDE.momentum_at(step)) / 0.1 == pytest.approx(height, abs=2e-5)


@pytest.mark.parametrize("pct", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("horizon", [1, 2, 3, 7])
def test_the_shortest_cycles_have_values_at_every_step(horizon, pct):
    cycle = OneCycle(horizon=horizon, lr=1.0, pct_start=pct)
    rates = rates_of(cycle, horizon + 2)
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[horizon:] == [1 / 10 / 1e4] * 2
    if cycle.peak < horizon:
        assert rates[cycle.peak] == 1.0


def test_the_open_schedule_sets_what_the_preview_says_in_every_group():
    optimizer = adam()
    schedule = OneCycleSchedule(optimizer, SHORT)
    seen = []
    for _ in range(25):
        seen.append(settings(optimizer))
        schedule.step()
    expected = [(SHORT.lr_at(t), (SHORT.momentum_at(t), 0.99)) for t in range(25)]
    assert seen == [[pair, pair] for pair in expected]
    assert [lr for (lr, _), _ in seen] == rates_of(SHORT, 25)
    assert schedule.taken == 25


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 19, 20, 23])
def test_saved_and_loaded_at_any_step_it_goes_on_as_if_never_cut(cut):
    whole, first, second = adam(), adam(), adam()
    uncut, before = OneCycleSchedule(whole, SHORT), OneCycleSchedule(first, SHORT)
    for _ in range(cut):
        uncut.step()
        before.step()
    after = OneCycleSchedule(second, OneCycle(horizon=99, lr=5.0))  # the saved cycle is restored, not this one
    second.load_state_dict(first.state_dict())
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    assert not after.follows_config
    assert after.cycle == SHORT
    for _ in range(10):
        assert settings(second) == settings(whole)
        assert after.state_dict() == uncut.state_dict()
        uncut.step()
        after.step()


def test_a_changed_cycle_is_rebuilt_at_the_step_of_the_present_config():
    longer = OneCycle(horizon=60, lr=2e-3, moms=(0.9, 0.8))
    old, optimizer = adam(), adam()
    before = OneCycleSchedule(old, SHORT)
    for _ in range(10):
        before.step()
    after = OneCycleSchedule(optimizer, longer)
    assert after.follows_config
    after.load_state_dict(before.state_dict())
    after.rebuild_at(10)
    assert after.follows_config
    assert after.taken == 10
    seen = []
    for _ in range(5):
        seen.append(settings(optimizer)[0])
        after.step()
    assert seen == [(longer.lr_at(t), (longer.momentum_at(t), 0.99)) for t in range(10, 15)]


@pytest.mark.parametrize("cut", [20, 22, 24, 40])
def test_an_extended_schedule_saved_and_loaded_goes_on_as_if_never_cut(cut):
    longer = OneCycle(horizon=60, lr=1e-3)
    whole, second = adam(), adam()
    uncut = OneCycleSchedule(whole, longer)
    uncut.load_state_dict(OneCycleSchedule(adam(), SHORT).state_dict() | {"taken": 20})
    uncut.rebuild_at(20, EXTENSION)
    for _ in range(cut - 20):
        uncut.step()
    after = OneCycleSchedule(second, longer)
    after.load_state_dict(json.loads(json.dumps(uncut.state_dict())))
    assert (after.extension, after.follows_config) == (EXTENSION, True)
    for _ in range(30):
        assert settings(second) == settings(whole)
        uncut.step()
        after.step()
    after.rebuild_at(50)
    assert after.extension is None and settings(second)[0] == (longer.lr_at(50), (longer.momentum_at(50), 0.99))


@pytest.mark.parametrize(
    "change",
    [
        {"type": "OneCycleLR"},
        {"taken": -1},
        {"taken": 1.5},
        {"horizon": 0},
        {"lr": "fast"},
        {"lr": math.nan},
        {"moms": [0.95]},
        {"moms": 0.9},
        {"pct_start": 1.5},
        {"last_epoch": 3},
        {"extension": {}},
        {"extension": {"by": EXTENSION.as_plain(), "lr": [0.1], "momentum": [0.9, 0.9]}},
        {"extension": {"by": {"policy": "faster"}, "lr": [0.1, 0.1], "momentum": [0.9, 0.9]}},
    ],
)
def test_a_state_that_cannot_be_continued_is_refused_and_changes_nothing(change):
    optimizer = adam()
    schedule = OneCycleSchedule(optimizer, SHORT)
    schedule.step()
    before, rates = schedule.state_dict(), settings(optimizer)
    for broken in (before | change, [before], {}):
        with pytest.raises(Incompatible):
            schedule.load_state_dict(broken)
    assert (schedule.state_dict(), settings(optimizer)) == (before, rates)


@pytest.mark.parametrize(
    ("batches", "epochs", "accumulate", "steps"),
    [(100, 24, 1, 2400), (100, 24, 4, 600), (100, 3, 8, 39), (5, 2, 4, 4), (3, 2, 10, 2)],
)
def test_the_horizon_counts_optimizer_steps(batches, epochs, accumulate, steps):
    assert optimizer_steps(batches=batches, epochs=epochs, accumulate=accumulate) == steps


def test_accumulating_walks_the_whole_cycle_in_fewer_steps():
    steps = optimizer_steps(batches=100, epochs=24, accumulate=4)
    cycle = OneCycle(horizon=steps, lr=5e-4)
    assert cycle.lr_at(cycle.peak) == 5e-4
    assert cycle.lr_at(steps - 1) < 1.5e-8


@pytest.mark.parametrize(
    "faulty",
    [
        lambda: OneCycle(horizon=0, lr=1.0),
        lambda: OneCycle(horizon=5, lr=0.0),
        lambda: OneCycle(horizon=5, lr=math.nan),
        lambda: OneCycle(horizon=5, lr=1.0, moms=(0.9, 1.0)),
        lambda: OneCycle(horizon=5, lr=1.0, div_factor=0.0),
        lambda: OneCycle(horizon=5, lr=1.0, pct_start=-0.1),
        lambda: optimizer_steps(batches=0, epochs=1, accumulate=1),
        lambda: optimizer_steps(batches=1, epochs=1, accumulate=0),
    ],
)
def test_impossible_cycles_are_refused(faulty):
    with pytest.raises(ConfigError):
        faulty()


def test_a_preview_of_rates_loads_no_torch_and_no_numpy():
    check = "import sys, focalsst.schedule; sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
