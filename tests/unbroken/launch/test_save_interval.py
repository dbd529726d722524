"""`--save-every auto`: as often as loses the least, and never more than saves may take."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from tests.unbroken.train.test_failing_saves import Listener
from unbroken.cli.commands.watch import words_of
from unbroken.clock import SystemClock
from unbroken.journal import as_event
from unbroken.launch.forecast import (
    FIRST_S,
    MOST_STOLEN,
    SUPPOSED_S,
    Kills,
    best_interval_s,
    kills_in,
    save_interval_s,
)
from unbroken.launch.options import add_common_options, saves
from unbroken.option_parser import OptionParser
from unbroken.report import Watch
from unbroken.storage import Disk
from unbroken.train import open_run
from unbroken.train.cadence import Interval

SEED = 20261130
WORK_S, RUNS = 200_000.0, 40


def wasted(interval_s: float, *, cost_s: float, between_s: float, chance: Random) -> float:
    """The seconds that saves and kills take of a training that saves every `interval_s`; kills come by chance."""
    done_s, spent_s = 0.0, 0.0
    killed_s = chance.expovariate(1 / between_s)
    while done_s < WORK_S:
        whole_s = interval_s + cost_s
        if spent_s + whole_s <= killed_s:
            done_s, spent_s = done_s + interval_s, spent_s + whole_s
        else:  # what was done since the last save is done again
            spent_s = killed_s
            killed_s += chance.expovariate(1 / between_s)
    return spent_s - done_s


@pytest.mark.parametrize(("cost_s", "between_s"), [(0.5, 3_600.0), (10.0, 3_600.0), (60.0, 900.0), (5.0, 40_000.0)])
def test_the_interval_loses_less_than_others(cost_s: float, between_s: float) -> None:
    best_s = best_interval_s(cost_s, between_s)
    mean = {}
    for share in (0.25, 0.5, 1.0, 2.0, 4.0):
        chance = Random(SEED)
        runs = [wasted(share * best_s, cost_s=cost_s, between_s=between_s, chance=chance) for _ in range(RUNS)]
        mean[share] = sum(runs) / RUNS
    print(SEED, best_s, mean)
    assert min(mean, key=lambda share: mean[share]) == 1.0


def test_a_save_that_costs_more_than_there_is_between_two_kills_is_made_once_between_them() -> None:
    assert best_interval_s(100.0, 50.0) == 50.0 and best_interval_s(0.0, 50.0) == 0.0


def test_saves_take_no_more_than_their_share_however_often_kills_come() -> None:
    chance = Random(SEED)
    for _ in range(200):
        cost_s = 10 ** chance.uniform(-4, 4)
        kills = Kills(trained_s=10 ** chance.uniform(0, 7), count=chance.randrange(1000))
        assert cost_s / save_interval_s(cost_s, kills) <= MOST_STOLEN * (1 + 1e-9), (SEED, cost_s, kills)
    assert save_interval_s(None, Kills()) == FIRST_S
    assert save_interval_s(0.001, Kills(trained_s=3_600, count=30)) < save_interval_s(0.001, Kills(trained_s=3_600))


def session(*ends: str, seconds: float | None = 100.0) -> Iterator[dict[str, Any]]:
    yield {"event": "session", "session": "s", "time": "t", "plan": {"verdict": "Resume"}}
    if seconds is not None:
        yield {"event": "timing", "seconds": 1.0, "steps": 1}
        yield {"event": "timing", "seconds": seconds, "steps": 50}
    yield from ({"event": end, "step": 5} for end in ends)


@pytest.mark.parametrize(
    ("lines", "kills"),
    [
        ((), Kills()),
        ((*session("stopped"), *session("finished"), *session("failed")), Kills(trained_s=300.0)),
        ((*session(), *session("stopped"), *session(seconds=None)), Kills(trained_s=200.0, count=2)),
        ((*session(), *session(), *session()), Kills(trained_s=300.0, count=3)),
    ],
)
def test_a_session_that_ended_with_no_word_was_killed(lines: Sequence[dict[str, Any]], kills: Kills) -> None:
    assert kills_in([event for line in lines if (event := as_event(line)) is not None]) == kills
    assert kills.between_s == (kills.trained_s + SUPPOSED_S) / (kills.count + 1)


def test_an_interval_as_asked_for_stays_as_it_is_whatever_saves_cost() -> None:
    for asked in (None, 30.0):
        interval = Interval(asked, kills=Kills(count=9), cost_s=5.0)
        interval.cost(50.0)
        assert interval.seconds == asked and interval.as_plain() == {"save_cost_s": 50.0}


def test_what_saves_cost_here_counts_more_than_what_they_cost_before() -> None:
    interval = Interval("auto", kills=Kills(), cost_s=10.0)
    assert interval.seconds == 1_000.0, "1 % of the time"
    for _ in range(9):
        interval.cost(0.02)
    assert interval.cost_s == pytest.approx(0.02)
    assert interval.seconds == pytest.approx(math.sqrt(2 * 0.02 * SUPPOSED_S), rel=0.01)


class Hasty(SystemClock):
    """A clock by which each step takes ten minutes."""

    def __init__(self) -> None:
        self.jumps_s = 0.0

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self.jumps_s


def train(root: Path, steps: int, *, until: int | None = None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    clock, said = Hasty(), Listener()
    monkeypatch.setattr("unbroken.train.start.SystemClock", lambda: clock)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with open_run(root, tag="t", save_every="auto", console=said) as run:
        run.track(model=model, optimizer=optimizer)
        for step in run.steps(steps):
            optimizer.zero_grad()
            model(torch.ones(1, 2)).sum().backward()
            optimizer.step()
            clock.jumps_s += 600
            if step + 1 == until:
                break
    return said.lines


def test_a_loop_saves_as_often_as_its_saves_cost_and_the_next_launch_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = train(tmp_path, 6, until=4, monkeypatch=monkeypatch)
    assert "saves: the first after 60 s, then by what one costs and how often the run is killed" in lines
    assert sum(line.startswith("Saving checkpoint at ") for line in lines) == 4, "cheap, and ten minutes apart"
    (again,) = (line for line in train(tmp_path, 6, monkeypatch=monkeypatch) if line.startswith("saves: "))
    assert again.startswith("saves: about every ") and "0 kills in " in again and "one in 12 h" in again
    watched = "  ".join(words_of(Watch(tmp_path / "t", SystemClock(), Disk()).poll()))
    assert re.search(r"saved iter_6.pth \S+ ago, about every \d", watched), watched


def typed(*words: str) -> dict[str, Any]:
    parser = OptionParser(prog="p")
    add_common_options(parser)
    return saves(parser.parse_args(list(words)), steps=400, epochs=2, seconds=300.0)


def test_the_option_takes_steps_a_time_or_auto() -> None:
    usual = {"save_every": 400, "save_every_epochs": 2, "save_every_s": 300.0}
    assert typed() == usual
    assert typed("--save-every", "500") == {**usual, "save_every": 500}
    assert typed("--save-every", "10m") == {**usual, "save_every_s": 600.0}
    assert typed("--save-every", "auto") == {**usual, "save_every_s": "auto"}
    for wrong in ("0", "0s", "-3", "often", "1.5"):
        with pytest.raises(Exception, match="--save-every") as raised:
            typed("--save-every", wrong)
        assert "a number of steps, a time like " in str(raised.value) and "or auto" in str(raised.value), wrong
