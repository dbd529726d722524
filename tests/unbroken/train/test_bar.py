"""The bar at a terminal: what is done and which step, in any width; for recipes and own loops alike."""

from __future__ import annotations

import io
import os
import pty
from pathlib import Path

import pytest
from rich.console import Console as RichConsole
from rich.text import Text
from tqdm import tqdm

from tests.processes import DEVNULL, PATIENCE_S, Popen, environment, python
from unbroken.train import PlainConsole, StepReport, console_for
from unbroken.train.record.console import BarConsole, BarLine, line_words

LOOP = """\
import sys
from unbroken.train import open_run
with open_run(sys.argv[1], tag="t", log_every=1) as run:
    run.track(counters={"n": 0})
    for _ in run.batches(list(range(8)), batch_size=2, epochs=2):
        run.end_step(loss=0.5)
        if run.evaluation_due(every=4):
            print("here is a line of the loop")
            run.record_evaluation(accuracy=0.5)
"""


def report(**changed: object) -> StepReport:
    found = {
        "step": 12_345,
        "total": 40_000,
        "epoch": 3,
        "values": {"loss": 1.7074, "lr": 1.5e-3},
        "step_s": 2.06,
        "data_s": 0.1,
        "eta_s": 57_000.0,
        "elapsed_s": 100.0,
        "due": False,
    }
    return StepReport(**{**found, **changed})  # type: ignore[arg-type]


def drawn(shown: StepReport, width: int) -> str:
    terminal = RichConsole(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    with terminal.capture() as capture:
        terminal.print(BarLine(shown))
    (line,) = Text.from_ansi(capture.get()).plain.splitlines()
    return line


@pytest.mark.parametrize("width", [40, 50, 60, 80, 132])
@pytest.mark.parametrize("doing", ["training", "validation"])
def test_what_is_done_and_the_step_stand_there_whatever_the_width(width: int, doing: str) -> None:
    line = drawn(report(doing=doing), width)
    assert line.startswith(f"{doing} ") and "12345/40000" in line and len(line) <= width
    assert "..." not in line and "…" not in line
    assert ("loss 1.7074" in line) == (width >= 50)
    assert ("lr 1.50e-03  2.06 s/step" in line) == (width >= 132)


def test_without_a_known_end_the_step_stands_there_too() -> None:
    assert line_words(report(total=None, eta_s=None, values={}), 60) == "12345/?  2.06 s/step"
    assert drawn(report(total=None), 60).startswith("training ")


def test_there_is_no_bar_where_nobody_watches() -> None:
    assert isinstance(console_for(io.StringIO()), PlainConsole)
    assert isinstance(console_for(None), PlainConsole)


def test_while_the_loop_has_a_bar_of_its_own_lines_are_printed() -> None:
    terminal = RichConsole(file=io.StringIO(), force_terminal=True, width=60)
    console = BarConsole(terminal)
    with tqdm(total=3, file=io.StringIO()):
        console.step(report(due=True), "a line of the log")
    console.close()
    assert "a line of the log" in terminal.file.getvalue()  # type: ignore[attr-defined]
    assert "12345/40000" not in terminal.file.getvalue()  # type: ignore[attr-defined]


def test_an_own_loop_has_the_same_bar_at_a_real_terminal(tmp_path: Path) -> None:
    (tmp_path / "loop.py").write_text(LOOP)
    ours, theirs = pty.openpty()
    how = environment(TERM="xterm", COLUMNS="60", LINES="20")
    how = {name: value for name, value in how.items() if name not in ("JPY_PARENT_PID", "KAGGLE_KERNEL_RUN_TYPE")}
    with Popen(
        python(tmp_path / "loop.py", tmp_path / "out"), env=how, stdin=DEVNULL, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(ours, 65536):
                seen += piece
        except OSError:  # the other end is gone
            pass
        assert process.wait(PATIENCE_S) == 0, seen.decode()
    os.close(ours)
    text = seen.decode()
    assert "training" in text and "/8" in text and "finished: 8 steps" in text
    assert "here is a line of the loop" in text and "Iter(train)" not in text
