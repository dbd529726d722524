"""`unbroken ls`: filtered, sorted, as a tree, as data; copies, runs of others, and names that mean harm."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from tests.mapsage.mmengine_files import FOLDER, needs_files
from tests.twin.killing import environment
from tests.unbroken.cli.typing_commands import Answer, Type, contents, process, reads_well
from tests.unbroken.run.runs_in_short import Writer, append, finished
from unbroken.cli.tables import as_json_text, columns
from unbroken.text import shown


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: three runs in `runs`, one of which was killed."""
    monkeypatch.chdir(tmp_path)
    for name, score in (("baseline", 41.0), ("wider", 43.5)):
        finished(Path("runs") / name, score=score)
    writer = Writer(Path("runs") / "longer")
    writer.session({"optimizer": {"lr": 1e-4}}, total=500)
    writer.save(60)
    writer.evaluate(60, mIoU=12.25, mAcc=8.0)
    writer.end()
    return Path("runs")


def tags(answer: Answer) -> list[str]:
    assert answer.code == 0, answer.err
    return [line.split("  ")[0] for line in answer.out.splitlines()[1:]]


def test_runs_are_filtered_sorted_and_cut(runs: Path, type_: Type) -> None:
    assert tags(type_("ls", runs)) == ["baseline", "longer", "wider"]
    assert tags(type_("ls", runs, "--where", "best.mIoU>40")) == ["baseline", "wider"]
    assert tags(type_("ls", runs, "--where", "best.mIoU>40", "--where", "tag~WIDE")) == ["wider"]
    assert tags(type_("ls", "runs", "--where", "config.optimizer.lr<0.001 and status=killed")) == ["longer"]
    assert tags(type_("ls", "--sort", "-best.mIoU", runs)) == ["wider", "baseline", "longer"]
    assert tags(type_("ls", runs, "--sort=step")) == ["longer", "baseline", "wider"]
    cut = type_("ls", runs, "--sort", "-best", "--limit", "2").out.splitlines()
    assert [line.split()[0] for line in cut] == ["tag", "wider", "baseline", "the"]
    assert cut[-1] == "the first 2 of 3 runs (--limit)"


def test_an_empty_answer_says_how_many_runs_there_are_and_why(runs: Path, type_: Type) -> None:
    answer = type_("ls", runs, "--where", "best.miou>40")
    assert answer.code == 0
    assert answer.out == (
        "none of the 3 runs below runs matches\n  best.miou > 40: no run has it; there is best.mIoU\n"
    )
    assert "3 of the 3" not in type_("ls", runs, "--where", "step>1000").out
    assert type_("ls", runs, "--where", "step>1000", "--json").data == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--where", "bset>4"], ["no such field", "Did you mean best?"]),
        (["--where"], ["--where: expected one argument"]),
        (["--sort", "speed"], ["--sort: there is no such field"]),
        (["--limit", "0"], ["expected how many, 1 or more"]),
        (["--limt", "3"], ["Did you mean --limit?"]),
        (["a", "b"], ["unrecognized arguments: b"]),
        (["nowhere"], ["nowhere: there is no such folder"]),
    ],
)
def test_a_mistake_is_answered_with_the_way_on(runs: Path, type_: Type, words: list[str], said: list[str]) -> None:
    answer = type_("ls", *words)
    assert answer.code == 2 and reads_well(answer) and answer.out == ""
    assert all(text in answer.err for text in said), answer.err


def test_as_data_each_run_has_all_that_is_known(runs: Path, type_: Type) -> None:
    baseline, longer, _ = type_("ls", runs, "--json").data
    assert baseline["best"] == {"metric": "mIoU", "value": 41.0, "step": 100}
    assert baseline["last"] == {"step": 100, "mIoU": 41.0, "mAcc": 20.5}
    assert (longer["status"], longer["step"], longer["total"], longer["trained_s"]) == ("killed", 60, 500, 600.0)
    assert longer["folder"] == "runs/longer" and longer["recipe"] == "mapsage"


