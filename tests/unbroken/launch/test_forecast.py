"""How far a session will get, by the pace of those before it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.golden.launch_facts import found, inside, job, saved
from unbroken import Job
from unbroken.launch import Facts, Fresh, decide
from unbroken.launch.forecast import Kills, forecast, forecast_lines, last_timing
from unbroken.launch.job import Limit
from unbroken.quantities import duration_text

NOW = datetime(2026, 11, 22, 22, 0, tzinfo=UTC)
TIMING = {"event": "timing", "steps": 50, "seconds": 100.0, "startup_s": 20.0}  # 2 s a step


def limited(left_s: float, reserve_s: float = 0.0) -> Job:
    return replace(job(), limit=Limit(left_s=left_s, reserve_s=reserve_s, source="a test"))


def facts(*events: dict[str, Any]) -> Facts:
    return Facts(survey=found(saved(100), events=events))


@pytest.mark.parametrize(
    ("left_s", "reserve_s", "reaches", "after"),
    [
        (700.0, 0.0, 400, 0),  # 300 steps are left: 600 s and the start
        (619.0, 0.0, 399, 1),
        (220.0, 0.0, 200, 2),
        (320.0, 100.0, 200, 2),
        (20.0, 0.0, 100, 0),  # not one step
    ],
)
def test_a_session_reaches_as_far_as_its_time(left_s: float, reserve_s: float, reaches: int, after: int) -> None:
    asked = limited(left_s, reserve_s)
    plan = decide(asked, facts())
    seen = forecast(asked, plan, TIMING, NOW)
    assert seen is not None and (seen.reaches, seen.total, seen.sessions_after) == (reaches, 400, after)
    if after:
        assert seen.done_at == NOW + timedelta(seconds=(after + 1) * left_s)


def test_a_run_without_a_limit_says_how_long_it_takes() -> None:
    (line,) = forecast_lines(job(), decide(job(), facts()), TIMING, Kills(), NOW)
    assert line == "time: about 10 min at 2 s a step, as before: until 2026-11-22 22:10:20 +0000"


def test_a_pace_of_smaller_steps_is_said_to_be_one() -> None:
    seen = Facts(survey=found(saved(100, inside=inside(100, samples_per_step=2, position=200, dataset_size=1000))))
    asked = replace(job(), samples=1000, samples_per_step=8)
    (line,) = forecast_lines(asked, decide(asked, seen), TIMING, Kills(), NOW)
    assert " at 2 s a step, as before with 2 samples a step (8 now): until " in line
    (line,) = forecast_lines(alike := replace(asked, samples_per_step=2), decide(alike, seen), TIMING, Kills(), NOW)
    assert " at 2 s a step, as before: until " in line


def test_the_words_of_a_limited_session() -> None:
    asked = limited(220.0, 0.0)
    lines = forecast_lines(asked, decide(asked, facts()), TIMING, Kills(), NOW)
    assert lines == [
        "session: 4 min (a test); training stops at its end, at 2026-11-22 22:03:40 +0000",
        "  at 2 s a step, as before, it reaches about step 200 of 400; 2 more sessions of this length, one after the "
        "other, until 2026-11-22 22:11:00 +0000",
    ]
    unknown = forecast_lines(asked, decide(asked, facts()), {}, Kills(), NOW)
    assert unknown[1:] == ["  how far it gets is known once steps were timed"]


def test_the_newest_session_that_did_a_step_counts() -> None:
    asked = job()
    idle = {"event": "timing", "steps": 0, "seconds": 0.0}
    seen = facts(TIMING, {"event": "saved"}, idle)
    assert last_timing(seen, decide(asked, seen)) == TIMING
    assert last_timing(facts(idle), decide(asked, facts(idle))) == {}


def test_where_nothing_is_trained_nothing_is_forecast() -> None:
    held = Facts(survey=found(saved(100), held=True))
    assert forecast_lines(limited(100.0), decide(job(), held), TIMING, Kills(), NOW) == []
    assert forecast(job(total=None), Fresh(reasons=("x",)), TIMING, NOW) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-1, "0 s"), (40, "40 s"), (119, "119 s"), (540, "9 min"), (42600, "11 h 50 min"), (43200, "12 h 0 min")],
)
def test_a_duration_in_words(seconds: float, words: str) -> None:
    assert duration_text(seconds) == words
