"""Whose row is whose in `experiments_log.txt`, and that what it says of a run is true at every look."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from tests.unbroken.cli.typing_commands import Type
from unbroken.logbook.table import Book
from unbroken.train import Exit, open_run


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def loop(
    project: Path, tag: str, *, lr: float = 0.1, steps: int = 4, stop: int = 0, code: int = 0, fresh: bool = False
) -> None:
    """One session of a small loop, in this process; it ends with `code`."""
    config = {"lr": lr, "batch_size": 4, "steps": steps}
    ended = 0
    try:
        with open_run(project / "runs", tag=tag, config=config, save_every=2, fresh=fresh) as run:
            model = torch.nn.Linear(2, 1)
            run.track(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=lr))
            for _ in run.steps(steps):
                run.end_step(loss=model(torch.ones(2)).mean())
                if run.step % 2 == 0:
                    run.record_evaluation(best="score", score=run.step / 10)
                if run.step == stop:
                    run.stop("a test")
    except Exit as ending:
        ended = int(ending.code or 0)
    assert ended == code


def book(project: Path) -> Path:
    return project / "experiments_log.txt"


def rows(project: Path) -> dict[str, list[str]]:
    return {row[1]: row for row in Book(book(project).read_text("utf-8")).rows}


@pytest.mark.parametrize("place", ["runs/baseline_backup", "runs/baseline.bak", "backup/runs/baseline", "a/b/baseline"])
def test_a_copy_has_no_row_until_it_is_trained_on_by_itself(project: Path, place: str, type_: Type) -> None:
    loop(project, "baseline", stop=2, code=75)
    shutil.copytree(project / "runs" / "baseline", project / place)
    book(project).write_text(book(project).read_text("utf-8").replace("steps |", "steps * |"), "utf-8")
    before = book(project).read_bytes()
    assert type_("log", project).code == 0
    assert book(project).read_bytes() == before
    loop(project, "baseline")
    assert type_("log", project).code == 0
    assert set(rows(project)) == {"baseline"} and rows(project)["baseline"][3] == "score: 0.4 (step 4)"


def test_a_copy_that_was_trained_on_is_an_experiment_and_a_renamed_run_keeps_its_row(
    project: Path, type_: Type
) -> None:
    loop(project, "baseline", stop=2, code=75)
    runs = project / "runs"
    shutil.copytree(runs / "baseline", runs / "again")
    loop(project, "again", steps=6)
    book(project).write_text(book(project).read_text("utf-8").replace("2/4 steps", "2/4 steps *"), "utf-8")
    assert type_("log", project).code == 0
    assert rows(project)["baseline"][3] == "score: 0.2 (step 2), stopped at 2/4 steps *"
    assert rows(project)["again"][3] == "score: 0.6 (step 6)"
    shutil.rmtree(runs / "again")
    (runs / "baseline").rename(runs / "first")
    assert type_("log", project).code == 0
    assert set(rows(project)) == {"again", "first"}, "what is gone stays as history"
    assert rows(project)["first"][3].endswith("*")


def test_the_copy_stands_for_a_run_that_is_gone(project: Path, type_: Type) -> None:
    loop(project, "baseline")
    shutil.copytree(project / "runs" / "baseline", project / "kept")
    shutil.rmtree(project / "runs")
    assert type_("log", project).code == 0
    assert set(rows(project)) == {"kept"}


def test_a_run_in_the_place_of_a_renamed_one_gets_a_row_of_its_own(project: Path, type_: Type) -> None:
    loop(project, "baseline")
    (project / "runs" / "baseline").rename(project / "runs" / "first")
    loop(project, "baseline", steps=2)
    assert type_("log", project).code == 0
    assert {name: row[3] for name, row in rows(project).items()} == {
        "first": "score: 0.4 (step 4)", "baseline": "score: 0.2 (step 2)"
    }  # fmt: skip


def test_a_run_in_the_place_of_a_deleted_one_leaves_its_row_as_history(project: Path, type_: Type) -> None:
    loop(project, "baseline")
    shutil.rmtree(project / "runs" / "baseline")
    loop(project, "baseline", steps=2)
    assert type_("log", project).code == 0
    assert [row[3] for row in Book(book(project).read_text("utf-8")).rows] == [
        "score: 0.4 (step 4)", "score: 0.2 (step 2)"
    ]  # fmt: skip


def test_every_status_is_true_at_the_next_look(project: Path, type_: Type) -> None:
    loop(project, "baseline", stop=2, code=75)
    said = [rows(project)["baseline"][3]]
    loop(project, "baseline", steps=2)  # with nothing more to do: its last result is the one that stood before
    said.append(rows(project)["baseline"][3])
    loop(project, "baseline", steps=6, stop=4, code=75)
    said.append(rows(project)["baseline"][3])
    loop(project, "baseline", steps=6)
    said.append(rows(project)["baseline"][3])
    assert said == [
        "score: 0.2 (step 2), stopped at 2/4 steps", "score: 0.2 (step 2)",
        "score: 0.4 (step 4), stopped at 4/6 steps", "score: 0.6 (step 6)",
    ]  # fmt: skip
    run, packed = project / "runs" / "baseline", project / "one.zip"
    for words in (["prune", run], ["pack", run, packed], ["backup", run, project / "spare"], ["pin", run, "6"]):
        assert type_(*words).code == 0
        before = book(project).read_bytes()
        assert type_("log", project).code == 0 and book(project).read_bytes() == before, words
    shutil.rmtree(run)
    assert type_("unpack", packed, run).code == 0
    assert type_("log", project).code == 0 and book(project).read_bytes() == before
    shutil.rmtree(run)
    assert type_("restore", run, "--from", project / "spare").code == 0
    assert type_("log", project).code == 0 and book(project).read_bytes() == before


def test_a_fresh_start_with_the_same_result_is_told_from_the_history_before_it_and_so_is_one_that_is_restored(
    project: Path, type_: Type
) -> None:
    loop(project, "baseline")
    loop(project, "baseline", steps=6, stop=4, code=75, fresh=True)
    loop(project, "baseline", steps=6)
    results = [row[3] for row in Book(book(project).read_text("utf-8")).rows]
    assert results == ["score: 0.4 (step 4)", "score: 0.6 (step 6)"]
    run = project / "runs" / "baseline"
    (old,) = (path.name for path in (run / "archive").iterdir())
    assert type_("restore", run, old).code == 0
    before = book(project).read_bytes()
    assert type_("log", project).code == 0 and book(project).read_bytes() == before


def test_a_description_follows_its_baseline(project: Path, type_: Type) -> None:
    loop(project, "baseline", lr=0.2, steps=6)
    loop(project, "other")
    assert rows(project)["other"][2] == "LR=0.1, steps=4"
    shutil.rmtree(project / "runs" / "baseline")
    loop(project, "baseline", lr=0.2)
    assert type_("log", project).code == 0
    assert rows(project)["other"][2] == "LR=0.1"
