"""Reading the curves of a run: every shape of line that a record can have, and the tails that a resume discarded."""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.unbroken.report.runs import KILLED, session
from unbroken.jsonlines import finite, json_line
from unbroken.report.curves import LARGE_BYTES, Column, Part, StitchedCurves, read_curves, read_part
from unbroken.report.foreign_curves import read_foreign_curves, scalars_in
from unbroken.report.page.figure import decimate, smoothed
from unbroken.report.segments import RunCurves, arrange, curves_of, split_at
from unbroken.report.sessions import SessionRecord

FIRST, SECOND = "20260101_000000", "20260102_000000"


def step(number: int, session: str = FIRST, **values: Any) -> bytes:
    record = {"step": number, "session": session, "epoch": 0, **finite(values), "samples": [number, number + 1]}
    return json_line(record)


def evaluation(number: int, session: str = FIRST, **values: Any) -> bytes:
    return json_line({"step": number, "session": session, "evaluation": finite(values)})


def record_of(folder: Path, *lines: bytes) -> Path:
    path = folder / "metrics.jsonl"
    path.write_bytes(b"".join(lines))
    return path


def read(folder: Path, *lines: bytes) -> StitchedCurves:
    return read_curves(record_of(folder, *lines))


def points(column: Column) -> list[tuple[int, float]]:
    return list(zip(column.steps, column.values))


def plainly(path: Path) -> dict[tuple[str, str], list[tuple[int, str]]]:
    """The same curves by the slow way: every line as JSON."""
    from unbroken.journal import read_steps

    found: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for record in read_steps(path):
        if "evaluation" not in record and "step" in record:
            for name, value in record.items():
                if name not in ("step", "session", "epoch", "samples"):
                    found.setdefault((record["session"], name), []).append((record["step"], repr(float(value))))
    return found


def test_every_value_is_read_to_the_last_bit(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    special = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-300, 5e-324, 1e300, -1.5, 3]
    lines = []
    for number in range(1, 5000):
        values = {"loss": chance.choice([chance.gauss(0, 1), *special]), "lr": chance.random() / 1000}
        if chance.random() < 0.2:
            values["grad_norm"] = chance.random()
        lines.append(step(number, chance.choice([FIRST, SECOND, 'a"b\\c', "日本"]), **values))
        if chance.random() < 0.01:
            lines.append(evaluation(number, mIoU=chance.random()))
    path = record_of(tmp_path, *lines)
    found = {
        (session, name): sorted((place, repr(value)) for place, value in points(column))
        for session, curves in read_curves(path).sessions.items()
        for name, column in curves.values.items()
    }
    assert found == {key: sorted(values) for key, values in plainly(path).items()}


def test_a_garbled_line_takes_no_other_line_with_it(tmp_path: Path) -> None:
    whole = [step(number, loss=float(number)) for number in range(1, 8)]
    torn = [
        whole[1][:40] + b"\n",
        b'{"step":3,"session":"' + FIRST.encode() + b'","epoch":0,"loss":1.0,"samples":[1,2\n',
        b"\x00\xff garbage\n",
        b"garbage" + step(99, loss=1.0),
        b"\n",
        step(5, loss=1.0).replace(b"1.0", b"1_0"),
        b"[" * 100_000 + b"\n",
        b'{"step":-5,"session":"a","epoch":0,"loss":1.0,"samples":[]}\n',
        b'{"step":99999999999999999999999,"session":"a","epoch":0,"loss":1.0,"samples":[]}\n',
        b'{"step":true,"session":7}\n',
    ]
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    lines = whole + torn
    for _ in range(30):
        random.Random(seed).shuffle(lines)
        curves = read(tmp_path, step(0, loss=0.0), *lines, evaluation(7, score=1.0), whole[6][:30])
        assert sorted(points(curves.sessions[FIRST].values["loss"])) == [(n, float(n)) for n in range(8)]
        assert points(curves.sessions[FIRST].evaluations["score"]) == [(7, 1.0)]
        assert curves.unreadable == 6
        seed += 1


def test_a_last_line_without_its_end_does_not_count(tmp_path: Path) -> None:
    curves = read(tmp_path, step(1, loss=1.0), step(2, loss=2.0)[:-1])
    assert points(curves.sessions[FIRST].values["loss"]) == [(1, 1.0)]
    assert curves.unreadable == 0


def test_lines_that_say_a_rewind_are_no_points_and_no_damage(tmp_path: Path) -> None:
    rewound = json_line({"session": SECOND, "rewound": {"to": 1, "from": 2}})
    curves = read(tmp_path, step(1, loss=1.0), step(2, loss=2.0), rewound, step(2, SECOND, loss=2.0))
    assert (curves.points, curves.unreadable) == (3, 0)


def test_a_record_that_is_not_there_has_no_curves(tmp_path: Path) -> None:
    assert read_curves(tmp_path / "nothing").points == 0


