"""The phases of a start: each second counts for one of them, whatever lies in what."""

from __future__ import annotations

import json
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.unbroken.cli.typing_commands import typing
from tests.unbroken.run.runs_in_short import SetClock
from unbroken.clock import Phases
from unbroken.launch.forecast import start_line

FROM_THE_COMMAND_LINE = ["imports", "config", "look", "verify", "build", "restore", "first batch"]


@pytest.fixture
def clock() -> SetClock:
    return SetClock(datetime(2026, 2, 5, tzinfo=UTC))


def test_each_second_counts_for_one_phase(clock: SetClock) -> None:
    phases = Phases(clock)
    phases.begin("imports", clock.monotonic_s() - 2)
    clock.pause_s(1)
    phases.enter("look")
    clock.pause_s(4)
    with phases.inside("verify"):
        clock.pause_s(8)
        with phases.inside("read"):
            clock.pause_s(16)
        clock.pause_s(32)
    clock.pause_s(64)
    assert phases.end() == {"imports": 3, "look": 68, "verify": 40, "read": 16}


def test_nothing_counts_before_a_beginning_after_an_end_or_on_another_thread(clock: SetClock) -> None:
    phases = Phases(clock)
    with phases.inside("verify"):
        clock.pause_s(1)
    assert phases.end() == {}
    phases.begin("look")
    beside = threading.Thread(target=phases.enter, args=("verify",))
    beside.start()
    beside.join()
    clock.pause_s(2)
    assert phases.end() == {"look": 2}
    phases.enter("restore")
    clock.pause_s(4)
    assert phases.end() == {"look": 2}


def test_a_session_goes_on_with_what_the_command_line_noted_and_the_next_one_begins_anew(clock: SetClock) -> None:
    phases = Phases(clock)
    phases.begin("imports")
    clock.pause_s(1)
    phases.look()
    clock.pause_s(2)
    phases.enter("build")  # and it fails
    clock.pause_s(4)
    phases.look()
    clock.pause_s(8)
    assert phases.end() == {"look": 8}


def test_a_start_is_told_as_a_line() -> None:
    assert start_line({"imports": 2.0, "first batch": 0.25}) == "2.25 s: imports 2 s, first batch 0.25 s"
    assert start_line({}) == "" == start_line({"imports": "long"})


def test_why_tells_how_its_own_time_and_that_of_the_last_start_was_spent(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    type_, words = typing(capsys), ["mapsage", "small.py"]
    assert type_("train", *words).code == 0
    logs = sorted((here / "work_dirs" / "small").glob("*/*.log"))
    first, second = (re.findall("started in .*", log.read_text()) for log in logs)
    assert len(first) == len(second) == 1
    assert re.findall(r"[:,] ([a-z ]+?) \d", second[0]) == FROM_THE_COMMAND_LINE

    *_, own, last = type_("why", *words, "--timing", "--cfg-options", "train_cfg.max_iters=9").out.splitlines()
    assert re.fullmatch("timing: this took .*: imports .*, config .*, look .*, verify .*, decide .* s", own)
    assert last.startswith("timing: the last session started in ") and "restore" in last
    data = json.loads(type_("why", *words, "--timing", "--json").out)["timing"]
    assert list(data["last_session"]) == FROM_THE_COMMAND_LINE and list(data["why"])[:3] == [
        "imports",
        "config",
        "look",
    ]
    assert "timing" not in json.loads(type_("why", *words, "--json").out)
