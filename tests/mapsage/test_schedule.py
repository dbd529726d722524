"""Learning rates equal to MMEngine's to the last bit, saved in its words, rebuilt when the config changed."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from mmengine_files import logged_rates, needs_files, structure_of
from tests.mapsage.schedules import learning_rates
from torch.optim import AdamW

from mapsage.schedule import IterationSchedule, LinearLR, PolyLR
from unbroken import Extension
from unbroken.errors import ConfigError, Incompatible

NANO = (LinearLR(end=5, start_factor=1e-6), PolyLR(begin=5, end=20))
EXTENSION = Extension(policy="rewarm", seam=20, total=60, warmup_steps=4, cycle_steps=60, lr=0.0)
GUIDE = (LinearLR(end=500, start_factor=1e-6), PolyLR(begin=500, end=20_000))


def adamw(*rates: float) -> AdamW:
    return AdamW([{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates])


def rates_of(optimizer: AdamW) -> list[float]:
    return [group["lr"] for group in optimizer.param_groups]


@needs_files
def test_the_rates_logged_by_the_real_run_are_met_bit_for_bit():
    ours = learning_rates(1e-3, NANO, 20)
    logged = logged_rates()
    assert len(logged) == 4
    assert {iteration: ours[iteration - 1] for iteration in logged} == logged


def test_known_rates_of_the_nano_run_are_met_bit_for_bit():
    ours = learning_rates(1e-3, NANO, 20)
    assert (ours[4], ours[9], ours[10]) == (
        0.0009999999999999998,
        0.0007142857142857142,
        0.0006428571428571428,
    )
    assert (ours[14], ours[19]) == (0.0003571428571428571, 0.0)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (0, 1e-11),
        (1, 2.0050060e-8),
        (498, 9.97996e-6),
        (499, 1e-5),
        (500, 1e-5),
        (501, 9.999487e-6),
        (10_250, 4.999744e-6),
        (19_998, 5.12847e-10),
        (19_999, 0.0),
    ],
)
def test_the_guides_schedule_has_the_known_values(step, rate):
    assert learning_rates(1e-5, GUIDE, 20_000)[step] == pytest.approx(rate, rel=1e-6, abs=0)


def test_the_chain_follows_the_closed_formulas():
    phases = (LinearLR(begin=0, end=10, start_factor=0.1), PolyLR(begin=10, end=110, power=0.9, eta_min=1e-4))
    ours = learning_rates(0.01, phases, 150)
    for step in range(10):
        assert ours[step] == pytest.approx(0.01 * (0.1 + 0.9 * step / 9), rel=1e-12)
    for step in range(10, 110):
        share = (99 - (step - 10)) / 99
        assert ours[step] == pytest.approx(1e-4 + (0.01 - 1e-4) * share**0.9, rel=1e-9)
    assert set(ours[110:]) == {ours[109]}


def test_the_open_schedule_sets_what_the_preview_says_for_every_group():
    optimizer = adamw(1e-3, 1e-2)
    schedule = IterationSchedule(optimizer, NANO)
    seen = []
    for _ in range(25):
        seen.append(rates_of(optimizer))
        schedule.step()
    assert seen == [list(pair) for pair in zip(*(learning_rates(base, NANO, 25) for base in (1e-3, 1e-2)))]
    assert schedule.taken == 25


@needs_files
@pytest.mark.parametrize(("file", "steps"), [("iter_10.pth", 10), ("iter_20.pth", 20)])
def test_our_state_after_as_many_steps_is_the_real_files_state(file, steps):
    schedule = IterationSchedule(adamw(1e-3), NANO)
    for _ in range(steps):
        schedule.step()
    assert schedule.state_dict() == structure_of(file).tree["param_schedulers"]


@needs_files
def test_the_real_files_bare_list_is_continued_bit_for_bit():
    optimizer = adamw(5.0)  # whatever the config says now, the file's schedule is restored
    schedule = IterationSchedule(optimizer, (PolyLR(end=7),))
    assert schedule.follows_config
    schedule.load_state_dict(structure_of("iter_10.pth").tree["param_schedulers"])
    assert not schedule.follows_config
    assert schedule.phases == NANO
    used = []
    for _ in range(10):
        used += rates_of(optimizer)
        schedule.step()
    assert used == learning_rates(1e-3, NANO, 20)[10:]
    assert {15: used[4], 20: used[9]} == {k: v for k, v in logged_rates().items() if k > 10}


@pytest.mark.parametrize("cut", [0, 1, 4, 5, 6, 19, 20, 23])
def test_saved_and_loaded_at_any_step_it_goes_on_as_if_never_cut(cut):
    whole, first, second = adamw(1e-3), adamw(1e-3), adamw(1e-3)
    uncut, before = IterationSchedule(whole, NANO), IterationSchedule(first, NANO)
    for _ in range(cut):
        uncut.step()
        before.step()
    after = IterationSchedule(second, NANO)
    second.load_state_dict(first.state_dict())
    after.load_state_dict(before.state_dict())
    for _ in range(10):
        assert rates_of(second) == rates_of(whole)
        assert after.state_dict() == uncut.state_dict()
        uncut.step()
        after.step()


def test_a_changed_schedule_is_rebuilt_from_the_configs_own_base_rate():
    old, optimizer = adamw(1e-3), adamw(2e-3)
    longer = (LinearLR(end=5, start_factor=1e-6), PolyLR(begin=5, end=40))
    before = IterationSchedule(old, NANO)
    for _ in range(10):
        before.step()
    after = IterationSchedule(optimizer, longer)
    optimizer.load_state_dict(old.state_dict())
    after.load_state_dict(before.state_dict())
    after.rebuild_at(10)
    assert after.follows_config
    seen = []
    for _ in range(5):
        seen += rates_of(optimizer)
        after.step()
    assert seen == learning_rates(2e-3, longer, 15)[10:]
    assert optimizer.param_groups[0]["initial_lr"] == 2e-3


def broken_states() -> list:
    state = IterationSchedule(adamw(1e-3), NANO).state_dict()
    linear, poly = state
    return [
        [linear, poly | {"by_epoch": True}],
        [linear, poly | {"param_name": "momentum"}],
        [linear, poly | {"milestones": [3]}],
        [linear, poly | {"total_iters": 99}],
        [linear, poly | {"_global_step": 3}],
        [linear | {"last_step": 4}, poly],
        [linear | {"base_values": [1e-3, 1e-3]}, poly],
        [linear, {"type": "PolyLR"}],
        {"last_epoch": 3, "_last_lr": [1e-3]},
        [entry | {"base_values": [1e-3] * 2, "_last_value": [0.0] * 2} for entry in state],
        [*state, {"extension": None, "rates": [0.0], "taken": 20}],
        [*state, {"extension": EXTENSION.as_plain(), "rates": [0.0] * 2, "taken": 20}],
        [*state, {"extension": EXTENSION.as_plain(), "rates": [0.0], "taken": 20}],  # the phases are at step 0
    ]


@pytest.mark.parametrize("number", range(13))
def test_a_state_that_cannot_be_continued_is_refused_and_changes_nothing(number):
    optimizer = adamw(1e-3)
    schedule = IterationSchedule(optimizer, NANO)
    schedule.step()
    before, rates = schedule.state_dict(), rates_of(optimizer)
    with pytest.raises(Incompatible):
        schedule.load_state_dict(broken_states()[number])
    assert (schedule.state_dict(), rates_of(optimizer)) == (before, rates)


@pytest.mark.parametrize("policy", ["rewarm", "stretch", "hold", "restart"])
@pytest.mark.parametrize("cut", [0, 2, 4, 30])
@pytest.mark.parametrize("phases", [(LinearLR(end=5, start_factor=1e-6), PolyLR(begin=5, end=60)), ()])
def test_an_extended_schedule_saved_and_loaded_goes_on_as_if_never_cut(policy, cut, phases):
    whole, second = adamw(1e-3, 1e-2), adamw(1e-3, 1e-2)
    uncut = IterationSchedule(whole, phases)
    for group, rate in zip(whole.param_groups, (1e-5, 1e-4), strict=True):
        group["lr"] = rate
    extension = replace(EXTENSION, policy=policy, warmup_steps=4 if policy == "rewarm" else 0)
    uncut.rebuild_at(20, extension)
    for _ in range(cut):
        uncut.step()
    after = IterationSchedule(second, phases)
    second.load_state_dict(whole.state_dict())
    after.load_state_dict(uncut.state_dict())
    assert (after.extension, after.follows_config) == (extension, True)
    for _ in range(10):
        assert rates_of(second) == rates_of(whole)
        assert after.state_dict() == uncut.state_dict()
        uncut.step()
        after.step()


@pytest.mark.parametrize("extension", [None, EXTENSION], ids=["plain", "extended"])
def test_several_groups_have_the_rate_of_no_parameter_too_and_older_states_without_it_go_on(extension):
    """MMEngine schedules its configured rate with the others; older files of ours had those of the groups only."""
    one, other = adamw(1e-3, 1e-2), adamw(1e-3, 1e-2)
    schedule, resumed = IterationSchedule(one, NANO), IterationSchedule(other, NANO)
    for _ in range(7):
        schedule.step()
    if extension is not None:
        schedule.rebuild_at(20)
        schedule.rebuild_at(20, extension)
    saved = schedule.state_dict()
    assert [len(entry["base_values"]) for entry in saved[:2]] == [3, 3]
    assert schedule.default_group is not None and schedule.default_group["initial_lr"] == one.defaults["lr"]
    older = [
        {key: value[:2] if key in ("base_values", "_last_value", "rates") else value for key, value in entry.items()}
        for entry in saved
    ]
    assert older != saved

    resumed.check_state_dict(older)
    assert other.param_groups[0]["lr"] == 1e-3 * 1e-6, "to check changes nothing"
    resumed.load_state_dict(older)

    for _ in range(20):
        assert rates_of(one) == rates_of(other)
        schedule.step()
        resumed.step()
    of_the_config = IterationSchedule(adamw(1e-3, 1e-2), NANO)
    if extension is None:
        assert resumed.state_dict() == schedule.state_dict()
        of_the_config.rebuild_at(27)
        assert resumed.default_group == of_the_config.default_group


def test_no_phases_mean_a_constant_rate():
    optimizer = adamw(1e-3)
    schedule = IterationSchedule(optimizer, ())
    schedule.step()
    schedule.load_state_dict(schedule.state_dict())
    assert rates_of(optimizer) == [1e-3]
    assert learning_rates(1e-3, (), 3) == [1e-3] * 3


@pytest.mark.parametrize(
    "faulty",
    [
        lambda: LinearLR(end=5, start_factor=0.0),
        lambda: LinearLR(begin=5, end=5, start_factor=0.5),
        lambda: PolyLR(begin=9, end=5),
        lambda: PolyLR(begin=-1, end=5),
    ],
)
def test_impossible_phases_are_refused(faulty):
    with pytest.raises(ConfigError):
        faulty()


def test_a_preview_of_rates_loads_no_torch():
    check = "import sys, mapsage.schedule; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
