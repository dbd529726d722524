"""An archived history comes back, whatever is there now, and a kill at any move is only a pause."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.twin.killing import python, run_to_end
from tests.unbroken.conftest import LOOP
from tests.unbroken.real_runs import newest
from unbroken.cli import main
from unbroken.clock import SystemClock
from unbroken.errors import RunHeld, UsageError
from unbroken.keep.archive import archived, restore
from unbroken.run import ITERATIONS
from unbroken.run.survey import survey
from unbroken.storage import Disk, durable_folder
from unbroken.storage.lock import RunLock
from unbroken.train import differences, read_checkpoint


class Killed(BaseException):
    """The process ends here."""


class Mortal(Disk):
    """A disk that ends the process before its n-th change."""

    def __init__(self, lives: int) -> None:
        self.lives = lives

    def _live(self) -> None:
        self.lives -= 1
        if self.lives < 0:
            raise Killed

    def rename(self, source: Path, target: Path) -> None:
        self._live()
        super().rename(source, target)

    def move(self, source: Path, target: Path) -> None:
        self._live()
        super().move(source, target)

    def remove(self, path: Path) -> None:
        self._live()
        super().remove(path)

    def remove_folder(self, folder: Path) -> None:
        self._live()
        super().remove_folder(folder)


@pytest.fixture(scope="module")
def begun_anew(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 120 steps that was started over and stands at step 120 again, with another seed."""
    root = tmp_path_factory.mktemp("anew")
    run = Path(shutil.copytree(finished_run, root / "plain_loop", symlinks=True))
    script = root / "fresh.py"
    script.write_text(
        LOOP.read_text("utf-8").replace("save_every=10)", "save_every=10, fresh=True, seed=5)", 1), "utf-8"
    )
    session = run_to_end(python(script, root, 0))
    assert session.returncode == 0, session.output
    return run


@pytest.fixture
def anew(begun_anew: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(begun_anew, tmp_path / "output" / "plain_loop", symlinks=True))


def contents(run: Path) -> dict[str, bytes]:
    """The checkpoints of a run, as bytes."""
    return {path.name: path.read_bytes() for path in run.glob("*.pth") if not path.is_symlink()}


def files_but_of_the_lock(run: Path) -> list[str]:
    return sorted(str(path.relative_to(run)) for path in run.rglob("*") if not path.name.startswith("holder"))


def test_a_history_and_the_one_that_replaced_it_change_places(anew: Path, finished_run: Path) -> None:
    later = contents(anew)
    (old,) = archived(anew)
    assert old.step == 120
    aside = restore(anew, old.name, disk=Disk(), clock=SystemClock())
    assert aside is not None and contents(anew) == contents(finished_run)
    assert contents(anew / "archive" / aside) == later
    back = restore(anew, aside, disk=Disk(), clock=SystemClock())
    assert back is not None and contents(anew) == later
    assert [item.step for item in archived(anew)] == [120]


def test_the_same_script_takes_the_restored_history_for_its_own(anew: Path) -> None:
    (old,) = archived(anew)
    restore(anew, old.name, disk=Disk(), clock=SystemClock())
    session = run_to_end(python(LOOP, anew.parent, 0))
    assert session.returncode == 0 and "FINISHED" in session.output, session.output
    facts = survey(anew, ITERATIONS)
    assert not facts.archiving and facts.finished_at == 120 and facts.newest_good is not None


def test_killed_at_any_change_of_the_disk_nothing_is_launched_until_the_same_command_ends_it(
    begun_anew: Path, finished_run: Path, tmp_path: Path
) -> None:
    later, former = contents(begun_anew), contents(finished_run)
    lives, over, refused = 0, False, 0
    while not over:
        run = Path(shutil.copytree(begun_anew, tmp_path / str(lives), symlinks=True))
        (old,) = archived(run)
        try:
            restore(run, old.name, disk=Mortal(lives), clock=SystemClock())
            over = True
        except Killed:
            facts = survey(run, ITERATIONS)
            if facts.restoring is not None:
                refused += 1
                restore(run, old.name, disk=Disk(), clock=SystemClock())
            elif contents(run) == later:  # it had not begun
                restore(run, old.name, disk=Disk(), clock=SystemClock())
        assert contents(run) == former
        kept = [contents(path) for path in (run / "archive").iterdir()]
        assert kept == [later]
        shutil.rmtree(run)
        lives += 1
    assert refused > 20, f"{refused} of {lives} kills fell into the restore"


def test_a_launch_in_a_half_restored_folder_is_refused_and_says_how_to_finish(anew: Path) -> None:
    (old,) = archived(anew)
    with pytest.raises(Killed):
        restore(anew, old.name, disk=Mortal(8), clock=SystemClock())
    before = files_but_of_the_lock(anew)
    session = run_to_end(python(LOOP, anew.parent, 0))
    assert session.returncode == 10 and f"unbroken restore {anew} {old.name}" in session.output
    assert files_but_of_the_lock(anew) == before
    with pytest.raises(UsageError, match="was cut off"):
        restore(anew, "another", disk=Disk(), clock=SystemClock())


def test_a_history_that_is_not_there_and_a_run_that_is_worked_on_are_refused(anew: Path) -> None:
    with pytest.raises(UsageError, match="no such history"):
        restore(anew, "20200101_000000", disk=Disk(), clock=SystemClock())
    durable_folder(Disk(), anew / "unbroken")
    (old,) = archived(anew)
    lock = RunLock(Disk(), anew / "unbroken", SystemClock())
    lock.acquire("someone")
    try:
        with pytest.raises(RunHeld):
            restore(anew, old.name, disk=Disk(), clock=SystemClock())
    finally:
        lock.release()


def test_the_command_lists_and_brings_back(anew: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = read_checkpoint(newest(anew))["state_dict"]
    (old,) = archived(anew)
    assert main(["restore", str(anew)]) == 0
    said = capsys.readouterr().out
    assert old.name in said and "120" in said and f"unbroken restore {anew} {old.name}" in said
    assert main(["restore", str(anew), old.name]) == 0
    assert "is the history of" in capsys.readouterr().out
    assert differences(read_checkpoint(newest(anew))["state_dict"], weights) != []
    assert main(["show", str(anew), "--json"]) == 0
    begun = [session["verdict"] for session in json.loads(capsys.readouterr().out)["sessions"]]
    assert begun == ["fresh"], "what moved this history aside and brought it back was no session of it"
    assert main(["restore", str(anew.parent)]) == 0
    assert "holds no history" in capsys.readouterr().out
    assert archived(anew.parent) == ()
