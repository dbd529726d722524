"""The ready notebook: up to date, its commands exist, and two sessions of it in a real kernel are one training."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
from docs.notebook import as_text, notebook
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from tests.test_docs import problems
from tests.twin.killing import PATIENCE_S, environment, evaluations, python, run_to_end, step_records
from tests.twin.season import contents, strip

APP = Path(__file__).resolve().parents[2] / "apps" / "mapsage"
FILE = APP / "kaggle.ipynb"
STEPS, EVALUATE_EVERY, STOP_AFTER = 16, 8, 5
CONFIG = "configs/aerial_tiny_short.py"
SHORT = f"""
_base_ = "./aerial_tiny.py"
train_dataloader = dict(batch_size=2, num_workers=0)
val_dataloader = dict(num_workers=0, dataset=dict(pipeline=[
    dict(type="LoadImageFromFile"), dict(type="Resize", scale=(64, 64)), dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]))
train_cfg = dict(max_iters={STEPS}, val_interval={EVALUATE_EVERY})
"""


def test_the_committed_notebook_is_up_to_date() -> None:
    assert FILE.read_text("utf-8") == as_text(notebook()), (
        "run `python -m docs.notebook apps/mapsage/kaggle.ipynb` in the root of the repository"
    )


def test_it_is_a_valid_notebook_of_four_cells_without_outputs_as_jupyter_itself_writes_it() -> None:
    read = nbformat.read(FILE, as_version=4)
    nbformat.validate(read)
    code = [cell for cell in read.cells if cell.cell_type == "code"]
    assert [cell.id for cell in code] == ["install", "mounted", "train", "commit"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert nbformat.writes(read) == FILE.read_text("utf-8").rstrip("\n")


def test_every_command_in_it_exists_with_its_options() -> None:
    lines = [line.strip() for cell in notebook()["cells"] if cell["cell_type"] == "code" for line in cell["source"]]
    typed = [line[1:] for line in lines if line.startswith(("!unbroken ", "!python "))]
    assert len(typed) == 6
    assert [problem for line in typed for problem in problems(re.sub(r"\{\w+\}", "x", line))] == []


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The repository as it is mounted, with a shorter job."""
    folder = tmp_path_factory.mktemp("mounted") / "unbroken"
    for name in ("scripts", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(APP / name, folder / "apps" / "mapsage" / name, ignore=ignored)
    (folder / "apps" / "mapsage" / CONFIG).write_text(SHORT, "utf-8")
    return folder


def execute(working: Path, inputs: Path, code: Path, **extra: str) -> dict[str, str]:
    """Run all cells in a fresh kernel, as a commit does; what each printed."""
    working.mkdir()
    read = nbformat.read(FILE, as_version=4)
    client = NotebookClient(read, timeout=int(PATIENCE_S), kernel_name="python3", resources=_in(working))
    settings = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "IPYTHONDIR": str(working.parent / "ipython"),
        "KAGGLE_KERNEL_RUN_TYPE": "Batch",
        "UNBROKEN_SESSION_END": str(time.time() + 3600),  # else it is counted from when this machine was started
        "UNBROKEN_SEARCH_PATH": str(inputs),
        "MAPSAGE_WORKING": str(working),
        "MAPSAGE_CODE": str(code),
        "MAPSAGE_CONFIG": CONFIG,
    }
    client.execute(env=environment(**{**settings, **extra}))
    return {cell.id: _printed(cell) for cell in read.cells if cell.cell_type == "code"}


def _in(folder: Path) -> dict[str, dict[str, str]]:
    return {"metadata": {"path": str(folder)}}


def _printed(cell: NotebookNode) -> str:
    assert {output.output_type for output in cell.outputs} <= {"stream"}, cell.outputs
    return "".join(output.text for output in cell.outputs).replace("\r\n", "\n")


def stop_after(run: Path, steps: int) -> None:
    """Ask the training to stop, as a host does, once it has done so many steps."""
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        if (run / "unbroken" / "metrics.jsonl").exists() and len(step_records(run)) >= steps:
            os.kill(json.loads((run / "unbroken" / "holder.json").read_text("utf-8"))["pid"], signal.SIGTERM)
            return
        time.sleep(0.01)


def test_a_second_session_of_it_goes_on_where_the_first_stopped(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    inputs, place = tmp_path / "input", Path("MapSage_V5", "work_dirs", Path(CONFIG).stem)
    inputs.mkdir()
    stopper = threading.Thread(target=stop_after, args=(tmp_path / "first" / place, STOP_AFTER))
    stopper.start()
    first = execute(tmp_path / "first", inputs, code)
    stopper.join()

    assert "plan: FRESH" in first["mounted"] and "plan: FRESH" in first["train"]
    assert "stopped by SIGTERM" in first["train"]
    assert "stopped by SIGTERM" in first["commit"] and "every byte read back" in first["commit"]
    stopped_at = max(step_records(tmp_path / "first" / place))

    shutil.copytree(tmp_path / "first", inputs / "notebook0f3a" / "versions", symlinks=True)
    strip(inputs, random.Random(7))
    before = contents(inputs)
    second = execute(tmp_path / "second", inputs, code)

    run = tmp_path / "second" / place
    assert Path(CONFIG).stem in second["mounted"], "`unbroken ls` shows what is mounted"
    for said in (second["mounted"], second["train"]):
        assert f"plan: RESUME - continue {place.relative_to('MapSage_V5')} at step {stopped_at + 1} of" in said
        assert str(inputs / "notebook0f3a") in said
    assert f"finished: {STEPS} steps" in second["train"] and "finished" in second["commit"]
    assert sorted(step_records(run)) == list(range(1, STEPS + 1))
    assert sorted(evaluations(run)) == list(range(EVALUATE_EVERY, STEPS + 1, EVALUATE_EVERY))
    assert (tmp_path / "second" / f"{Path(CONFIG).stem}.zip").is_file()
    assert contents(inputs) == before
    audit = run_to_end(python("-m", "unbroken", "audit", run))
    assert audit.returncode == 0, audit.output


def test_it_fails_when_the_training_was_refused_or_the_code_is_not_mounted(
    code: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "input").mkdir()
    with pytest.raises(CellExecutionError, match="exit code 2"):
        execute(tmp_path / "working", tmp_path / "input", code, MAPSAGE_CONFIG="configs/no_such.py")
    with pytest.raises(CellExecutionError, match="mount this repository"):
        execute(tmp_path / "another", tmp_path / "input", tmp_path / "nowhere")
