"""The smallest application of the page: its command line, its refusals, and kills that change no bit."""

from __future__ import annotations

import random
import re
import shutil
from pathlib import Path

from tests.processes import python, run_command
from tests.twin.killing import kill_until_done
from unbroken.train import differences, read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
HERE = ROOT / "examples" / "application"
TRAIN = python("-m", "unbroken", "train", "line:recipe", "line.yaml", "--set", "epochs", "10")


def test_the_smallest_application_is_killed_and_ends_as_its_twin(tmp_path: Path, seed: int = 14) -> None:
    for name in ("peace", "killed"):
        shutil.copytree(HERE, tmp_path / name)
    peace = run_command(TRAIN, cwd=tmp_path / "peace")
    assert peace.returncode == 0, peace.stdout + peace.stderr
    killed = kill_until_done(
        tmp_path / "killed" / "output" / "line",
        [[*TRAIN, "--workers", workers] for workers in ("0", "2")],
        random.Random(seed),
        kills=2,
        steps_apart=40,
        cwd=tmp_path / "killed",
    )
    assert killed.kills == 2 and killed.sessions[-1].returncode == 0, killed
    last = "output/line/iter_130.pth"
    found = differences(*(read_checkpoint(tmp_path / name / last) for name in ("peace", "killed")))
    assert not list(found), seed


def test_it_says_what_a_changed_setting_does_and_how_it_is_typed_here(tmp_path: Path) -> None:
    shutil.copytree(HERE, tmp_path, dirs_exist_ok=True)
    assert run_command([*TRAIN[:-1], "1"], cwd=tmp_path).returncode == 0
    finished = run_command([*TRAIN[:-1], "1"], cwd=tmp_path)
    assert "plan: FINISHED" in finished.stdout and "to train longer: --set epochs N" in finished.stdout
    refused = run_command([*TRAIN, "width", "8"], cwd=tmp_path)
    assert refused.returncode == 13 and "changed: width: 32 -> 8 (shape)" in refused.stdout + refused.stderr
    mistyped = run_command([*TRAIN, "widht", "8"], cwd=tmp_path)
    assert mistyped.returncode == 2 and "width" in mistyped.stdout + mistyped.stderr


def test_the_page_shows_the_application_as_it_is() -> None:
    code = (HERE / "line.py").read_text("utf-8")
    for page in ("own-application.md", "own-application-zh.md"):
        text = (ROOT / "docs" / page).read_text("utf-8")
        blocks = re.findall(r"^```(?:python|text)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        assert len(blocks) == 3 and all(block in code for block in blocks)
    assert len(code.splitlines()) <= 130
