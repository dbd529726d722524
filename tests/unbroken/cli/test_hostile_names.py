"""Names out of records as paths: whatever stands in one, nothing outside of the run's folder is read, made or removed.

Every command is typed in this process. Beside the run lies a folder of the user's, which has to stay as it is.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unbroken.cli.typing_commands import Answer, Type, typing
from unbroken.cli import main

RECIPE = "tests.unbroken.tiny_recipe:recipe"
FAMILY = {0, 2, 10, 11, 12, 13, 14}
HOSTILE = {
    "climbs": "../victim",
    "climbs far": "../../../../victim",
    "climbs inside": "a/../../victim",
    "absolute": "/tmp/victim",
    "device": "/dev/null",
    "Windows": "..\\victim",
    "drive": "C:\\victim",
    "reserved": "aux.txt",
    "NUL": "a\0b",
    "control": "a\x1b[2Jb\nc",
    "right to left": "a\u202eb",
    "long": "x" * 5000,
    "deep": "a/" * 2500 + "b",
    "surrogate": "a\udcffb",
    "braces": "{session.__class__}",
    "wide": "{step:999999999}",
    "number": 7,
    "list": ["../victim"],
    "empty": "",
    "dot": ".",
}
# What is one word in a list, but no path: it may be used, as it leads nowhere.
LAYOUT = (
    "checkpoint_folder", "checkpoint_name", "rolling_name", "weights_name", "pointer", "session_folder", "log_name",
    "session_scalars", "run_scalars", "curves", "evaluation_curves", "predictions",
)  # fmt: skip
FOLDERS = ("unbroken", "archive", "vis_data", "tensorboard", "unbroken/manifests", "predictions")
RECORDS = ("journal.jsonl", "metrics.jsonl", "run.json", "pins.json.partial", "holder.json.partial")
LOOKING = ("ls", "show", "verify", "audit", "inspect", "log")
ACTING = ("train", "why", "prune", "backup", "pack", "restore", "pin")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs, by iterations and by epochs."""
    root = tmp_path_factory.mktemp("made")
    for name in ("run", "run_epochs"):
        assert main(["train", RECIPE, str(root / name), "8"]) == 0
    return root


