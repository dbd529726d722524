"""What is typed wrongly is answered with exit code 2, on standard error, with the way on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unbroken.cli.typing_commands import Type, reads_well
from unbroken.cli import main

CONFIG = "small.py"


def test_without_arguments_the_commands_are_listed(type_: Type) -> None:
    answer = type_()
    assert answer.code == 2 and answer.err == ""
    assert all(name in answer.out for name in ("train", "why", "ls", "show", "inspect", "verify", "demo", "data"))
    assert "Begin with:  unbroken demo aerial" in answer.out


@pytest.mark.parametrize("command", ["train", "why", "ls", "show", "inspect", "verify", "demo", "data"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(type_: Type, command: str, flag: str) -> None:
    answer = type_(command, flag)
    assert answer.code == 0 and answer.err == ""
    assert answer.out.lower().startswith(f"usage: unbroken {command}")


def test_a_recipe_shows_its_own_options(type_: Type) -> None:
    answer = type_("train", "mapsage", "--help")
    assert answer.code == 0
    assert answer.out.startswith("usage: unbroken train mapsage [-h]")
    for option in ("CONFIG", "--work-dir", "--cfg-options", "--amp", "--tag", "--fresh", "--ckpt", "--search"):
        assert option in answer.out
    assert type_("why", "mapsage", "--help").out.startswith("usage: unbroken why mapsage [-h]")


MISTAKES = [
    (["frobnicate"], ["No such command 'frobnicate'", "See `unbroken --help`"]),
    (["ls", "--nope"], ["unrecognized arguments: --nope", "See `unbroken ls --help`"]),
    (["inspect"], ["Missing argument 'FILE'", "See `unbroken inspect --help`"]),
    (["verify"], ["Missing argument 'PATH...'"]),
    (["train"], ["what to train is missing", "mapsage", "package.module:name"]),
    (["train", "mapsage"], ["required: CONFIG", "See `unbroken train mapsage --help`"]),
    (["train", "nope", CONFIG], ["there is no such recipe", "Expected focalsst or mapsage"]),
    (["why", "work_dirs/small"], ["no such recipe", "That is a run: `unbroken show work_dirs/small` tells of it"]),
    (["train", "a.b:c", CONFIG], ["the address cannot be loaded", "PYTHONPATH"]),
    (["train", "json:loads", CONFIG], ["this is not a recipe"]),
    (["train", "mapsage", CONFIG, "--seeed", "3"], ["--seeed", "Did you mean --seed?"]),
    (["train", "mapsage", CONFIG, "--fres"], ["--fres", "Did you mean --fresh?"]),
    (["train", "mapsage", CONFIG, "--seed", "abc"], ["argument --seed", "'abc'"]),
    (["train", "mapsage", CONFIG, "--workers", "-1"], ["argument --workers", "expected a whole number, 0 or more"]),
    (["train", "mapsage", "missing.py"], ["missing.py: there is no such config file", "small.py"]),
    (["train", "mapsage", "small.json"], ["ends in .py, .yaml or .yml"]),
    (["train", "mapsage", CONFIG, "--device", "nonsense", "--tag", "x"], ["--device", "expected auto, cpu, cuda"]),
    (["train", "mapsage", CONFIG, "--ckpt", "nix.pth"], ["nix.pth: there is no such file"]),
    (["train", "mapsage", CONFIG, "--pretrained_model", "work_dirs", "--tag", "x"], ["this is a folder, not a file"]),
    (["train", "mapsage", CONFIG, "--cfg-options", "no_equals"], ["written key=value"]),
    (["train", "mapsage", CONFIG, "--cfg-options", "optim_wrapper.optimizer.lrr=1"], ["lrr", "Did you mean `lr`?"]),
    (["train", "mapsage", CONFIG, "--cfg-options", "train_cfg.max_iters=many"], ["train_cfg.max_iters", "many"]),
    (["show", "nowhere"], ["nowhere: there is no such file or folder"]),
    (["show", "."], ["this is not a run", "work_dirs/small"]),
    (["ls", "nowhere"], ["there is no such folder"]),
    (["inspect", "work_dirs/small"], ["this is a folder", "unbroken show work_dirs/small"]),
    (["inspect", "work_dirs/small/iter_5.pth"], ["there is no such file or folder", "iter_4.pth"]),
    (["verify", "nowhere.pth"], ["nowhere.pth: there is no such file or folder"]),
    (["demo", "nope"], ["unbroken demo: no installed application offers this", "aerial", "found nope"]),
    (["data", "nope", "folder"], ["unbroken data: no installed application offers this", "aerial"]),
]


@pytest.mark.parametrize(("words", "said"), MISTAKES, ids=[" ".join(words) for words, _ in MISTAKES])
def test_a_mistake_is_answered_with_the_way_on(here: Path, type_: Type, words: list[str], said: list[str]) -> None:
    answer = type_(*words)
    assert answer.code == 2
    assert reads_well(answer)
    assert all(text in answer.err for text in said), answer.err


def test_with_json_a_mistake_is_data_too(here: Path, type_: Type) -> None:
    for words in (["why", "mapsage", "missing.py", "--json"], ["ls", "nowhere", "--json"], ["verify", "--json"]):
        answer = type_(*words)
        assert answer.code == 2
        assert json.loads(answer.out)["exit_code"] == 2
        assert answer.err == ""


def test_a_config_that_is_a_program_is_refused_and_not_run(here: Path, type_: Type) -> None:
    (here / "evil.py").write_text("import os\nos.mkdir('it_went_off')\n")
    (here / "torn.py").write_text("model = dict(\n")
    assert type_("why", "mapsage", "evil.py").code == 2
    torn = type_("why", "mapsage", "torn.py")
    assert torn.code == 2 and "torn.py:1: this is not Python syntax" in torn.err
    assert not (here / "it_went_off").exists()


def test_a_folder_whose_name_has_a_nul_is_no_fault_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("why", "train"):
        assert main([command, "tests.unbroken.tiny_recipe:recipe", "a\0b", "4"]) == 2
        assert "'a\\x00b': no folder can have this name" in capsys.readouterr().err
