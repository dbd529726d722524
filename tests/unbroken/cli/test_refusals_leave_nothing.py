"""A launch that fails before it begins leaves everything as it was: no folder, no lock, no log, no cache."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.processes import run_command
from tests.twin import aerial, sonar
from tests.unbroken.cli.typing_commands import Type, contents
from unbroken.clock import SystemClock
from unbroken.run.layout import ITERATIONS
from unbroken.storage import Disk
from unbroken.storage.lock import RunLock
from unbroken.train import Exit, open_run

Folder = Callable[[Path], None]  # puts something into the run's folder, which exists by then

# -- what lies there --------------------------------------------------------------------------------------------------


def nothing(_run: Path) -> None:
    """There is no such folder yet."""


def an_empty_folder(run: Path) -> None:
    run.mkdir(parents=True)


def notes(run: Path) -> None:
    run.mkdir(parents=True)
    (run / "notes.txt").write_text("mine")


def damage(run: Path) -> None:
    for name in ("iter_5.pth", "ckpt/checkpoint_epoch_5.pth"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"PK\x03\x04" + bytes(100))


def a_newer_version(run: Path) -> None:
    for name in ("iter_5.pth", "ckpt/checkpoint_epoch_5.pth"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        torch.save({"unbroken": {"format": 999, "run": "1f0e4c2a9b7d5836", "step": 5}}, run / name)


def records_that_lead_out(run: Path) -> None:
    (run / "unbroken").mkdir(parents=True)
    facts = {"id": "1f0e4c2a9b7d5836", "recipe": "r", "tag": "exp7", "created": "2026-02-05T10:00:00Z", "seed": 0}
    layout = {**ITERATIONS.as_plain(), "predictions": "../victim"}
    (run / "unbroken" / "run.json").write_text(json.dumps({**facts, "format": 1, "layout": layout}))


def a_link_that_leads_out(run: Path) -> None:
    (run.parent / "victim").mkdir(parents=True)
    run.mkdir()
    (run / "unbroken").symlink_to(run.parent / "victim")


def a_file_in_its_place(run: Path) -> None:
    run.parent.mkdir(parents=True)
    run.write_text("no folder")


HARMLESS: list[Folder] = [nothing, an_empty_folder, notes]
REFUSED: list[Folder] = [damage, a_newer_version, records_that_lead_out, a_link_that_leads_out, a_file_in_its_place]


# -- recipes ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def project_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    aerial.write_job(folder)
    sonar.write_job(folder, frames=4, epochs=1, pasting=False)
    return folder


@pytest.fixture
def project(project_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("small.py", "cfgs"):
        source = project_made / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    (tmp_path / "data").symlink_to(project_made / "data")
    (tmp_path / "garbage.pth").write_bytes(b"garbage")
    monkeypatch.chdir(tmp_path)
    return tmp_path


RECIPES: dict[str, tuple[list[str], str, str, list[str]]] = {  # what is typed, the run, its tag's option, missing data
    "mapsage": (
        ["train", "mapsage", "small.py", "--device", "cpu"], "work_dirs/exp7", "--tag",
        ["--cfg-options", "train_dataloader.dataset.data_root=nowhere"],
    ),
    "focalsst": (
        ["train", "focalsst", "cfgs/sonar_models/tiny.yaml", "--workers", "0", "--device", "cpu"],
        "output/sonar_models/tiny/exp7", "--extra_tag", ["--set", "DATA_CONFIG.DATA_PATH", "nowhere"],
    ),
}  # fmt: skip
WRONG = {
    "an option that is not known": ["--sesion", "1h"],
    "a duration without a unit": ["--session", "12"],
    "no time left": ["--session", "5m", "--reserve", "10m"],
    "a file to resume from that is not there": ["--ckpt", "none.pth"],
    "garbage to resume from": ["--ckpt", "garbage.pth"],
    "weights that are not there": ["--pretrained_model", "none.pth"],
    "weights that are garbage": ["--pretrained_model", "garbage.pth"],
    "strict without weights": ["--strict"],
    "a backup in the run's own folder": ["--backup", "{run}/backup"],
    "a tag that leads out": ["{tag}", "../x"],
    "no data": ["{data}"],
    "a device that is not there": ["--device", "cuda:77"],
}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("lies_there", [nothing, notes], ids=lambda put: put.__name__)
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_as_it_is_typed_leaves_nothing(
    recipe: str, lies_there: Folder, wrong: str, project: Path, type_: Type
) -> None:
    words, run, tag, no_data = RECIPES[recipe]
    lies_there(project / run)
    before = contents(project)
    given = [word.format(run=run, tag=tag, data="") for word in WRONG[wrong]] if wrong != "no data" else no_data
    answer = type_(*words, *([] if wrong == "a tag that leads out" else [tag, "exp7"]), *given)
    assert answer.code in (2, 10, 12, 13, 75), (answer.code, answer.out, answer.err)
    assert contents(project) == before, (answer.code, answer.err)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("lies_there", REFUSED, ids=lambda put: put.__name__)
def test_what_lies_in_the_runs_folder_is_left_as_it_is(
    recipe: str, lies_there: Folder, project: Path, type_: Type
) -> None:
    words, run, tag, _ = RECIPES[recipe]
    lies_there(project / run)
    before = contents(project)
    answer = type_(*words, tag, "exp7")
    assert answer.code in (2, 10, 12, 13, 14), (answer.code, answer.out, answer.err)
    assert contents(project) == before, (answer.code, answer.err)


@pytest.mark.parametrize("lies_there", [*HARMLESS, damage], ids=lambda put: put.__name__)
def test_a_run_that_is_held_is_left_to_who_holds_it(lies_there: Folder, project: Path, type_: Type) -> None:
    run = project / "work_dirs" / "exp7"
    lies_there(run)
    untouched = contents(project)
    lock = RunLock(Disk(), run / "unbroken", SystemClock())
    lock.acquire("20260205_100000")
    before = contents(project)
    assert type_(*RECIPES["mapsage"][0], "--tag", "exp7").code in (11, 12, 14)
    assert contents(project) == before
    lock.withdraw()
    assert contents(project) == untouched, "what was made for the lock goes with it"


# -- anyone's own loop ------------------------------------------------------------------------------------------------

SAMPLES = torch.arange(16.0).view(8, 2)


def train(root: Path, *, width: int = 1, steps: int = 2, **asked: Any) -> None:
    """One session; it ends with an Exit where it is refused."""
    asked = {"tag": "exp7", "config": {"width": width, "steps": steps}, "effects": {"width": "shape"}} | asked
    model = torch.nn.Linear(2, width)
    with open_run(root, **asked) as run:
        run.track(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        for batch in run.batches(SAMPLES, batch_size=2, steps=steps):
            run.end_step(loss=model(batch).mean())


LOOPS: dict[str, dict[str, Any]] = {
    "a tag": {"tag": "../x"},
    "a duration": {"session_s": "12"},
    "a size": {"quota": "20"},
    "a file": {"ckpt": "none.pth"},
    "garbage": {"ckpt": "garbage.pth"},
    "weights": {"pretrained_model": "none.pth"},
    "garbage weights": {"pretrained_model": "garbage.pth"},
    "a config": {"config": {"a": object()}},
    "no steps": {"steps": 0},
    "fewer than none": {"steps": -1},
}


@pytest.mark.parametrize("lies_there", HARMLESS, ids=lambda put: put.__name__)
@pytest.mark.parametrize("wrong", LOOPS)
def test_a_loop_that_asks_for_what_cannot_be_leaves_nothing(
    lies_there: Folder, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "garbage.pth").write_bytes(b"garbage")
    lies_there(tmp_path / "deep" / "runs" / "exp7")
    before = contents(tmp_path)
    with pytest.raises(Exit) as ending:
        train(tmp_path / "deep" / "runs", **LOOPS[wrong])
    assert ending.value.code in (2, 10, 12, 13)
    assert contents(tmp_path) == before


def ends_before_its_first_batch(run: Any) -> None:
    raise InterruptedError


def tracks_what_has_no_state(run: Any) -> None:
    run.track(model=object())


def has_no_data(run: Any) -> None:
    next(run.batches([], batch_size=2, epochs=1))


def has_data_without_places(run: Any) -> None:
    next(run.batches(iter(range(8)), batch_size=2, epochs=1))


def does_not_say_how_long(run: Any) -> None:
    next(run.batches(SAMPLES, batch_size=2))


def says_it_twice(run: Any) -> None:
    next(run.batches(SAMPLES, batch_size=2, epochs=1, steps=1))


def wants_no_epoch(run: Any) -> None:
    next(iter(run.epochs(0)))


def saves_too_early(run: Any) -> None:
    run.save()


FAILING = [
    ends_before_its_first_batch, tracks_what_has_no_state, has_no_data, has_data_without_places,
    does_not_say_how_long, says_it_twice, wants_no_epoch, saves_too_early,
]  # fmt: skip


@pytest.mark.parametrize("lies_there", HARMLESS, ids=lambda put: put.__name__)
@pytest.mark.parametrize("fails", FAILING, ids=lambda loop: loop.__name__)
def test_a_loop_that_fails_before_it_begins_leaves_nothing(
    lies_there: Folder, fails: Callable[[Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lies_there(tmp_path / "deep" / "runs" / "exp7")
    before = contents(tmp_path)
    with pytest.raises((Exit, InterruptedError)), open_run(tmp_path / "deep" / "runs", tag="exp7") as run:
        fails(run)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("lies_there", REFUSED, ids=lambda put: put.__name__)
def test_what_lies_in_the_folder_of_a_loop_is_left_as_it_is(lies_there: Folder, tmp_path: Path) -> None:
    lies_there(tmp_path / "runs" / "exp7")
    before = contents(tmp_path)
    with pytest.raises(Exit):
        train(tmp_path / "runs")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "asked", [{"width": 3}, {"tag": "exp7", "config": {"width": 9}}, {"ckpt": "none.pth"}], ids=str
)
def test_a_run_that_is_refused_is_as_it_was(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train(tmp_path / "runs")
    before = contents(tmp_path)
    with pytest.raises(Exit) as ending:
        train(tmp_path / "runs", steps=4, **asked)
    assert ending.value.code in (2, 13) and contents(tmp_path) == before
    for name in ("lock", "holder.json"):  # as in one that came from elsewhere, which brings neither
        (tmp_path / "runs" / "exp7" / "unbroken" / name).unlink()
    before = contents(tmp_path)
    with pytest.raises(Exit):
        train(tmp_path / "runs", steps=4, **asked)
    assert contents(tmp_path) == before


# -- not one step -----------------------------------------------------------------------------------------------------


def takes_a_batch_and_goes(run: Any) -> None:
    for _ in run.batches(SAMPLES, batch_size=2, epochs=1):
        break


def never_ends_a_step(run: Any) -> None:
    for _ in run.batches(SAMPLES, batch_size=2, epochs=1):
        pass


def never_takes_one(run: Any) -> None:
    run.batches(SAMPLES, batch_size=2, epochs=1).close()
    for _ in run.steps(3):
        return


@pytest.mark.parametrize(
    "loop", [takes_a_batch_and_goes, never_ends_a_step, never_takes_one], ids=lambda of: of.__name__
)
def test_a_loop_without_a_single_finished_step_is_not_finished(
    loop: Callable[[Any], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exit) as ending, open_run(tmp_path, tag="exp7") as run:
        loop(run)
    said = capsys.readouterr().out
    assert ending.value.code == 2 and "without a single finished step" in said and "finished: 0" not in said
    with open_run(tmp_path, tag="exp7") as run:
        assert type(run.plan).__name__ == "Fresh"
        for _ in run.steps(1):
            run.end_step(loss=0.0)
    assert "finished: 1 step," in capsys.readouterr().out


def test_the_process_of_such_a_loop_ends_with_the_documented_code(tmp_path: Path) -> None:
    script = tmp_path / "loop.py"
    lines = [
        "from unbroken.train import open_run",
        "with open_run('runs', tag='exp7') as run:",
        "    next(run.steps(2))",
    ]
    script.write_text("\n".join(lines))
    done = run_command([sys.executable, str(script)], cwd=tmp_path, timeout=120)
    assert done.returncode == 2 and "finished:" not in done.stdout + done.stderr
