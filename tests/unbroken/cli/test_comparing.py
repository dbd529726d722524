"""`unbroken compare` as a user types it, on runs that were really killed and resumed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.runs import ANSI, HARM, out_for_harm
from tests.unbroken.cli.typing_commands import Type, contents, process, typing
from tests.unbroken.report.runs import KILLED, session
from unbroken.report.page import MARK

CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`alpha`, which was killed and resumed, and `beta`, which saw twice as many samples a step."""
    folder = tmp_path_factory.mktemp("compared")
    session(folder / "one", kill_at=7, evaluate=3, ends=KILLED)
    run = session(folder / "one", evaluate=3)
    (folder / "runs").mkdir()
    run.rename(folder / "runs" / "alpha")
    session(folder / "two", batch_size=2, epochs=1, evaluate=3).rename(folder / "runs" / "beta")
    return folder / "runs"


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained, tmp_path / "runs", symlinks=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str]) -> Type:
    return typing(capsys)


def test_two_runs_stand_side_by_side(here: Path, type_: Type) -> None:
    answer = type_("compare", "runs/alpha", "runs/beta")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert lines[0] == "alpha is best: score 0.18 at step 18, 0.09 above beta"
    table = {line[:18].strip(): line[18:].split() for line in lines}
    assert table["steps done again"] == ["3"]
    assert table["samples seen"] == ["66", "22"]
    assert table["sessions"] == ["2", "1"]
    assert ["batch_size", "4", "2"] in [line.split() for line in lines]
    assert max(map(len, lines)) <= 100


def test_a_run_may_be_named_by_the_name_that_ls_shows(here: Path, type_: Type) -> None:
    assert type_("compare", "alpha", "beta").out == type_("compare", "runs/alpha", "runs/beta").out


def test_all_of_it_is_there_as_data(here: Path, type_: Type) -> None:
    data = type_("compare", "alpha", "beta", "--json").data
    assert (data["metric"], data["leader"], data["larger_is_better"]) == ("score", "alpha", True)
    first = data["runs"][0]
    assert (first["sessions"], first["rewinds"], first["discarded_steps"], first["samples"]) == (2, 1, 3, 66)
    assert first["at_best"] == first["at_last"] == {"score": 0.18}
    assert data["differences"] == [{"key": "batch_size", "values": [4, 2], "absent": []}]
    assert {note["kind"] for note in data["notes"]} >= {"totals", "ends"}


def test_markdown_has_the_same_in_tables(here: Path, type_: Type) -> None:
    out = type_("compare", "alpha", "beta", "--markdown").out
    assert "| best score | **0.18 @ 18** | 0.09 @ 9 |" in out
    assert r"| batch\_size | 4 | 2 |" in out


def test_chinese_is_spoken_where_it_is_asked_for(here: Path, type_: Type) -> None:
    assert "最佳" in type_("compare", "alpha", "beta", "--lang", "zh").out
    assert "最佳" in type_("compare", "alpha", "beta", "--lang", "zh", "--markdown").out
    assert type_("compare", "alpha", "beta", "--lang", "fr").code == 2


def test_many_runs_are_listed_as_lines_the_best_first(here: Path, type_: Type) -> None:
    for number in range(5):
        shutil.copytree("runs/beta", f"runs/gamma_{number}", symlinks=True)
    answer = type_("compare", "beta", *(f"gamma_{number}" for number in range(5)), "alpha")
    rows = [line for line in answer.out.splitlines() if line.startswith(("alpha ", "beta ", "gamma_"))]
    assert [row.split()[0] for row in rows][1:3] == ["alpha", "beta"]
    assert re.search(r"^ {4}2 +beta, gamma_0, gamma_1, gamma_2, \.\.\. \(6\)$", answer.out, re.MULTILINE)
    assert "gamma_0 is a copy of beta" in answer.out


def test_comparing_changes_nothing(here: Path, type_: Type) -> None:
    before = contents(here / "runs")
    for options in ([], ["--json"], ["--markdown"], ["--html", "out.html"]):
        assert type_("compare", "alpha", "beta", *options).code == 0
    assert contents(here / "runs") == before
    assert sorted(path.name for path in here.iterdir()) == ["out.html", "runs"]


