"""The mathematics of extending a finished run: where each step stands, and what becomes of a learning rate."""

from __future__ import annotations

import json
import math
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unbroken.launch.extension import POLICIES, Extension, Policy, cycle_of, warmup_of
from unbroken.launch.schedule import curve_of


def made(policy: Policy, *, seam: int, total: int, cycle: int | None = None, lr: float = 0.0) -> Extension:
    warmup = warmup_of(total - seam) if policy == "rewarm" else 0
    return Extension(policy=policy, seam=seam, total=total, warmup_steps=warmup, cycle_steps=cycle or total, lr=lr)


def rates(extension: Extension, schedule) -> list[float]:  # type: ignore[no-untyped-def]
    """What the added steps use."""
    steps = range(extension.seam, extension.total)
    return [extension.value_at(step, start=extension.lr, scheduled=schedule) for step in steps]


def cosine(total: int):  # type: ignore[no-untyped-def]
    """Falls from 1 to nearly 0, and is never 0."""
    return lambda step: 1e-6 + (1 + math.cos(math.pi * min(step, total) / total)) / 2


lengths = st.tuples(st.integers(1, 300), st.integers(1, 300)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(lengths, st.floats(0, 2))
@example((100, 101), 0.0)
def test_a_rewarm_never_jumps_and_never_stands_at_zero(length: tuple[int, int], lr: float) -> None:
    seam, total = length
    extension = made("rewarm", seam=seam, total=total, lr=lr)
    schedule = cosine(total)
    found = rates(extension, schedule)
    warm = seam + extension.warmup_steps
    target = schedule(warm)
    if extension.warmup_steps:
        step = abs(target - lr) / (extension.warmup_steps + 1)
        rising = [lr, *found[: extension.warmup_steps + 1]]
        assert all(abs(b - a) <= step * (1 + 1e-9) + 1e-12 for a, b in pairwise(rising))
    assert all(rate > 0 for rate in found)
    assert found[extension.warmup_steps :] == [schedule(step) for step in range(warm, total)]
    assert found[-1] == schedule(total - 1)
    assert extension.value_at(total, start=lr, scheduled=schedule) == schedule(total)


@given(lengths, st.floats(0, 2))
def test_stretch_and_hold_are_one_of_the_two_to_the_last_bit(length: tuple[int, int], lr: float) -> None:
    seam, total = length
    schedule = cosine(total)
    assert rates(made("stretch", seam=seam, total=total, lr=lr), schedule) == [schedule(t) for t in range(seam, total)]
    assert rates(made("hold", seam=seam, total=total, lr=lr), schedule) == [lr] * (total - seam)


@given(lengths, st.integers(1, 400))
def test_a_restart_goes_once_through_the_whole_schedule(length: tuple[int, int], cycle: int) -> None:
    seam, total = length
    extension = made("restart", seam=seam, total=total, cycle=cycle)
    places = [extension.place(step) for step in range(seam, total + 1)]
    steps = [place.step for place in places]
    assert {place.share for place in places} == {0.0}
    assert steps == sorted(steps)
    assert steps[0] == 0
    if total - seam > 1:
        assert steps[-2] == cycle - 1
        assert max(b - a for a, b in pairwise(steps)) <= -(-cycle // max(1, total - seam - 1)) + 1


@given(lengths, st.sampled_from(POLICIES))
def test_no_step_asks_for_an_earlier_one_than_the_step_before(length: tuple[int, int], policy: Policy) -> None:
    seam, total = length
    extension = made(policy, seam=seam, total=total)
    steps = [extension.place(step).step for step in range(seam, total + 1)]
    assert steps == sorted(steps)


@given(st.integers(1, 10_000))
def test_a_warm_up_is_short_and_leaves_steps_to_the_schedule(added: int) -> None:
    warmup = warmup_of(added)
    assert 0 <= warmup < added
    assert warmup >= 1 or added == 1
    assert warmup <= max(1, added // 10)


def test_a_schedule_is_as_long_as_it_changes() -> None:
    assert cycle_of(cosine(50), 50) == 50
    assert cycle_of(lambda step: max(0.0, 1 - step / 19), 30) == 20
    assert cycle_of(lambda _step: 0.1, 30) == 1


def test_an_extension_is_read_back_and_nothing_else_is_taken_for_one() -> None:
    extension = made("restart", seam=3, total=9, lr=0.25)
    plain = json.loads(json.dumps(extension.as_plain()))
    assert Extension.from_plain(plain) == extension
    for broken in (None, [], {}, plain | {"policy": "faster"}, plain | {"seam": -1}, plain | {"lr": "high"}):
        assert Extension.from_plain(broken) is None


@pytest.mark.parametrize("policy", POLICIES)
def test_the_curve_in_a_few_numbers_is_that_of_the_whole(policy: Policy) -> None:
    extension = made(policy, seam=2400, total=3600, lr=5e-9)
    found, curve = rates(extension, cosine(3600)), curve_of(extension, cosine(3600))
    assert (curve.lr_first, curve.lr_peak, curve.lr_end) == (found[0], max(found), found[-1])
    assert found[curve.peak_step - 1 - 2400] == max(found)
    assert (extension.warmup_steps == 60) == (policy == "rewarm")