def test_names_of_metrics_may_hold_anything(tmp_path: Path) -> None:
    names = ["<script>", 'a"b', "\x1b[31m", "x" * 100_000, "a.b", "(.*)", "{", "\\d"]
    curves = read(tmp_path, *(step(number, **dict.fromkeys(names, 1.5)) for number in range(3)))
    assert {name: len(column) for name, column in curves.sessions[FIRST].values.items()} == dict.fromkeys(names, 3)


# -- final history and discarded tails -------------------------------------------------------------------------------


def told(curves: RunCurves, name: str = "loss") -> list[tuple[bool, int, int]]:
    return [(s.kept, s.points.steps[0], s.points.steps[-1]) for s in curves.values[name]]


def test_a_killed_and_resumed_run_has_one_history_and_a_discarded_tail(tmp_path: Path) -> None:
    session(tmp_path, kill_at=7, evaluate=3, ends=KILLED)
    run = session(tmp_path, evaluate=3)
    curves = curves_of(run)
    assert told(curves) == [(True, 1, 4), (False, 5, 7), (True, 5, 18)]
    assert [(r.reached, r.back_to, r.steps) for r in curves.rewinds] == [(7, 4, 3)]
    assert [(s.base, s.last, s.kept_to, s.ended) for s in curves.sessions] == [
        (0, 7, 4, "killed"),
        (4, 18, 18, "finished"),
    ]
    assert list(curves.evaluated()) == [3, 6, 9, 12, 15, 18]
    assert [segment.kept for segment in curves.evaluations["score"]] == [True, False, True]


def test_two_kills_after_the_same_save_leave_two_tails(tmp_path: Path) -> None:
    session(tmp_path, kill_at=6, ends=KILLED)
    session(tmp_path, kill_at=7, ends=KILLED)
    curves = curves_of(session(tmp_path))
    assert told(curves) == [(True, 1, 4), (False, 5, 6), (True, 5, 18), (False, 5, 7)]
    assert [(r.reached, r.back_to) for r in curves.rewinds] == [(6, 4), (7, 4)]


def test_a_kill_before_the_first_save_discards_everything_before_it(tmp_path: Path) -> None:
    session(tmp_path, kill_at=3, ends=KILLED)
    assert told(curves_of(session(tmp_path))) == [(True, 1, 18), (False, 1, 3)]


def test_a_record_without_a_journal_is_taken_as_it_is(tmp_path: Path) -> None:
    run = session(tmp_path)
    (run / "unbroken" / "journal.jsonl").unlink()
    assert told(curves_of(run)) == [(True, 1, 18)]


def test_a_run_that_is_gone_has_no_curves(tmp_path: Path) -> None:
    assert curves_of(tmp_path / "gone") == RunCurves()


def test_steps_out_of_order_are_put_in_order_before_they_are_split() -> None:
    column = Column()
    for number in (1, 3, 2, 5, 4):
        column.add(number, float(number))
    kept, discarded = split_at(column, 3)
    assert (points(kept), points(discarded)) == ([(1, 1.0), (2, 2.0), (3, 3.0)], [(4, 4.0), (5, 5.0)])


def test_a_session_that_the_journal_does_not_know_is_no_part_of_the_history() -> None:
    curves = StitchedCurves()
    for name in (FIRST, "stranger"):
        curves.session(name).values["loss"] = column_of([1.0, 2.0])
        curves.session(name).spanned(0, 1)
    found = arrange(curves, [SessionRecord(name=FIRST, verdict="Fresh")])
    assert [(s.session, s.kept) for s in found.values["loss"]] == [(FIRST, True), ("stranger", False)]


# -- other programs --------------------------------------------------------------------------------------------------


def scalars(folder: Path, stamp: str, *lines: str) -> None:
    place = folder / stamp / "vis_data"
    place.mkdir(parents=True)
    (place / "scalars.json").write_text("".join(line + "\n" for line in lines), "utf-8")


def test_a_folder_of_mmengine_is_read_with_what_a_resume_did_again(tmp_path: Path) -> None:
    lines = [
        f'{{"lr": 0.1, "loss": {n}.5, "time": 1.0, "data_time": 0.1, "iter": {n}, "step": {n}}}' for n in range(1, 9)
    ]
    scalars(tmp_path, FIRST, *lines[:6], '{"mIoU": 10.0, "time": 0.5, "step": 4}')
    scalars(tmp_path, SECOND, *lines[4:], '{"mIoU": 12.0, "time": 0.5, "step": 8}', "{torn")
    curves = curves_of(tmp_path)
    assert told(curves) == [(True, 1, 4), (False, 5, 6), (True, 5, 8)]
    assert curves.evaluated() == {4: {"mIoU": 10.0}, 8: {"mIoU": 12.0}}
    assert set(curves.values) == {"lr", "loss"}


