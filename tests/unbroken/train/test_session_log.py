"""What a session says of its steps where lines are printed: those that are due, and one after a long silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from unbroken.clock import SystemClock
from unbroken.storage import Disk
from unbroken.train import PlainConsole
from unbroken.train.record.console import FIRST_QUIET_S, QUIET_S, SessionLog, StepReport, line_words


def after(elapsed_s: float, *, step: int, due: bool = False) -> StepReport:
    """A step that ended so many seconds into its session."""
    return StepReport(
        step=step, total=1440, epoch=0, step_s=14.0, data_s=0.1, eta_s=20_000.0, elapsed_s=elapsed_s, due=due
    )


def said(log: SessionLog, capsys: pytest.CaptureFixture[str], *reports: StepReport) -> list[str]:
    for report in reports:
        log.step(report)
    return [line[: line.index("]") + 1] for line in capsys.readouterr().out.splitlines()]


def test_a_first_step_that_took_long_is_said_and_then_one_a_minute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = SessionLog(PlainConsole(), SystemClock())
    log.open(Disk(), tmp_path / "s.log", (tmp_path / "scalars.json",), moment="")
    steps = [after(FIRST_QUIET_S + 14.0 * number, step=number) for number in range(1, 12)]
    shown = said(log, capsys, *steps, after(FIRST_QUIET_S + 168, step=12, due=True))
    log.close()
    assert shown == [f"Iter(train) [{step:>4}/1440]" for step in (1, 6, 11, 12)]
    assert [line[: line.index("]") + 1] for line in (tmp_path / "s.log").read_text().splitlines()] == shown
    assert (tmp_path / "scalars.json").read_text().count("\n") == 1, "only what is due is written down as numbers"


def test_steps_that_are_said_often_enough_are_said_when_they_are_due_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = SessionLog(PlainConsole(), SystemClock())
    quick = [
        after(0.7 * FIRST_QUIET_S + 0.3 * QUIET_S * number, step=number, due=number % 2 == 0) for number in range(9)
    ]
    assert said(log, capsys, *quick) == [f"Iter(train) [{step:>4}/1440]" for step in (0, 2, 4, 6, 8)]


def test_a_bar_stands_there_before_the_first_step_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[StepReport] = []

    class Watched(PlainConsole):
        def step(self, report: StepReport, line: str) -> None:
            shown.append(report)
            super().step(report, line)

    log = SessionLog(Watched(), SystemClock())
    log.begin(8, 1440)
    log.doing("validation")
    assert [report.doing for report in shown] == ["training", "validation"]
    assert line_words(shown[0], 80) == "8/1440  the first step of this session"
    assert capsys.readouterr().out == "", "lines are for what is done"
