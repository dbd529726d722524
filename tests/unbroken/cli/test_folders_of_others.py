"""Folders of others, which one may not enter, stop nothing that does not need them, and are named where it does."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from focalsst.samples import write_sample_data as write_frames
from tests.processes import environment, run_command
from tests.twin.aerial import write_job
from tests.unbroken.cli.typing_commands import FULL_STEPS, Answer, reads_well

AS_NOBODY = ("setpriv", "--reuid", "65534", "--clear-groups") if os.name != "nt" and os.geteuid() == 0 else ()
CONVERT = Path(__file__).resolve().parents[3] / "apps/focal_sst/convert.py"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the rights of POSIX")


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A folder that everyone may use, with a training in it, and in each of its folders one that nobody may enter."""
    top = Path(tempfile.mkdtemp())  # pytest's own folders are for their user alone
    me = top / "me"
    (me / "work_dirs").mkdir(parents=True)
    config = write_job(me, steps=FULL_STEPS)
    (me / "theirs.py").write_bytes(config.read_bytes())
    shut = [top / "lost+found", me / "shut", me / "work_dirs/secret"]
    for folder in shut:
        folder.mkdir()
    for path in (top, *top.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    for path in (*shut, me / "theirs.py"):
        path.chmod(0)
    yield me
    for folder in shut:
        folder.chmod(0o700)
    shutil.rmtree(top)


def typed(me: Path, *words: str) -> Answer:
    """One command as somebody who is not root, who may enter everything."""
    env = environment(HOME=str(me), XDG_CACHE_HOME=str(me / "cache"))
    done = run_command([*AS_NOBODY, sys.executable, "-m", "unbroken", *words], cwd=me, env=env, timeout=120)
    return Answer(done.returncode, done.stdout, done.stderr)


def test_a_launch_begins_beside_a_folder_that_it_may_not_enter(made: Path) -> None:
    answer = typed(made, "why", "mapsage", "small.py", "--tag", "new")
    assert answer.code == 0 and answer.out.startswith("plan: FRESH"), answer.out + answer.err


def test_a_folder_to_search_that_may_not_be_read_is_not_said_to_hold_nothing(made: Path) -> None:
    answer = typed(made, "why", "mapsage", "small.py", "--tag", "new", "--search", "shut")
    assert answer.code == 0
    assert "note: shut was to be searched and may not be read: permission denied" in answer.out
    assert "holds no copy" not in answer.out


@pytest.mark.parametrize("command", ["why", "train"])
@pytest.mark.parametrize(
    "words", [["--work-dir", "shut/x"], ["--tag", "secret"], ["--ckpt", "shut/x.pth"]], ids=" ".join
)
def test_what_may_not_be_looked_at_is_named_without_a_trace(made: Path, command: str, words: list[str]) -> None:
    answer = typed(made, command, "mapsage", "small.py", *words)
    assert answer.code == 2 and reads_well(answer), answer.out + answer.err
    assert "cannot be looked at (Permission denied). See who may read it, or name another." in answer.err


def test_a_config_and_a_folder_of_runs_that_may_not_be_read_are_named(made: Path) -> None:
    config, runs = typed(made, "why", "mapsage", "theirs.py"), typed(made, "ls", "shut")
    assert config.code == 2 and "theirs.py: this cannot be read (Permission denied). See who may" in config.err
    assert runs.code == 2 and "shut: this folder may not be read" in runs.err


@pytest.mark.parametrize("folder", ["Train/images_png", "Train/images_png/part2", "Val/masks_png"])
def test_pictures_that_may_not_be_read_are_no_smaller_data_set(made: Path, folder: str) -> None:
    (data,) = {path.parent.parent for path in made.rglob("Train/images_png")}
    shut = data / folder
    shut.mkdir(exist_ok=True)
    shut.chmod(0)
    try:
        answer = typed(made, "why", "mapsage", "small.py", "--tag", "new")
    finally:
        shut.chmod(0o777)
    assert answer.code == 12 and reads_well(answer), answer.out + answer.err
    assert f"{folder}: the operating system refuses it (Permission denied)" in answer.err, answer.err


@pytest.mark.parametrize("folder", ["points", "points_binary"])
def test_points_that_may_not_be_read_are_not_said_to_be_missing(made: Path, folder: str) -> None:
    root = made / "frames"
    write_frames(root, train=2, val=2, points=600)
    for path in (root, *root.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    (root / folder).chmod(0)
    try:
        convert = [*AS_NOBODY, sys.executable, str(CONVERT), "points", str(root)]
        done = run_command(convert, cwd=made, env=environment(HOME=str(made)), timeout=120)
    finally:
        (root / folder).chmod(0o777)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and f"{folder}: the disk refuses (Permission denied)" in said, said
    assert "Traceback" not in said
