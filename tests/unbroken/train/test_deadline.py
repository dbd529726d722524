"""A session that must be over in time, on a clock that the test moves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from unbroken.launch.job import Limit
from unbroken.train.stop import ENDING_SHARE, Deadline


class Watch:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic_s(self) -> float:
        return self.seconds


def test_without_a_time_everything_fits_for_ever() -> None:
    watch = Watch()
    deadline = Deadline(watch, limit=None)
    deadline.took("step", 1e9)
    watch.seconds += 1e9
    assert deadline.fits("step", "save", "evaluation")


def limit(left_s: float, reserve_s: float = 0.0) -> Limit:
    return Limit(left_s=left_s, reserve_s=reserve_s, source="a test")


def test_what_took_long_before_is_expected_to_take_as_long_again_and_a_bit_more() -> None:
    watch = Watch()
    deadline = Deadline(watch, limit=limit(100.0, 10.0))
    assert deadline.fits("step", "save")
    watch.seconds += 10.0  # of beginning
    for seconds in (5.0, 2.0, 1.0, 1.0, 1.0):
        watch.seconds += seconds
        deadline.took("step", seconds)
    with deadline.timing("save"):
        watch.seconds += 20.0
    needed = 1.1 * 5.0 + 1.5 * 20.0 + ENDING_SHARE * 10.0  # of saves there was one only
    watch.seconds = 1000.0 + 90.0 - needed
    assert deadline.fits("step", "save")
    watch.seconds += 0.01
    assert not deadline.fits("step", "save")
    assert deadline.fits("save")


def test_what_is_broken_off_takes_at_least_as_long_as_it_took() -> None:
    watch = Watch()
    deadline = Deadline(watch, limit=limit(100.0))
    with pytest.raises(KeyboardInterrupt), deadline.timing("evaluation"):
        watch.seconds += 70.0
        raise KeyboardInterrupt
    assert not deadline.fits("evaluation")
    later = Deadline(Watch(), limit=limit(100.0), known=deadline.as_plain())
    assert not later.fits("evaluation") and later.fits("step")


def test_a_session_knows_from_the_one_before_how_long_things_take() -> None:
    before = Deadline(Watch(), limit=None)
    for _ in range(9):
        before.took("step", 4.0)
    before.took("save", 8.0)
    later = Deadline(Watch(), limit=limit(17.0), known=before.as_plain())
    assert not later.fits("step", "save")  # half as long again, both
    for _ in range(5):
        later.took("step", 1.0)
    assert later.fits("step", "save")


@pytest.mark.parametrize("known", [{}, {"longest_s": None}, {"longest_s": {"step": "long"}}, {"steps": 3}])
def test_a_record_that_says_nothing_is_no_reason_to_stop(known: dict[str, object]) -> None:
    assert Deadline(Watch(), limit=limit(10.0), known=known).fits("step", "save", "evaluation")


def test_a_long_step_of_long_ago_is_forgotten() -> None:
    watch = Watch()
    deadline = Deadline(watch, limit=limit(100.0))
    deadline.took("step", 200.0)
    assert not deadline.fits("step")
    for _ in range(50):
        deadline.took("step", 1.0)
    assert deadline.fits("step")
