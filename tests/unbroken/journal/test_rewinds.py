"""Where a resume rewinds the history, the record says so; what it leaves behind stays readable and misleads nobody."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from unbroken.journal import StepLog, evaluated_step, reached, read_steps, steps_after
from unbroken.journal.file import read_lines
from unbroken.storage import Disk


def session(
    path: Path, name: str, steps: Iterable[int], *, to: int | None = None, evaluate: Iterable[int] = ()
) -> None:
    log = StepLog(Disk(), path, session=name)
    if to is not None:
        log.write_rewound(to, before=reached(path))
        if to in evaluate:
            log.write_evaluation(to, {"mIoU": 1.0})
    for step in steps:
        log.write_step(step, epoch=0, samples=[step], values={"loss": float(step)})
        if step in evaluate:
            log.write_evaluation(step, {"mIoU": 1.0})
    log.close()


def rewinds(path: Path) -> list[dict[str, int]]:
    return [record["rewound"] for record in read_lines(path) if "rewound" in record]


def test_a_rewind_names_its_session_and_both_steps(tmp_path: Path) -> None:
    path = tmp_path / "m"
    session(path, "A", range(1, 130))
    session(path, "B", range(81, 91), to=80)
    [line] = [json.loads(text) for text in path.read_text().splitlines() if "rewound" in text]
    assert line == {"session": "B", "rewound": {"to": 80, "from": 129}}
    assert [record["step"] for record in read_steps(path)] == [*range(1, 130), *range(81, 91)]


def test_the_history_stands_at_its_last_step_or_where_it_was_rewound_to(tmp_path: Path) -> None:
    path = tmp_path / "m"
    assert reached(path) == 0
    session(path, "A", range(1, 20), evaluate=[19])
    assert reached(path) == 19
    session(path, "B", [], to=12)
    assert reached(path) == 12
    session(path, "C", [13, 14])
    assert reached(path) == 14
    with path.open("ab") as file:
        file.write(b'{"session":"D","rewound":7}\n{"step":true}\nnot a line\n{"session":"D","rewound":{"to":')
    assert reached(path) == 14


def test_steps_to_be_repeated_are_found_across_a_rewind(tmp_path: Path) -> None:
    path = tmp_path / "m"
    session(path, "A", range(1, 20))
    session(path, "B", range(13, 16), to=12)
    session(path, "C", [], to=12)
    found = steps_after(path, 12)
    assert {step: record["session"] for step, record in found.items()} == {
        **dict.fromkeys(range(13, 16), "B"),
        **dict.fromkeys(range(16, 20), "A"),
    }
    assert sorted(steps_after(path, 3)) == list(range(4, 20))


def test_a_session_that_began_with_an_evaluation_does_not_hide_the_steps_before_it(tmp_path: Path) -> None:
    path = tmp_path / "m"
    session(path, "A", range(1, 20))
    session(path, "B", [13], to=12, evaluate=[12])
    assert sorted(steps_after(path, 12)) == list(range(13, 20))


def test_an_evaluation_that_was_recorded_is_found_with_its_step(tmp_path: Path) -> None:
    path = tmp_path / "m"
    session(path, "A", range(1, 12), evaluate=[8])
    found = evaluated_step(path, 8)
    assert found is not None and (found["step"], found["loss"], found["session"]) == (8, 8.0, "A")
    assert evaluated_step(path, 9) is None and evaluated_step(path, 30) is None
    session(path, "B", [6, 7, 8], to=5)
    assert evaluated_step(path, 8) is None, "it was of the steps that are left behind"
    assert evaluated_step(tmp_path / "missing", 8) is None


def test_two_rewinds_one_after_the_other_each_say_from_where(tmp_path: Path) -> None:
    path = tmp_path / "m"
    session(path, "A", range(1, 130))
    session(path, "B", range(81, 91), to=80)
    session(path, "C", range(81, 100), to=80)
    session(path, "D", range(41, 50), to=40)
    assert rewinds(path) == [{"to": 80, "from": 129}, {"to": 80, "from": 90}, {"to": 40, "from": 99}]