@pytest.mark.parametrize(
    "words, says",
    [
        ([], "Missing argument"),
        (["alpha"], "there is nothing to compare with"),
        (["alpha", "runs/alpha"], "this run is named twice (alpha is the same folder)"),
        (["alpha", "alphq"], "Did you mean alpha?"),
        (["alpha", "runs"], "this folder holds no run itself. Found runs/alpha, runs/beta"),
        (["alpha", "\x00"], "there is no such run"),
        (["alpha", "n" * 100_000], "there is no such run"),
        (["alpha", "beta", "--metric", "scor"], "Did you mean score?"),
        (["alpha", "beta", "--markdown", "--html", "out.html"], "exclude one another"),
        (["alpha", "beta", "--html", "runs"], "this is a folder"),
        (["alpha", "beta", "--html", "nowhere/out.html"], "its folder does not exist"),
    ],
)
def test_a_mistake_is_answered_with_what_to_do(here: Path, type_: Type, words: list[str], says: str) -> None:
    answer = type_("compare", *words)
    assert answer.code == 2
    assert says in answer.err
    assert len(answer.err) < 2000
    assert not CONTROL.search(answer.err)


def test_a_tag_that_several_runs_have_must_be_named_by_its_folder(here: Path, type_: Type) -> None:
    shutil.copytree("runs/alpha", "more/alpha", symlinks=True)
    answer = type_("compare", "alpha", "beta")
    assert answer.code == 2
    assert "several runs have this tag. Found more/alpha, runs/alpha" in answer.err
    assert type_("compare", "runs/alpha", "more/alpha").code == 0


def test_a_page_replaces_a_page_and_nothing_else(here: Path, type_: Type) -> None:
    Path("thesis.html").write_text("<html>mine</html>")
    answer = type_("compare", "alpha", "beta", "--html", "thesis.html")
    assert (answer.code, Path("thesis.html").read_text()) == (2, "<html>mine</html>")
    for _ in range(2):
        answer = type_("compare", "alpha", "beta", "--html", "out.html")
        assert (answer.code, "wrote out.html" in answer.out) == (0, True)
    assert MARK in Path("out.html").read_text("utf-8")[:200]


def test_a_page_that_cannot_be_written_leaves_the_one_that_was_there(here: Path, type_: Type) -> None:
    type_("compare", "alpha", "beta", "--html", "out.html")
    before = Path("out.html").read_bytes()
    Path("out.html.partial").mkdir()
    answer = type_("compare", "alpha", "beta", "--html", "out.html")
    assert (answer.code, Path("out.html").read_bytes()) == (2, before)
    assert "the page cannot be written" in answer.err


def test_folders_that_other_programs_left_are_compared_too(here: Path, type_: Type) -> None:
    place = here / "theirs" / "20260101_000000" / "vis_data"
    place.mkdir(parents=True)
    lines = ['{"lr": 0.1, "loss": 2.0, "iter": 5, "step": 5}', '{"score": 0.5, "step": 5}']
    (place / "scalars.json").write_text("\n".join(lines) + "\n")
    (place / "config.py").write_text("batch_size = 16\n")
    answer = type_("compare", "theirs", "alpha")
    assert answer.code == 0
    assert answer.out.startswith("theirs is best: score 0.5 at step 5, 0.32 above alpha")
    assert ["batch_size", "16", "4"] in [line.split() for line in answer.out.splitlines()]


@pytest.mark.parametrize("options", [[], ["--json"], ["--markdown"], ["--lang", "zh"]])
def test_hostile_names_and_values_reach_no_terminal(here: Path, type_: Type, options: list[str]) -> None:
    folder = out_for_harm(here / "runs" / "alpha", here)
    answer = type_("compare", "runs/beta", folder, *options)
    assert answer.code == 0
    assert not CONTROL.search(answer.out)
    if "--json" in options:
        assert json.loads(answer.out)["runs"][1]["tag"].startswith(f"{HARM}{ANSI}")
    elif "--markdown" in options:
        assert "<" not in answer.out
    else:
        assert len(answer.out) < 20_000


def test_records_that_are_no_records_are_no_obstacle(here: Path, type_: Type) -> None:
    own = here / "runs" / "alpha" / "unbroken"
    for name in ("run.json", "journal.jsonl", "metrics.jsonl"):
        (own / name).write_bytes(b'{"step": [], "session": {}, "plan": 1}\n\xff\xfe\x00\n[[[[\n')
    for path in (own / "configs").iterdir():
        path.write_text('{"a": NaN, "b": 1e999}')
    answer = type_("compare", "runs/alpha", "beta")
    assert answer.code == 0
    assert "Lines of the records of alpha that cannot be read" in answer.out


def test_it_runs_as_a_process_and_loads_no_torch(here: Path) -> None:
    program = (
        "import sys; from unbroken.cli import main; code = main(); assert not {'torch', 'numpy'} & set(sys.modules)"
    )

    words = ["compare", "runs/alpha", "runs/beta", "--html", "out.html"]
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert process("compare", "runs/alpha", "runs/beta").code == 0
