"""Steps at a learning rate of 0: never the first ones of an extension if that can be helped, and always said before."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from focalsst.schedule import OneCycle
from mapsage.schedule import LinearLR, PolyLR
from tests.golden.launch_facts import NOTHING, WEIGHTS, found, inside, job, saved
from tests.mapsage.schedules import learning_rates
from unbroken.launch import Facts, FineTune, Fresh, Job, Plan, Refuse, Resume, decide
from unbroken.launch.explain import explain
from unbroken.launch.extension import POLICIES
from unbroken.launch.schedule import MOST_LOOKED_AT, rate_ahead, zero_spans

Schedule = Callable[[int], float]


def aerial(total: int, *, warmup: int = 0, eta_min: float = 0.0) -> Schedule:
    phases: list[Any] = [LinearLR(end=warmup, start_factor=1e-6)] if warmup else []
    if total > warmup:
        phases.append(PolyLR(begin=warmup, end=total, eta_min=eta_min))
    rates = learning_rates(0.01, phases, total + 50)
    return lambda step: rates[step]


def sonar(total: int) -> Schedule:
    return OneCycle(horizon=total, lr=0.01).lr_at


def warm_from_zero(total: int) -> Schedule:
    """A linear warm-up that begins at 0, as many libraries have it."""
    return lambda step: 0.01 * (step / 3 if step < 3 else 1 - 0.9 * min(step, total) / total)


def waves(_total: int) -> Schedule:
    """At 0 in every fourth step."""
    return lambda step: 0.0 if step % 4 == 3 else 0.01


SCHEDULES: dict[str, Callable[[int], Schedule]] = {
    "sonar": sonar,
    "aerial": aerial,
    "aerial with a warm-up": lambda total: aerial(total, warmup=3),
    "aerial that never comes to 0": lambda total: aerial(total, eta_min=1e-6),
    "a warm-up from 0": warm_from_zero,
    "waves": waves,
}


def asked(schedule: Schedule, total: int, **start: Any) -> Job:
    return job(total=total, rate=lambda _config, _total: schedule, **start)


def steps_said(lines: list[str]) -> set[int]:
    said: set[int] = set()
    for line in lines:
        if match := re.search(r"steps? (\d+)(?: to (\d+))? would train at learning rate 0 \(nothing changes\)", line):
            said |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return said


def check_said(plan: Plan, launched: Job, first: int) -> None:
    """Exactly the steps at rate 0 are said, in text and as data; a span of work for nothing is a warning."""
    assert launched.lr_at is not None and launched.total_steps is not None
    rate = rate_ahead(launched.lr_at, plan)
    idle = {step + 1 for step in range(first, launched.total_steps) if rate(step) == 0}
    assert steps_said(explain(launched, plan).lines) == idle
    data = explain(launched, plan).data
    assert steps_said(data["warnings"]) | steps_said(data["notes"]) == idle
    assert idle - steps_said(data["warnings"]) <= {first + 1, launched.total_steps}


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("policy", POLICIES)
def test_an_extension_by_a_few_steps_never_begins_at_zero_if_that_can_be_helped(name: str, policy: str) -> None:
    for old in (1, 4, 9, 40):
        for added in range(1, 7):
            total, schedule = old + added, SCHEDULES[name](old + added)
            before = SCHEDULES[name](old)(old)
            launched = asked(schedule, total, on_extend=policy)
            source = saved(old, inside=inside(old, lr=before, total=old))
            plan = decide(launched, Facts(survey=found(source, finished_at=old)))
            if isinstance(plan, Refuse):  # nothing at all can be learned so, and the refusal names the steps
                assert policy in ("hold", "restart") or all(schedule(step) == 0 for step in range(old, total))
                assert f"the learning rate would be 0 from step {old + 1} to {total}" in plan.reasons[0]
                continue
            assert isinstance(plan, Resume)
            check_said(plan, launched, old)
            could_help = policy == "rewarm" and any(schedule(step) > 0 for step in range(old, min(old + 2, total)))
            assert not could_help or (plan.lr_next or 0) > 0, (name, old, added)


@pytest.mark.parametrize("name", SCHEDULES)
def test_whatever_the_way_into_a_training_its_steps_at_zero_are_said(name: str) -> None:
    seed = 20_261_129
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(20):
        ends, total = chance.randint(4, 40), chance.randint(4, 60)
        schedule = SCHEDULES[name](ends)
        launched = asked(lambda step, at=schedule, ends=ends: at(min(step, ends + 40)), total)
        fresh = decide(launched, Facts(survey=NOTHING))
        assert isinstance(fresh, Fresh)
        check_said(fresh, launched, 0)
        tuned = decide(launched, Facts(survey=NOTHING, weights=WEIGHTS))
        assert isinstance(tuned, FineTune)
        check_said(tuned, launched, 0)
        reached = chance.randint(1, total - 1)
        going = decide(launched, Facts(survey=found(saved(reached, inside=inside(reached, total=total)))))
        assert isinstance(going, Resume)
        check_said(going, launched, reached)


def test_a_schedule_of_60_steps_under_a_training_of_120_is_a_warning_that_says_what_would_help() -> None:
    schedule = aerial(60)
    (warning,) = decide(asked(lambda step: schedule(min(step, 60)), 120), Facts(survey=NOTHING)).warnings
    assert "steps 60 to 120" in warning and "let it reach step 120" in warning


def test_both_ends_of_a_usual_schedule_are_no_warning() -> None:
    from_zero = decide(asked(warm_from_zero(50), 50), Facts(survey=NOTHING))
    assert (from_zero.warnings, len(from_zero.notes)) == ((), 1)
    to_zero = decide(asked(aerial(50), 50), Facts(survey=NOTHING))
    assert (to_zero.warnings, len(to_zero.notes)) == ((), 1)
    never = decide(asked(sonar(50), 50), Facts(survey=NOTHING))
    assert (never.warnings, never.notes) == ((), ())


def test_in_a_long_schedule_the_edges_of_what_is_at_zero_are_exact() -> None:
    total = 20 * MOST_LOOKED_AT + 7
    assert zero_spans(lambda step: 0.0 if step > total // 2 + 3 else 1.0, 0, total) == [(total // 2 + 4, total)]
    assert zero_spans(lambda step: 0.0 if step < 1001 else 1.0, 5, total) == [(5, 1001)]
    assert zero_spans(lambda step: float(step != total - 1), 0, total) == [(total - 1, total)]
    assert zero_spans(lambda _step: 0.0, 3, 3) == []


def test_a_schedule_that_ended_before_the_step_that_is_resumed_is_not_said_to_end_there() -> None:
    launched = asked(lambda step: max(0.01 * (1 - step / 12), 0.0), 40)
    plan = decide(launched, Facts(survey=found(saved(20, inside=inside(20, lr=0.0, total=40)))))
    (said,) = (line for line in explain(launched, plan).lines if "learning rate 0 (" in line)
    assert "steps 21 to 40 would train at learning rate 0" in said
    assert "the schedule has ended before; let it reach step 40" in said and "train 21 steps" not in said
    fresh = decide(launched, Facts(survey=NOTHING))
    assert any("the schedule ends at step 13" in line for line in explain(launched, fresh).lines)
