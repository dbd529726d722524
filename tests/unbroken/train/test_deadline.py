"""A session that must be over in time, on a clock that the test moves."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime

import pytest

from unbroken.launch.options import duration_s, file_name
from unbroken.train.deadline import Deadline


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
    deadline = Deadline(watch, session_s=None, reserve_s=0.0)
    deadline.took("step", 1e9)
    watch.seconds += 1e9
    assert deadline.fits("step", "save", "evaluation")


def test_what_took_long_before_is_expected_to_take_as_long_again() -> None:
    watch = Watch()
    deadline = Deadline(watch, session_s=100.0, reserve_s=10.0)
    assert deadline.fits("step", "save")
    deadline.took("step", 2.0)
    deadline.took("step", 5.0)
    with deadline.timing("save"):
        watch.seconds += 20.0
    assert deadline.fits("step", "save")  # 20 s gone, 25 s needed, 90 s there are
    watch.seconds += 45.0
    assert deadline.fits("step", "save")
    watch.seconds += 0.5
    assert not deadline.fits("step", "save")
    assert deadline.fits("save")


def test_a_long_step_of_long_ago_is_forgotten() -> None:
    watch = Watch()
    deadline = Deadline(watch, session_s=100.0, reserve_s=0.0)
    deadline.took("step", 200.0)
    assert not deadline.fits("step")
    for _ in range(50):
        deadline.took("step", 1.0)
    assert deadline.fits("step")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12h", 43200),
        ("10m", 600),
        ("1h30m", 5400),
        ("45s", 45),
        ("90", 90),
        ("0.5h", 1800),
        ("1H 30M".replace(" ", ""), 5400),
    ],
)
def test_a_time_is_written_as_people_write_it(text: str, seconds: float) -> None:
    assert duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "soon", "12 hours", "-5m", "5m2h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected a time like 12h"):
        duration_s(text)


@pytest.mark.parametrize("tag", ["baseline_bs2", "grad_accum_x4_lr0.0005", "voxel_0.15_workers8", "消融实验_1", "a b"])
def test_a_tag_may_be_any_name_of_a_folder(tag: str) -> None:
    assert file_name(tag) == tag


@pytest.mark.parametrize("tag", ["", ".", "..", "a/b", "a\\b", "a:b", "x" * 101, "ends.", "ends ", "line\nbreak", "a*"])
def test_a_tag_that_is_no_folder_on_some_system_is_refused(tag: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="name of one folder"):
        file_name(tag)
