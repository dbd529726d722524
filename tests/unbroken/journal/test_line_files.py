"""JSON lines that survive a kill in the middle of a line, read from both ends."""

from __future__ import annotations

import json
import math
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken.clock import SystemClock
from unbroken.journal import Journal, StepLog, read_events, read_steps, steps_after
from unbroken.journal.file import LineFile, numbered_lines, read_journal, read_lines, read_lines_backwards
from unbroken.jsonlines import BLOCK_BYTES
from unbroken.storage import Disk


def write(path: Path, *records: dict, session: str = "one") -> None:
    lines = LineFile(Disk(), path)
    for record in records:
        lines.append(record, durable=False)
    lines.close()


def log_steps(path: Path, steps: range, *, session: str, loss: float = 0.5) -> None:
    log = StepLog(Disk(), path, session=session)
    for step in steps:
        log.write_step(step, epoch=0, samples=[step], values={"loss": loss + step})
    log.close()


def test_lines_come_back_in_order_from_both_ends(tmp_path: Path) -> None:
    records = [{"n": n, "text": "äöü 测试 \n newline"} for n in range(50)]
    write(tmp_path / "lines", *records)
    assert list(read_lines(tmp_path / "lines")) == records
    assert list(read_lines_backwards(tmp_path / "lines")) == records[::-1]