@pytest.fixture
def here(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder with the run in it, and beside it a project of the user's."""
    folder = tmp_path / "place" / "here"
    folder.mkdir(parents=True)
    for name in ("run", "run_epochs"):
        shutil.copytree(made / name, folder / name, symlinks=True)
    for victim in (folder / "victim", tmp_path / "place" / "victim", folder / "scripts"):
        victim.mkdir()
        shutil.copy(made / "run" / "iter_2.pth", victim / "iter_2.pth")
        shutil.copy(made / "run" / "iter_2.pth", victim / "checkpoint_epoch_1.pth")
        (victim / "train.py").write_text("mine\n")
        (victim / "scripts.log").write_text("mine\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str]) -> Type:
    return typing(capsys)


def commands(run: str) -> dict[str, tuple[str, ...]]:
    return {
        "ls": ("ls", "."),
        "show": ("show", run),
        "verify": ("verify", run),
        "audit": ("audit", run),
        "inspect": ("inspect", f"{run}/iter_2.pth" if run == "run" else f"{run}/ckpt/latest_model.pth"),
        "log": ("log", "."),
        "compare": ("compare", "run", "run_epochs"),
        "watch": ("watch", run),
        "stop": ("stop", run),
        "why": ("why", RECIPE, run, "8"),
        "train": ("train", RECIPE, run, "8"),
        "prune": ("prune", run, "--keep-last", "1"),
        "backup": ("backup", run, "kept"),
        "pack": ("pack", run, "packed.zip"),
        "restore": ("restore", run, "20260101_000000"),
        "archived": ("restore", run),
        "pin": ("pin", run),
    }


def beside(here: Path) -> dict[str, str]:
    """Everything that is not a run's, nor what these commands make."""
    ours = {here / name for name in ("run", "run_epochs", "kept", "packed.zip", "experiments_log.txt", "fresh")}
    found = {}
    for place, folders, files in os.walk(here.parent.parent):
        folders[:] = [name for name in folders if Path(place) / name not in ours]
        for path in (Path(place) / name for name in (*folders, *files)):
            if path not in ours:
                found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found


def answered(type_: Type, here: Path, words: tuple[str, ...]) -> Answer:
    before = beside(here)
    answer = type_(*words)
    said = f"{words}: {answer.code}\n{answer.out[-500:]}{answer.err[-1500:]}"
    assert answer.code in FAMILY, said
    assert "Traceback" not in answer.out + answer.err, said
    assert beside(here) == before, said
    return answer


def edited(path: Path, change: Callable[[Any], None]) -> None:
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def field(*keys: str, value: object) -> Callable[[Any], None]:
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


@pytest.mark.parametrize("name", LAYOUT)
def test_a_layout_that_leads_out_is_refused_by_who_writes_and_named_by_who_looks(
    here: Path, type_: Type, name: str
) -> None:
    edited(here / "run" / "unbroken" / "run.json", field("layout", name, value="../victim"))
    words = commands("run")
    for command in ACTING:
        answer = answered(type_, here, words[command])
        assert answer.code == 12, (command, answer)
        assert "run.json" in answer.err and f"layout.{name}" in answer.err, answer.err
    for command in LOOKING:
        answer = answered(type_, here, words[command])
        if command in ("show", "verify", "audit"):
            assert f"layout.{name}" in answer.out, answer.out


@pytest.mark.parametrize("kind", HOSTILE)
def test_no_command_follows_a_name_of_the_layout_out_of_the_run(here: Path, type_: Type, kind: str) -> None:
    number = list(HOSTILE).index(kind)
    for run, name in (("run", "checkpoint_folder"), ("run_epochs", LAYOUT[1 + number % 11])):
        edited(here / run / "unbroken" / "run.json", field("layout", name, value=HOSTILE[kind]))
        words = commands(run)
        for command in {"prune", "train", *list(words)[number % 5 :: 5]}:
            answered(type_, here, words[command])


def test_no_command_follows_a_name_of_the_journal_out_of_the_run(here: Path, type_: Type) -> None:
    lines = [
        line
        for value in HOSTILE.values()
        for line in (
            {"session": value, "event": "timing", "time": value},
            {"session": value, "event": "session", "plan": {"verdict": "Fresh"}, "command": value},
            {"session": "a", "event": "saved", "file": value, "kind": "checkpoint", "step": 3, "sha256": value},
            {"session": "a", "event": "set aside", "file": value, "to": value},
            {"session": "a", "event": "set aside", "file": "iter_2.pth", "to": f"archive/{value}"},
            {"session": "a", "event": "removed", "file": value},
            {"session": "a", "event": "pinned", "file": value},
            {"session": "a", "event": "archived", "to": value},
        )
    ]
    with (here / "run" / "unbroken" / "journal.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    for words in commands("run").values():
        answered(type_, here, words)


@pytest.mark.parametrize("kind", [kind for kind, value in HOSTILE.items() if isinstance(value, str)])
def test_no_command_follows_a_name_of_the_other_records_out_of_the_run(here: Path, type_: Type, kind: str) -> None:
    value, own = HOSTILE[kind], here / "run" / "unbroken"
    for name in ("iter_2.pth", "iter_8.pth"):
        edited(own / "manifests" / f"{name}.json", field("file", value=value))
    edited(own / "holder.json", field("session", value=value))
    (own / "stop.json").write_text(json.dumps({"session": value, "host": value, "pid": 1, "time": value}))
    (own / "pins.json").write_text(json.dumps({str(value): {"note": value, "time": value}}))
    listed = {"format": 1, "run": value, "source": value, "files": {str(value): ["0" * 64, [1, 1], [1, 1]]}}
    (own / "backup.json").write_text(json.dumps(listed))
    (own / "packed.json").write_text(json.dumps({"format": 1, "files": [{"name": value, "size_bytes": 1}]}))
    (own / "logged.jsonl").write_text(json.dumps({"label": value, "place": value}) + "\n")
    with (own / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"session": value, "step": 9, str(value): 1.0}) + "\n")
    for key in ("tag", "recipe", "id", "created"):
        edited(own / "run.json", field(key, value=value))
    words = commands("run")
    for command in {"prune", "pin", "show", "backup", *list(words)[list(HOSTILE).index(kind) % 3 :: 3]}:
        answered(type_, here, words[command])
    (own / "restoring.json").write_text(json.dumps({"name": value, "aside": value, "moved_aside": False}))
    for typed in (("restore", "run", "20260101_000000"), ("restore", "run", str(value))):
        answered(type_, here, typed)


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_copy_of_a_stranger_that_is_searched_writes_nothing_outside_of_the_run(
    here: Path, type_: Type, kind: str
) -> None:
    value = HOSTILE[kind]
    mounted = here.parent.parent / "mounted" / "run"
    shutil.copytree(here / "run", mounted, symlinks=True)
    journal = mounted / "unbroken" / "journal.jsonl"
    with journal.open("a") as file:
        for name in (value, "../scripts", "../../here/scripts", "scripts", "archive", "unbroken"):
            file.write(json.dumps({"session": name, "event": "timing"}) + "\n")
    for folder in (mounted.parent / "scripts", mounted / "scripts"):
        folder.mkdir()
        (folder / "train.py").write_text("theirs\n")
        (folder / "scripts.log").write_text("theirs\n")
    edited(mounted / "unbroken" / "manifests" / "iter_2.pth.json", field("file", value=value))
    answer = answered(type_, here, ("train", RECIPE, "fresh", "8", str(mounted.parent)))
    assert answer.code == 0, answer
    assert (here / "fresh" / "iter_8.pth").is_file()


@pytest.mark.parametrize("name", FOLDERS)
def test_nothing_is_written_through_a_link_that_leads_out_of_the_run(here: Path, type_: Type, name: str) -> None:
    away = here.parent.parent / "away"
    place = here / "run" / name
    shutil.move(place, away) if place.exists() else away.mkdir()
    place.symlink_to(away)
    (away / "train.py").write_text("mine\n")
    words = commands("run")
    for command in ("train", "prune", "backup", "stop", "pin", "restore", "pack", "show", "log", "ls"):
        answered(type_, here, words[command])
    answer = answered(type_, here, ("train", RECIPE, "run", "12"))
    assert answer.code == 12 and name in answer.err, answer
    answered(type_, here, ("pin", "run", "iter_8.pth"))
    answered(type_, here, ("restore", "run", "20260101_000000"))


@pytest.mark.parametrize("name", RECORDS)
def test_nothing_is_written_through_a_linked_file_of_the_run(here: Path, type_: Type, name: str) -> None:
    mine = here.parent.parent / "mine.txt"
    path = here / "run" / "unbroken" / name
    shutil.copy(path, mine) if path.exists() else mine.write_text("mine\n")
    path.unlink(missing_ok=True)
    path.symlink_to(mine)
    answered(type_, here, ("pin", "run", "iter_8.pth"))
    answered(type_, here, ("prune", "run", "--keep-last", "1"))
    answered(type_, here, ("train", RECIPE, "run", "12"))


def test_a_folder_of_checkpoints_may_be_a_link(here: Path, type_: Type) -> None:
    large = here.parent.parent / "large"
    shutil.move(here / "run_epochs" / "ckpt", large)
    (here / "run_epochs" / "ckpt").symlink_to(large)
    assert type_("train", RECIPE, "run_epochs", "12").code == 0
    assert (large / "checkpoint_epoch_3.pth").is_file()


@pytest.mark.parametrize("name", ["unbroken", "unbroken/manifests", "tensorboard", "vis_data"])
def test_a_folder_that_its_owner_moved_to_another_disk_goes_on_there(here: Path, type_: Type, name: str) -> None:
    large = here.parent.parent / "large"
    shutil.move(here / "run" / name, large)
    (here / "run" / name).symlink_to(large)
    assert type_("train", RECIPE, "run", "12").code == 0
    assert not (here / "run" / name / "unbroken").exists()
