"""A folder that is foreign, damaged or oddly named never stops a listing of the others, nor work on itself."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.unbroken.cli.typing_commands import Type, typing
from tests.unbroken.tiny_recipe import HERE
from unbroken.cli import main

RECIPE = f"{HERE}:recipe"
ODD = {
    "GBK": b"\xd1\xb5\xc1\xb7".decode("utf-8", "surrogateescape"),
    "control": "a\x1b[2Jb\nc",
    "right to left": "a\u202eb",
    "blank": " a ",
    "device": "aux",
    "long": "x" * 200,
    "quotes": "a'b\"c$(d)",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("made") / "run"
    assert main(["train", RECIPE, str(run), "4"]) == 0
    return run


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str]) -> Type:
    return typing(capsys)


@pytest.mark.parametrize("kind", ODD)
def test_a_run_in_a_folder_of_any_name_is_trained_kept_and_listed(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type_: Type, kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    name = ODD[kind]
    shutil.copytree(made, "sound")
    shutil.copytree(made, name)
    Path(name, "notes " + name).write_text("mine")
    for words in (
        ("train", RECIPE, name, "8"),
        ("train", RECIPE, f"new {name}", "2"),
        ("why", RECIPE, name, "8"),
        ("ls", "."),
        ("ls", ".", "--json"),
        ("log", "."),
        ("show", name),
        ("show", name, "--json"),
        ("verify", name, "--json"),
        ("audit", name),
        ("compare", name, "sound"),
        ("compare", name, "sound", "--html", "page.html"),
        ("backup", name, "kept"),
        ("pack", name, "run.zip"),
        ("unpack", "run.zip", f"un{name}"),
        ("pin", name, "iter_4.pth"),
        ("prune", name, "--keep-last", "1"),
        ("restore", f"back {name}", "--from", f"kept/{name}"),
    ):
        answer = type_(*words)
        assert answer.code == 0, (words, answer)
    assert type_("ls", ".").out.count("sound") >= 1


def test_no_neighbour_stops_a_listing(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type_: Type) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(made, "sound")
    for number, name in enumerate(
        ("run.json", "journal.jsonl", "metrics.jsonl", "holder.json", "lock", "logged.jsonl")
    ):
        shutil.copytree(made, f"broken{number}")
        path = Path(f"broken{number}", "unbroken", name)
        path.unlink(missing_ok=True)
        path.symlink_to(path.name)
        shutil.copytree(made, f"closed{number}")
        Path(f"closed{number}", "unbroken", name).touch()
        Path(f"closed{number}", "unbroken", name).chmod(0)
        shutil.copytree(made, f"garbled{number}")
        Path(f"garbled{number}", "unbroken", name).write_bytes(b"\xff\x00{[" * 1000)
    os.symlink("loop", "loop")
    Path("closed").mkdir(mode=0)
    os.mkfifo("pipe")
    for words in (("ls", "."), ("ls", ".", "--json"), ("log", ".")):
        answer = type_(*words)
        row = "score: 1 (step 4)" if words[0] == "log" else "sound"  # which of the copies has the row is not said here
        assert answer.code == 0 and row in answer.out, (words, answer)