def test_a_missing_and_an_empty_file_have_no_lines(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for name in ("missing", "empty"):
        assert list(read_lines(tmp_path / name)) == list(read_lines_backwards(tmp_path / name)) == []


def test_a_torn_last_line_does_not_count_from_either_end_even_if_it_is_whole_json(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    write(path, {"n": 1}, {"n": 2})
    for torn in (b'{"n": 3, "te', b'{"n": 3}', b"\xff\xfe", b"3"):
        path.write_bytes(b'{"n": 1}\n{"n": 2}\n' + torn)
        assert list(read_lines(path)) == [{"n": 1}, {"n": 2}]
        assert list(read_lines_backwards(path)) == [{"n": 2}, {"n": 1}]
        assert list(numbered_lines(path)) == [(1, {"n": 1}), (2, {"n": 2})]


def test_a_torn_last_line_is_no_event_even_if_it_is_whole_json(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal = Journal(Disk(), path, clock=SystemClock(), session="one")
    for number in (1, 2):
        journal.write("saved", file=f"iter_{number}.pth", step=number, kind="checkpoint")
    journal.close()
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    told = read_journal(path)
    assert ([event["step"] for event in told.events], told.damaged, told.torn) == ([1], (), ())


def test_the_line_after_a_torn_one_is_not_swallowed(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"n": 1}\n{"n": 2, "te')
    write(path, {"n": 3})
    assert list(read_lines(path)) == [{"n": 1}, {"n": 3}]
    assert list(read_lines_backwards(path)) == [{"n": 3}, {"n": 1}]
    assert path.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("line", ["[]", "3", "null", "not json", "", "[" * 100_000, '{"a":' * 50_000])
def test_a_line_that_is_no_object_is_left_out_and_never_a_crash(tmp_path: Path, line: str) -> None:
    path = tmp_path / "lines"
    path.write_text(f'{{"n": 1}}\n{line}\n{{"n": 2}}\n')
    assert list(read_lines(path)) == [{"n": 1}, {"n": 2}]
    assert list(read_lines_backwards(path)) == [{"n": 2}, {"n": 1}]


@pytest.mark.parametrize("shift", range(-3, 4))
def test_lines_that_lie_across_a_block_border_are_read_whole(tmp_path: Path, shift: int) -> None:
    path = tmp_path / "lines"
    records = [{"n": 1}, {"n": 2}, {"text": "x" * (BLOCK_BYTES - 13 + shift)}]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert list(read_lines(path)) == records
    assert list(read_lines_backwards(path)) == records[::-1]


def test_a_line_longer_than_several_blocks_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    long = {"samples": list(range(60_000))}
    write(path, {"n": 1}, long, {"n": 2})
    assert path.stat().st_size > 4 * BLOCK_BYTES
    assert list(read_lines_backwards(path)) == [{"n": 2}, long, {"n": 1}]


def test_a_torn_line_longer_than_a_block_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"n": 1}\n{"text": "' + b"x" * (3 * BLOCK_BYTES))
    assert list(read_lines_backwards(path)) == [{"n": 1}]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sizes=st.lists(st.integers(0, 30_000), max_size=12),
    cut=st.integers(0, 40),
)
def test_wherever_a_file_is_cut_the_lines_that_are_whole_are_read_from_both_ends(sizes: list[int], cut: int) -> None:
    records = [{"n": n, "x": "y" * size} for n, size in enumerate(sizes)]
    whole = "".join(json.dumps(record) + "\n" for record in records).encode()
    left = whole[: max(len(whole) - cut, 0)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines"
        path.write_bytes(left)
        assert list(read_lines(path)) == records[: left.count(b"\n")]
        assert list(read_lines_backwards(path)) == records[: left.count(b"\n")][::-1]


def test_the_end_of_a_long_file_is_read_without_its_beginning(tmp_path: Path) -> None:
    """Resuming at step 20,000 costs the same as at step 10: what is not asked for may even be unreadable."""
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\xff" * (2 * BLOCK_BYTES) + b"\n")
    log_steps(path, range(20_001, 20_011), session="one")
    assert sorted(steps_after(path, 20_005)) == list(range(20_006, 20_011))


def test_nan_and_infinity_come_back_and_the_file_stays_strict_json(tmp_path: Path) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    path = tmp_path / "metrics.jsonl"
    log = StepLog(Disk(), path, session="one")
    log.write_step(1, epoch=0, samples=[1], values={"loss": math.nan, "norm": math.inf, "lr": -math.inf})
    log.write_evaluation(1, {"mIoU": math.nan})
    log.close()
    step, evaluation = (json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines())
    assert math.isnan(float(step["loss"])) and float(step["norm"]) == math.inf and float(step["lr"]) == -math.inf
    assert math.isnan(float(evaluation["evaluation"]["mIoU"]))


def test_losses_come_back_bit_for_bit(tmp_path: Path) -> None:
    seed = 7
    print(f"seed {seed}")
    chance = random.Random(seed)
    losses = [chance.uniform(-1, 1) * 10.0 ** chance.randint(-300, 300) for _ in range(200)] + [5e-324, -0.0]
    log = StepLog(Disk(), tmp_path / "m", session="one")
    for step, loss in enumerate(losses, 1):
        log.write_step(step, epoch=0, samples=[], values={"loss": loss})
    log.close()
    assert [record["loss"].hex() for record in read_steps(tmp_path / "m")] == [loss.hex() for loss in losses]


def test_steps_after_a_save_are_the_newest_record_of_each_over_all_sessions(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log_steps(path, range(1, 19), session="one")
    log_steps(path, range(11, 16), session="two", loss=100.0)
    found = steps_after(path, 10)
    assert sorted(found) == list(range(11, 19))
    assert [found[step]["session"] for step in sorted(found)] == ["two"] * 5 + ["one"] * 3
    assert steps_after(path, 18) == {}
    assert steps_after(tmp_path / "missing", 0) == {}


def test_evaluations_are_not_taken_for_steps(tmp_path: Path) -> None:
    log = StepLog(Disk(), tmp_path / "m", session="one")
    log.write_step(1, epoch=0, samples=[4], values={"loss": 1.0})
    log.write_evaluation(1, {"mIoU": 0.5})
    log.close()
    assert steps_after(tmp_path / "m", 0)[1]["samples"] == [4]


def test_events_carry_time_session_and_their_facts(tmp_path: Path) -> None:
    journal = Journal(Disk(), tmp_path / "journal.jsonl", clock=SystemClock(), session="one")
    journal.write("saved", file="iter_1.pth", step=1, metrics={"loss": math.inf, "all": (1.0, math.nan)})
    journal.close()
    (event,) = read_events(tmp_path / "journal.jsonl")
    assert (event["session"], event["event"], event["file"]) == ("one", "saved", "iter_1.pth")
    assert event["metrics"] == {"loss": "inf", "all": [1.0, "nan"]}
    assert "T" in event["time"]
