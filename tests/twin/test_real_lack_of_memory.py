"""Memory that the operating system really refuses: the step is done in parts, with the numbers of the whole."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.twin.killing import events, python, run_to_end, step_records

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is read from /proc")
def test_a_step_for_which_there_is_no_memory_is_done_in_parts(tmp_path: Path) -> None:
    train = ["-m", "unbroken", "train", "tests.twin.frail:frail"]
    short = ["--no-norm", "--steps", 3]
    for run, options in (("whole", []), ("parts", ["--room", 700])):
        done = run_to_end(python(*train, tmp_path / run, *short, *options), cwd=ROOT)
        assert done.returncode == 0, done.output
    told = [(event["step"], event["before"], event["after"]) for event in events(tmp_path / "parts", "oom")]
    assert told[0] == (1, 4, 2), done.output
    assert "can't allocate memory" in events(tmp_path / "parts", "oom")[0]["error"]
    whole, parts = step_records(tmp_path / "whole"), step_records(tmp_path / "parts")
    assert [record["samples"] for record in parts.values()] == [record["samples"] for record in whole.values()]
    assert [record["loss"] for record in parts.values()] == pytest.approx(
        [record["loss"] for record in whole.values()], rel=1e-5
    )
