"""A launch from another folder is no silent beginning: runs of its name within reach are named, with the way there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from mapsage.recipes import read as read_aerial
from tests.golden.launch_facts import CONFIG, changed, found, job, saved
from tests.golden.on_disk import lay_out
from tests.golden.row import row
from unbroken.cli import main
from unbroken.launch import Environment, Fresh, decide, gather
from unbroken.launch.discovery import MOST_AROUND, runs_around
from unbroken.launch.explain import explain

TAG = job().tag


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose run of this name is at step 300."""
    monkeypatch.delenv("UNBROKEN_SEARCH_PATH", raising=False)
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    lay_out(row("", found(saved(300))))
    return folder


def notes(**asked: object) -> tuple[str, ...]:
    launched = replace(job(), flags={"directory": "work-dir"}, **asked)  # type: ignore[arg-type]
    plan = decide(launched, gather(launched))
    assert isinstance(plan, Fresh)
    assert explain(launched, plan).data["notes"] == list(plan.notes)
    return plan.notes


@pytest.mark.parametrize(
    "typed_in", ["project/configs", "project/apps/notebooks", "notebooks", "project/work_dirs", "."], ids=str
)
def test_from_another_folder_the_run_is_named_with_the_option_that_goes_on_with_it(
    typed_in: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = project.parent / typed_in
    here.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(here)
    run = project / "work_dirs" / TAG
    run = run.relative_to(here) if run.is_relative_to(here) else run
    assert notes() == (
        f"{run} is a run of this name with this config, at step 300; to go on with it: --work-dir {run}, or with a "
        f"copy of it here: --search {run}",
    )


def test_what_it_says_is_true(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project.parent / "elsewhere").mkdir()
    monkeypatch.chdir(project.parent / "elsewhere")
    run = project / "work_dirs" / TAG
    there = job()
    assert decide(replace(there, directory=run), gather(replace(there, directory=run))).name == "Resume"
    copied = job(search=(run,))
    assert decide(copied, gather(copied)).name == "Resume"


def test_beside_the_config_the_run_is_named_however_far_away_and_whatever_changed(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    far = tmp_path / "a/b/c/d/e/f"
    far.mkdir(parents=True)
    monkeypatch.chdir(far)
    assert notes() == ()
    usual = (project / "work_dirs" / TAG,)
    (same,) = notes(usual=usual)
    assert "with this config" in same
    (other,) = notes(usual=usual, config=changed(workers=8))
    assert "with another config, at step 300" in other


def test_a_backup_is_brought_back_and_never_trained_on_in_its_place(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.move(project / "work_dirs", project / "elsewhere")
    run = project / "elsewhere" / TAG
    assert main(["backup", str(run), "mirrors"]) == 0
    shutil.rmtree(run)
    assert notes() == (
        f"mirrors/{TAG} is a backup of a run of this name with this config, at step 300; to bring it back: "
        f"unbroken restore work_dirs/{TAG} --from mirrors/{TAG}",
    )
    assert main(["restore", f"work_dirs/{TAG}", "--from", f"mirrors/{TAG}"]) == 0
    assert decide(job(), gather(job())).name == "Resume"


def test_runs_of_other_names_and_nearby_ones_of_other_configs_are_no_news(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project.parent / "notebooks").mkdir()
    monkeypatch.chdir(project.parent / "notebooks")
    assert len(notes(config=CONFIG)) == 1
    assert notes(config=changed(data__crop=256)) == ()
    assert notes(recipe="another_app") == ()


def test_the_aerial_recipe_knows_where_its_runs_lie_for_a_config_of_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.twin import aerial

    config = Path(aerial.write_job(tmp_path / "project", steps=10))
    monkeypatch.chdir(tmp_path)
    asked = read_aerial([str(config)], Environment())
    assert config.resolve().parent / "work_dirs" / config.stem in asked.usual
    assert asked.directory not in asked.usual


def test_however_much_lies_around_only_so_many_folders_are_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    for number in range(MOST_AROUND * 2):
        (tmp_path / f"run_{number:04}" / "unbroken").mkdir(parents=True)
        (tmp_path / f"run_{number:04}" / "unbroken" / "run.json").write_text(json.dumps({}))
    (here / "up").symlink_to(tmp_path)
    monkeypatch.chdir(here)
    assert 0 < len(list(runs_around(job().directory))) <= MOST_AROUND
