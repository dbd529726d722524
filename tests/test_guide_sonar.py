"""The commands of the sonar guide are run as typed, and what it promises holds (`guide_sonar.py` has the table).

`cfgs/sonar_models/focal_sst.yaml` is here the smallest network on two frames; a command of which only the beginning
matters is stopped by a signal.
"""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from focalsst.recipes import DEFAULT_CONFIG
from focalsst.recipes import parser as training_parser
from focalsst.samples import write_sample_data
from focalsst.testing import parser as judging_parser
from tests.guide_sonar import APP, PATIENCE_S, RUNS, STORIES, Row
from tests.processes import Popen, python
from unbroken.cli import main
from unbroken.config import read_config


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the application's folder, its focal_sst.yaml being the smallest network, and two frames."""
    for name in ("train.py", "test.py", "convert.py"):
        shutil.copy(APP / name, tmp_path)
    shutil.copytree(APP / "cfgs", tmp_path / "cfgs")
    monkeypatch.chdir(tmp_path)
    tree = read_config(Path("cfgs/sonar_models/nano.yaml"), environment={}).tree
    tree["OPTIMIZATION"] |= {"NUM_EPOCHS": 2, "EVAL_INTERVAL": 0, "BATCH_SIZE_PER_GPU": 2}
    Path(DEFAULT_CONFIG).write_text(yaml.safe_dump(tree, sort_keys=False), "utf-8")
    write_sample_data(tmp_path / "data/sonar", train=2, val=1, points=200, reach_m=20.0, seed=3)
    return tmp_path


@pytest.mark.parametrize("story", STORIES)
def test_the_guide_as_typed(story: str, app: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for row in STORIES[story]:
        config = DEFAULT_CONFIG.read_text("utf-8")
        _edit(row.edit)
        code, output = _run(row, app, capsys)
        where = f"{row.guide}\n$ {row.run}\n{output}"
        assert code == row.code, f"exit code {code}, expected {row.code}: {where}"
        assert [words for words in row.says if words not in output] == [], where
        assert [words for words in row.never if words in output] == [], where
        if row.then is not None:
            row.then(app)
        if row.undo:
            DEFAULT_CONFIG.write_text(config, "utf-8")


PAGE = APP.parents[1] / "docs" / "guide-sonar.md"
TYPED = re.compile(r"^(?:\$ )?python (train|test|convert)\.py (.+?)(?:\s+#.*)?$", re.MULTILINE)


def test_the_page_s_commands_have_these_options() -> None:
    shown = TYPED.findall(PAGE.read_text("utf-8").replace("\\\n", " "))
    assert len(shown) > 20
    for script, words in shown:
        if script != "convert":
            {"train": training_parser, "test": judging_parser}[script]().parse_args(shlex.split(words))


def _edit(changes: Mapping[str, Any]) -> None:
    """Change keys of the config file, as a person would in an editor."""
    tree = yaml.safe_load(DEFAULT_CONFIG.read_text("utf-8"))
    for dotted, value in changes.items():
        *path, last = dotted.split(".")
        place = tree
        for part in path:
            place = place[int(part)] if isinstance(place, list) else place[part]
        place[last] = value
    DEFAULT_CONFIG.write_text(yaml.safe_dump(tree, sort_keys=False), "utf-8")


def _run(row: Row, app: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    if not row.run:
        return 0, ""
    if row.run.startswith("unbroken "):
        code = main(shlex.split(row.run)[1:])
        captured = capsys.readouterr()
        return code, captured.out + captured.err
    typed = row.run.replace("\\\n", " ")
    command = python(*shlex.split(typed)[1:]) if typed.startswith("python ") else ["bash", "-c", typed]
    with (app / "output.txt").open("w+", encoding="utf-8") as output:
        process = Popen(command, cwd=app, stdout=output, stderr=output)
        try:
            code = _cut(process, row) if row.cut else process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        return code, output.read()


def _cut(process: Popen, row: Row) -> int:
    """Send the row's signal as soon as the checkpoint of its epoch is there."""
    assert row.cut is not None
    words = row.run.replace("\\\n", " ").split()
    name, epoch = row.cut
    awaited = RUNS / words[words.index("--extra_tag") + 1] / "ckpt" / f"checkpoint_epoch_{epoch}.pth"
    fresh = "--fresh" in words
    began = time.time() if fresh else 0.0
    give_up = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < give_up:
        if awaited.exists() and awaited.stat().st_mtime >= began:
            process.send_signal(signal.Signals[name])
            break
        time.sleep(0.02)
    return process.wait(PATIENCE_S)