def test_a_copied_and_a_renamed_folder_are_told_from_the_original(runs: Path, type_: Type) -> None:
    shutil.copytree(runs / "baseline", runs / "baseline_backup_20260205")
    (runs / "wider").rename(runs / "renamed")
    assert tags(type_("ls", runs)) == [
        "baseline",
        "baseline_backup_20260205 (copy of baseline)",
        "longer",
        "renamed (tag wider)",
    ]
    assert tags(type_("ls", runs / "baseline_backup_20260205")) == ["baseline_backup_20260205 (tag baseline)"]
    shutil.copytree(runs / "longer", Path("elsewhere/longer"))
    assert [tag for tag in tags(type_("ls")) if tag.startswith("longer")] == ["longer (copy of runs/longer)", "longer"]


def test_a_backup_is_one_of_its_run_however_damaged_the_run_is(runs: Path, type_: Type) -> None:
    assert type_("backup", runs / "baseline", "spare").code == 0
    for path in (runs / "baseline").glob("*.pth"):
        path.unlink()
    found = [tag for tag in tags(type_("ls")) if tag.startswith("baseline")]
    assert sorted(found) == ["baseline", "baseline (backup of runs/baseline)"]


def test_families_of_runs_without_parents_here_are_roots(runs: Path, type_: Type) -> None:
    finished(runs / "child", id="c1", parent={"file": "x.pth", "step": 7, "run": "gone"})
    finished(runs / "grand", id="c2", parent={"file": "y.pth", "step": 100, "run": "c1"})
    assert tags(type_("ls", runs, "--tree")) == [
        "baseline", "child", "└─ grand (from step 100)", "longer", "wider",
    ]  # fmt: skip
    assert tags(type_("ls", runs, "--tree", "--where", "tag=grand")) == ["grand"]


def test_a_chain_of_a_thousand_parents_is_a_tree(tmp_path: Path, type_: Type) -> None:
    first = finished(tmp_path / "runs" / "run0000", id="0")
    record = json.loads((first.folder / "unbroken/run.json").read_text())
    for number in range(1, 1200):
        folder = Path(shutil.copytree(first.folder, tmp_path / "runs" / f"run{number:04d}"))
        child = record | {"id": str(number), "tag": folder.name, "parent": {"run": str(number - 1), "step": 1}}
        (folder / "unbroken/run.json").write_text(json.dumps(child))
    answer = type_("ls", tmp_path / "runs", "--tree")
    assert answer.code == 0 and len(answer.out.splitlines()) == 1201


@needs_files
def test_folders_of_other_programs_are_listed_with_what_is_known(runs: Path, type_: Type) -> None:
    shutil.copytree(FOLDER, runs / "theirs")
    row = type_("ls", runs, "--where", "status~mmengine and config.model.backbone.embed_dims=4", "--json").data[0]
    assert (row["tag"], row["status"], row["step"]) == ("theirs", "left by MMEngine", 20)
    assert tags(type_("ls", runs, "--where", "best.mIoU<10 and last.mIoU>6")) == ["theirs"]


HOSTILE = [
    "\x1b[2J\x1b[31mred\x07",
    "<script>alert(1)</script>",
    "\u202etxt.exe",
    "new\nline\rand\ttab",
    "\x9b31m",
    "a" * 100_000,
    "zero\u200bwidth",
    "\ud800",
    "标签" * 40,
    "../../etc/passwd",
    "'; DROP TABLE runs; --",
    "",
]