def write_events(path: Path, points: list[tuple[int, dict[str, float]]]) -> None:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        records = RecordWriter(file)
        records.write(Event(file_version="brain.Event:2").SerializeToString())
        for number, values in points:
            event = Event(step=number)
            for tag, value in values.items():
                event.summary.value.add(tag=tag, simple_value=value)
            records.write(event.SerializeToString())


def test_a_folder_of_openpcdet_is_read_from_its_event_files(tmp_path: Path) -> None:
    folder = tmp_path / "tensorboard"
    write_events(
        folder / "events.out.tfevents.1.a",
        [(n, {"train/loss": n / 2, "meta_data/learning_rate": 0.1}) for n in range(6)],
    )
    write_events(folder / "events.out.tfevents.2.a", [(n, {"train/loss": n / 4}) for n in range(4, 9)])
    curves = curves_of(tmp_path)
    assert set(curves.values) == {"loss", "lr"}
    assert told(curves) == [(True, 0, 3), (False, 4, 5), (True, 4, 8)]


def test_an_event_file_that_is_cut_off_or_garbled_ends_there(tmp_path: Path) -> None:
    path = tmp_path / "events.out.tfevents.1"
    write_events(path, [(n, {"loss": float(n)}) for n in range(10)])
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert [value for _, _, value in scalars_in(path)] == [float(n) for n in range(10)][
            : len(list(scalars_in(path)))
        ]
    path.write_bytes(struct.pack("<Q", 1 << 60) + whole)
    assert list(scalars_in(path)) == []
    path.write_bytes(struct.pack("<Q", 5) + b"1234" + b"\xff" * 5 + b"1234")
    assert list(scalars_in(path)) == []


def test_a_folder_with_nothing_has_no_sessions(tmp_path: Path) -> None:
    assert read_foreign_curves(tmp_path) == (StitchedCurves(), [])


# -- decimation ------------------------------------------------------------------------------------------------------


def column_of(values: list[float]) -> Column:
    column = Column()
    column.steps.extend(range(len(values)))
    column.values.extend(values)
    return column


@pytest.mark.parametrize("count", [0, 1, 2, 1999, 2000, 2001, 5000, 123_457])
def test_a_decimated_curve_keeps_every_extreme_of_its_stretches(count: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    values = [chance.random() for _ in range(count)]
    if count > 100:
        values[count // 3], values[count // 2] = 1000.0, -1000.0
    drawn = decimate(column_of(values))
    assert len(drawn.steps) == len(drawn.values) <= 2000
    assert drawn.of == count
    assert drawn.steps == sorted(drawn.steps)
    if values:
        assert max(filter(None, drawn.values)) == float(f"{max(values):.6g}")
        assert min(filter(None, drawn.values)) == float(f"{min(values):.6g}")


@pytest.mark.parametrize("count", [10, 30_000])
def test_what_is_not_finite_is_a_gap(count: int) -> None:
    values = [float(number) for number in range(count)]
    values[3], values[7], values[-1] = math.nan, math.inf, -math.inf
    drawn = decimate(column_of(values))
    assert len(drawn.values) <= 2000
    assert drawn.values.count(None) == len(drawn.not_finite) >= 2
    assert drawn.not_finite[0] == 3
    assert all(value is None or math.isfinite(value) for value in drawn.values)


def test_huge_values_are_drawn_and_are_no_gaps() -> None:
    drawn = decimate(column_of([1.7e308] * 5000))
    assert drawn.not_finite == []
    assert set(drawn.values) == {1.7e308}
    mean = smoothed(column_of([1.7e308] * 5000))
    assert mean is not None
    assert all(value is None or math.isfinite(value) for value in mean[1])


def test_a_smoothed_curve_is_the_mean_around() -> None:
    mean = smoothed(column_of([float(number % 2) for number in range(10_000)]))
    assert mean is not None
    assert all(value is not None and 0.49 < value < 0.51 for value in mean[1])
    assert smoothed(column_of([1.0] * 20)) is None


@pytest.mark.parametrize("seed", range(20))
def test_a_record_read_in_parts_is_the_record_read_in_one(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    lines = [step(number, chance.choice((FIRST, SECOND)), loss=chance.random()) for number in range(1, 400)]
    for odd in (evaluation(200, FIRST, mIoU=1.5), b"no record\n", b"\n"):
        lines.insert(chance.randrange(len(lines)), odd)
    path = record_of(tmp_path, *lines, lines[0][:-5])
    size = path.stat().st_size
    ends = sorted({0, *(len(b"".join(lines[: chance.randrange(len(lines))])) for _ in range(5))})
    pieces = StitchedCurves()
    for begin, end in zip(ends, [*ends[1:], size]):
        pieces.extend(read_part(Part(path, begin, end)))
    assert pieces == read_curves(path)


def test_several_processes_read_a_large_record_as_one_does(tmp_path: Path) -> None:
    path = record_of(tmp_path, *(step(number, loss=number / 7, lr=1e-3) for number in range(1, 330_000)))
    assert path.stat().st_size > LARGE_BYTES
    assert read_curves(path, processes=3) == read_curves(path)
