"""The loop of the page on many processes is a whole program: torchrun starts it, a process is killed, it goes on."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path

from tests.processes import PATIENCE_S, PIPE, STDOUT, Popen, python, run_command
from tests.twin.killing import lines_in
from tests.twin.together import run_together

DOCS = Path(__file__).resolve().parents[2] / "docs"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)


def program(page: str) -> str:
    """The first program of a page, without its comments, which are in its language."""
    found = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text("utf-8"), re.DOTALL)[0]
    return re.sub(r"  # .*", "", found)


def children(process: int) -> list[int]:
    """The processes that one has started; there are none where it has ended."""
    try:
        return [*map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())]
    except OSError:
        return []


def test_it_is_the_same_program_in_both_languages() -> None:
    assert program("many-processes.md") == program("many-processes-zh.md")


def test_it_runs_under_torchrun_and_goes_on_where_a_process_of_it_was_killed(tmp_path: Path) -> None:
    run, script = tmp_path / "output" / "baseline", tmp_path / "train.py"
    script.write_text(program("many-processes.md").replace("epochs=10", "epochs=5000"), "utf-8")  # until it is killed
    launcher = Popen(python(*TORCHRUN, script), cwd=tmp_path, stdout=PIPE, stderr=STDOUT, text=True)
    give_up = time.monotonic() + PATIENCE_S
    while lines_in(run / "unbroken" / "metrics.jsonl") < 12 and launcher.poll() is None:
        assert time.monotonic() < give_up
        time.sleep(0.01)
    os.kill(children(launcher.pid)[1], signal.SIGKILL)
    said, _ = launcher.communicate(timeout=PATIENCE_S)
    assert launcher.returncode == 1 and "process 1 of this training has ended" in said, said
    done = lines_in(run / "unbroken" / "metrics.jsonl")
    epochs = done // 4 + 2  # of four steps each
    script.write_text(program("many-processes.md").replace("epochs=10", f"epochs={epochs}"), "utf-8")
    sessions = run_together(python(script), 2, cwd=tmp_path)
    assert [each.returncode for each in sessions] == [0, 0], sessions
    assert "plan: RESUME" in sessions[0].output and f"finished: {4 * epochs} steps" in sessions[0].output
    audit = run_command(python("-m", "unbroken", "audit", run))
    assert audit.returncode == 0, audit.stdout + audit.stderr