@pytest.mark.parametrize("name", HOSTILE, ids=[ascii(name[:20]) for name in HOSTILE])
def test_a_hostile_tag_metric_or_value_is_shown_harmlessly(tmp_path: Path, type_: Type, name: str) -> None:
    run = finished(tmp_path / "runs" / "run").folder
    record = json.loads((run / "unbroken/run.json").read_text())
    record |= {"tag": name, "recipe": name, "id": name, "parent": {"file": name, "run": name, "tag": name, "step": 3}}
    (run / "unbroken/run.json").write_text(json.dumps(record))
    evaluated = {"event": "evaluated", "session": name, "time": name, "step": 100, "metric": name, "best": True}
    append(run, json.dumps(evaluated | {"metrics": {name: math.nan, "other": math.inf}}))
    for words in (["ls", tmp_path], ["ls", tmp_path, "--tree"], ["ls", tmp_path, "--json"], ["show", run]):
        for _ in range(2):  # the second from the index
            answer = type_(*words)
            assert answer.code == 0, answer.err
            assert_harmless(answer.out)
            assert words[0] == "show" or "--json" in words or len(answer.out) < 4000
    assert type_("ls", tmp_path, "--json").data[0]["tag"] == (name or "run")


def assert_harmless(text: str) -> None:
    odd = {char for char in text if unicodedata.category(char) in ("Cc", "Cf", "Cs") and char != "\n"}
    assert not odd, odd
    text.encode()


def test_a_folder_whose_name_means_harm_or_is_not_unicode_is_shown_harmlessly(tmp_path: Path, type_: Type) -> None:
    for name in (b"\xff\xfe", b"\x1b[2J", b"new\nline", "\u202e".encode()):
        finished(Path(os.fsdecode(bytes(tmp_path / "runs") + b"/" + name)), tag="harmless")
    for words in (["ls", tmp_path], ["ls", tmp_path, "--json"], ["ls", tmp_path, "--where", "step>1000"]):
        answer = type_(*words)
        assert answer.code == 0
        assert_harmless(answer.out)
    assert len(type_("ls", tmp_path, "--json").data) == 4
    assert "\\x1b[2J" in type_("ls", tmp_path).out and "\\udcff\\udcfe" in type_("ls", tmp_path).out


def test_cells_are_escaped_visibly_shortened_and_aligned() -> None:
    assert shown("a\x1b[31m\u202e\n\ud800中") == "a\\x1b[31m\\u202e\\n\\ud800中"
    assert shown("x" * 100_000, 10) == "xxxxxxxxx…"
    lines = columns([("tag", "status"), ("标签", "ok"), ("e\u0301", "ok"), ("\x1b[0m", "ok")]).splitlines()
    assert lines == ["tag      status", "标签     ok", "e\u0301        ok", "\\x1b[0m  ok"]
    assert json.loads(as_json_text({"a": "\x9b\u202e\ud800"})) == {"a": "\x9b\u202e\ud800"}


def test_ls_reads_the_index_and_writes_nothing_else(runs: Path, tmp_path: Path) -> None:
    before = contents(runs)
    cache = tmp_path / "cache"
    first = process("ls", "runs", UNBROKEN_CACHE=str(cache))
    assert [path.name for path in cache.iterdir()] == ["runs-1.sqlite"]
    without = process("ls", "runs", UNBROKEN_CACHE="")
    assert first.out == without.out == process("ls", "runs", UNBROKEN_CACHE=str(cache)).out and first.code == 0
    assert contents(runs) == before


def test_the_usual_way_loads_no_parser_of_commands_and_no_reader_of_runs(runs: Path) -> None:
    program = """
import sys, time
from unbroken.cli import main
assert main(["ls", "runs"]) == 0
time.sleep(2.5)  # what changed a moment ago is read again
assert main(["ls", "runs"]) == 0
loaded = set(sys.modules)
for name in ("unbroken.run.summary", "unbroken.run.layout", "dataclasses"):
    sys.modules.pop(name, None)
import subprocess
code = "import sys; from unbroken.cli import main; main(['ls', 'runs']); print(*sys.modules, file=sys.stderr)"
done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
heavy = {"typer", "click", "pydantic", "torch", "numpy", "argparse", "dataclasses", "unbroken.run.summary", "yaml"}
assert not heavy & set(done.stderr.split()), heavy & set(done.stderr.split())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
