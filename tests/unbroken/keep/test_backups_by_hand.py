"""The guide's own way to back up: a copy named `best_model_backup.pth` among the checkpoints, a copy of the whole run.

Neither ever confuses a resume, nor counts for `prune`: real processes, under the names of both guides.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.twin.killing import Session, assert_twins, python, run_to_end
from tests.unbroken.cli.typing_commands import contents, process
from unbroken.checkpoint.structure import read_structure
from unbroken.run import EPOCHS, ITERATIONS, Layout

LOOP = Path(__file__).resolve().parents[2] / "twin" / "loops" / "either_layout.py"
BACKUP = "best_model_backup.pth"
DIES_AT = 17


@dataclass(frozen=True)
class Laid:
    """A killed run of 24 steps, its uninterrupted twin and another run, each in a folder of its own."""

    name: str
    layout: Layout
    old: str
    newest: str
    last: str
    root: Path

    def train(self, *numbers: int, root: Path | None = None) -> Session:
        return run_to_end(python(LOOP, root or self.root, "baseline", self.name, *numbers))

    @property
    def run(self) -> Path:
        return self.root / "baseline"

    @property
    def folder(self) -> Path:
        return self.layout.checkpoints(self.run)


KINDS = {
    "iterations": (ITERATIONS, "iter_6.pth", "iter_16.pth", "iter_24.pth"),
    "epochs": (EPOCHS, "checkpoint_epoch_1.pth", "latest_model.pth", "checkpoint_epoch_4.pth"),
}


@pytest.fixture(scope="module", params=KINDS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Laid:
    laid = Laid(request.param, *KINDS[request.param], tmp_path_factory.mktemp(request.param))
    assert laid.train(DIES_AT).returncode == -9
    assert laid.train(root=laid.root / "twin").returncode == 0
    assert laid.train(0, 7, root=laid.root / "other").returncode == 0
    return laid


@pytest.fixture
def laid(made: Laid, tmp_path: Path) -> Laid:
    shutil.copytree(made.run, tmp_path / "output" / "baseline", symlinks=True)
    return Laid(made.name, made.layout, made.old, made.newest, made.last, tmp_path / "output")


def ends_as_the_twin(laid: Laid, made: Laid, session: Session) -> None:
    assert session.returncode == 0, session.output
    twin, run = made.root / "twin" / "baseline", laid.run
    inside = laid.layout.checkpoint_folder
    assert_twins(run, twin, f"{inside}/{laid.last}" if inside else laid.last)


def test_a_copy_of_an_old_save_is_not_resumed_while_newer_ones_are_there(laid: Laid, made: Laid) -> None:
    shutil.copy(laid.folder / laid.old, laid.folder / BACKUP)  # its time is the newest of all
    before = (laid.folder / BACKUP).read_bytes()
    session = laid.train()
    assert f"{laid.newest} has the furthest recorded step of this run (16)" in session.output, session.output
    ends_as_the_twin(laid, made, session)
    assert (laid.folder / BACKUP).read_bytes() == before


def test_a_copy_that_is_the_only_file_left_is_resumed_from_its_own_step(laid: Laid, made: Laid) -> None:
    shutil.copy(laid.folder / laid.old, laid.folder / BACKUP)
    for path in laid.folder.glob("*.pth"):
        if path.name != BACKUP:
            path.unlink()
    session = laid.train()
    assert f"{BACKUP} is the furthest sound checkpoint of this run here (step 6)" in session.output, session.output
    assert "is not here: the 10 steps after 6 are done again" in session.output, session.output
    ends_as_the_twin(laid, made, session)


def test_a_copy_of_another_run_is_never_resumed(laid: Laid, made: Laid) -> None:
    other = made.layout.checkpoints(made.root / "other" / "baseline")
    shutil.copy(other / laid.last, laid.folder / BACKUP)
    session = laid.train()
    assert f"{laid.newest} has the furthest recorded step of this run (16)" in session.output, session.output
    ends_as_the_twin(laid, made, session)


def test_a_copy_of_another_run_alone_is_refused_and_nothing_is_changed(laid: Laid, made: Laid) -> None:
    for path in laid.folder.glob("*.pth"):
        path.unlink()
    shutil.copy(made.layout.checkpoints(made.root / "other" / "baseline") / laid.last, laid.folder / BACKUP)
    before = contents(laid.run)
    session = laid.train()
    assert session.returncode == 12 and "REFUSE" in session.output, session.output
    after = contents(laid.run)
    assert {name: before[name] for name in before if name in after} == before


def test_a_copy_that_was_cut_off_is_named_and_costs_nothing(laid: Laid, made: Laid) -> None:
    whole = (laid.folder / laid.newest).read_bytes()
    (laid.folder / BACKUP).write_bytes(whole[: len(whole) // 2])
    session = laid.train()
    assert BACKUP in session.output and "cut off" in session.output
    ends_as_the_twin(laid, made, session)


def test_a_copy_of_the_whole_run_beside_it_changes_nothing_and_is_left_alone(laid: Laid, made: Laid) -> None:
    copy = laid.root / "baseline_backup_20260205"
    shutil.copytree(laid.run, copy)  # as Copy-Item -Recurse does: a link becomes a file
    before = contents(copy)
    ends_as_the_twin(laid, made, laid.train())
    assert contents(copy) == before


def test_a_copy_is_no_state_for_prune_and_is_never_removed(laid: Laid, made: Laid) -> None:
    shutil.copy(laid.folder / laid.newest, laid.folder / BACKUP)
    answer = process("prune", laid.run, "--keep-last", 1, "--json")
    assert answer.code == 0, answer.err
    (told,) = answer.data
    rules = {item["file"]: item["rule"] for item in told["files"] if item["keep"]}
    assert rules[BACKUP] == "yours"
    states = [name for name, rule in rules.items() if rule != "yours"]
    left = {path.name for path in laid.folder.glob("*.pth") if not path.is_symlink()}
    assert left == {*states, BACKUP}
    assert sorted(read_structure(laid.folder / name).step or 0 for name in states) == [12, 16]
    ends_as_the_twin(laid, made, laid.train())
