"""Ordinary mistakes of people who come from other programs: each answer names the place and what to type instead."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from focalsst import recipes as sonar
from mapsage import recipes as aerial
from tests.unbroken.cli.typing_commands import Type, reads_well
from unbroken.launch import Environment
from unbroken.option_parser import OptionParser

ROOT = Path(__file__).resolve().parents[3]
PRIVATE = re.compile(r"(?<![\w.`'\"/-])_[a-z]\w*")  # names that only the program itself knows
C, Y = "small.py", "cfgs/sonar_models/micro.yaml"
AERIAL, SONAR = ["why", "mapsage", C], ["why", "focalsst", Y]


@pytest.fixture
def place(here: Path) -> Path:
    """The same with the configs of the sonar application."""
    shutil.copytree(ROOT / "apps/focal_sst/cfgs", here / "cfgs")
    return here


OPTIONS = [
    ([*AERIAL, "--lr", "0.01"], "--cfg-options optim_wrapper.optimizer.lr=0.01"),
    ([*AERIAL, "--learning-rate=0.01"], "--cfg-options optim_wrapper.optimizer.lr=0.01"),
    ([*AERIAL, "--batch_size", "4"], "--cfg-options train_dataloader.batch_size=4"),
    ([*AERIAL, "--epochs", "3"], "the length is in iterations"),
    ([*AERIAL, "--max-iters", "3"], "--cfg-options train_cfg.max_iters=3"),
    ([*AERIAL, "--set", "train_cfg.max_iters", "9"], "--cfg-options train_cfg.max_iters=9"),
    ([*AERIAL, "--resume-from", "x.pth"], "--ckpt x.pth"),
    ([*AERIAL, "--load_from=x.pth"], "--pretrained_model x.pth"),
    ([*AERIAL, "--workdir", "out"], "Did you mean --work-dir?"),
    ([*AERIAL, "--work_dir", "out"], "Did you mean --work-dir?"),
    ([*AERIAL, "--cfg_options", "a=1"], "Did you mean --cfg-options?"),
    ([*AERIAL, "--gpus", "2"], "--processes 2"),
    ([*AERIAL, "--gpu-ids", "1"], "--device cuda:1"),
    ([*AERIAL, "--num_workers", "2"], "--workers 2"),
    ([*AERIAL, "--fp16"], "--amp"),
    ([*AERIAL, "--extra_tag", "x"], "--tag x"),
    ([*AERIAL, "--data-root", "d"], "train_dataloader.dataset.data_root=d"),
    ([*AERIAL, "——fresh"], "Did you mean --fresh?"),
    ([*AERIAL, "－－fresh"], "Did you mean --fresh?"),
    ([*AERIAL, "-fresh"], "Did you mean --fresh?"),
    ([*AERIAL, "--tag＝x"], "Did you mean --tag=x?"),
    ([*AERIAL, "--amp", "True"], "--amp takes no value: leave True out"),
    ([*AERIAL, "extra"], "extra is a word too many"),
    ([*AERIAL, C], "small.py is a word too many"),
    ([*AERIAL, "--session", "-1h"], "-1h"),
    ([*AERIAL, "--on-extend", "rewram"], "Did you mean rewarm?"),
    (["why", "mapsage", "--cfg-options", "train_cfg.max_iters=5", C], "CONFIG comes first"),
    ([*AERIAL, "--seed", "abc"], "--seed: expected a whole number, 0 or more, found 'abc'"),
    ([*AERIAL, "--seed", "-1"], "--seed: expected a whole number, 0 or more, found '-1'"),
    ([*AERIAL, "--local_rank", "x"], "expected a whole number, found 'x'"),
    ([*AERIAL, "--device", "gpu"], "Did you mean cuda?"),
    ([*AERIAL, "--device", "0"], "Did you mean cuda:0?"),
    ([*AERIAL, "--launcher", "pytorch"], "say --processes N"),
    ([*AERIAL, "--work-dir", C], "--work-dir: expected a folder, and small.py is a file"),
    ([*AERIAL, "--backup", C], "--backup: expected a folder"),
    ([*SONAR, "--output", C], "--output: expected a folder"),
    ([*SONAR, "--lr", "0.01"], "--set OPTIMIZATION.LR 0.01"),
    ([*SONAR, "--cfg-options", "OPTIMIZATION.LR=0.1"], "--set OPTIMIZATION.LR 0.1"),
    ([*SONAR, "--amp"], "--fp16"),
    ([*SONAR, "--work-dir", "x"], "--output x"),
    ([*SONAR, "--resume"], "the same command resumes by itself"),
    ([*SONAR, "--extra-tag", "x"], "Did you mean --extra_tag?"),
    ([*SONAR, "--max_epochs", "1"], "--epochs 1"),
    ([*SONAR, "--batch_size", "two"], "--batch_size: expected a whole number, 1 or more, found 'two'"),
    ([*SONAR, "--batch_size", "0"], "1 or more, found '0'"),
    ([*SONAR, "--epochs", "3.5"], "found '3.5'"),
    ([*SONAR, "--set", "OPTIMIZATION.LR=0.1"], "Write OPTIMIZATION.LR 0.1."),
    ([*SONAR, "--set", "OPTIMIZATION.LR"], "Write OPTIMIZATION.LR VALUE."),
    ([*SONAR, "--set", "LR", "0.1"], "Did you mean `OPTIMIZATION.LR`?"),
    ([*SONAR, "--set", "OPTIMIZATION.LRR", "0.1"], "Did you mean `LR`?"),
    ([*SONAR, "--set", "OPTIMIZATION.LR", "0.1", "--epochs", "3"], "Put --set last"),
]
NAMES = [
    (["train", "mapsag", C], "Did you mean mapsage?"),
    (["why", "MapSage", C], "Did you mean mapsage?"),
    (["train", C], "Type: unbroken train mapsage small.py"),
    (["why", Y], "Type: unbroken why focalsst cfgs/sonar_models/micro.yaml"),
    (["train", C, "mapsage", "--fresh"], "Type: unbroken train mapsage small.py --fresh"),
    (["why", "mapsage", Y], "Type: unbroken why focalsst cfgs/sonar_models/micro.yaml"),
    (["why", "focalsst", C], "this is no config of focalsst, but one of mapsage"),
    (["why", "mapsage", "smal.py"], "Did you mean small.py?"),
    (["why", "mapsage", "small"], "Did you mean small.py?"),
    (["why", "mapsage", "small．py"], "Did you mean small.py?"),
    (["why", "mapsage", "“small.py”"], "Did you mean small.py?"),
    (["why", "mapsage", "."], "this is a folder, and no config file. In . there is: small.py."),
    (["why", "mapsage", "work_dirs/small/iter_4.pth"], "this is a checkpoint, and no config file"),
    (["show", "smal"], "Did you mean the run small?"),
    (["verify", "smal"], "Did you mean the run small?"),
    (["inspect", "small"], "Did you mean the run small?"),
]
COMMANDS = [
    (["tarin", "mapsage", C], "Did you mean 'train'? See"),
    (["resume", "mapsage", C], "Here that is: unbroken train RECIPE CONFIG (it resumes by itself)."),
    (["mapsage", C], "Type: unbroken train mapsage CONFIG."),
    ([C], "Type: unbroken train RECIPE small.py, where RECIPE is focalsst or mapsage."),
    (["list"], "Here that is: unbroken ls."),
    (["status", "small"], "unbroken show RUN"),
    (["rm", "small"], "unbroken prune RUN"),
    (["help"], "unbroken --help"),
    (["version"], "version 0."),
    (["show", "small", "--jsn"], "--json"),
    (["prune", "small", "--keep_last", "2"], "--keep-last"),
    (["prune", "small", "--keep", "3"], "Here that is: --keep-last N."),
    (["prune", "small", "--keep=3"], "Here that is: --keep-last N."),
    (["prune", "small", "--dry"], "Did you mean --dry-run?"),
    (["verify", "small", "--js"], "Did you mean --json?"),
    (["backup", "small", "--with"], "Did you mean --without-archive?"),
    (["prune", "small", "--keep-last", "two"], "'--keep-last': expected a whole number"),
    (["show", "work_dirs/small/iter_4.pth"], "For a file: unbroken inspect work_dirs/small/iter_4.pth"),
    (["pin", "work_dirs/small/iter_4.pth"], "Name the run before it: unbroken pin RUN iter_4.pth"),
    (["inspect", "work_dirs/small"], "For a run: unbroken show work_dirs/small"),
    (["compare", "small"], "one alone: unbroken show small"),
    (["compare", "small", "small"], "this run is named twice"),
    (["backup", "small", "work_dirs/small"], "Name a folder elsewhere"),
    (["demo", "arial"], "Expected aerial or sonar, found arial"),
    (["watch", "small", "--every", "2"], "with its unit (2s, 2m or 2h)"),
    (["unpack", "nix.zip"], "Name a file that `unbroken pack` wrote"),
]
if os.name != "nt":
    NAMES.append((["why", "mapsage", "C:\\Users\\me\\small.py"], "This is a path of Windows"))


@pytest.mark.parametrize(("words", "said"), [*OPTIONS, *NAMES, *COMMANDS], ids=lambda each: str(each)[:90])
def test_an_ordinary_mistake_is_answered_with_what_was_meant(
    place: Path, type_: Type, words: list[str], said: str
) -> None:
    answer = type_(*words)
    assert answer.code == 2 and reads_well(answer)
    assert said in answer.err, answer.err
    assert not PRIVATE.search(answer.err), answer.err
    assert not (place / "output").exists() and sorted(os.listdir(place / "work_dirs")) == ["small"]


CONFIGS = [
    ("lr = 0.1", "`lr` is not a known key. Did you mean `optim_wrapper.optimizer.lr`"),
    ("max_iters = 9", "train_cfg.max_iters"),
    ("batch_size = 4", "Did you mean `train_dataloader.batch_size`"),
    (
        "train_cfg = dict(type='IterBasedTrainLoop', max_iters='9')",
        "Expected a whole number, found '9'. Write it without",
    ),
    ("train_cfg = dict(type='IterBasedTrainLoop', max_iters=-9)", "Expected greater than 0, found -9"),
    ("resume = 'yes'", "Expected True or False, found 'yes'"),
    ("work_dir = 3", "`work_dir`"),
    ("modle = dict()", "Did you mean `model`?"),
    ("gradient_checkpointing = 1", "Expected True or False, found 1"),
    ("x = [1，2]", "It is a full-width character: type , instead."),
    ("x = dict(a=1", "'(' was never closed"),
    ("_base_ = './nix.py'", "there is no file nix.py"),
]


@pytest.mark.parametrize(("line", "said"), CONFIGS, ids=lambda each: str(each)[:60])
def test_a_mistake_in_a_config_is_answered_with_its_line(here: Path, type_: Type, line: str, said: str) -> None:
    with (here / C).open("a") as file:
        file.write(f"{line}\n")
    number = len((here / C).read_text().splitlines())
    answer = type_(*AERIAL)
    assert answer.code == 2 and reads_well(answer)
    assert said in answer.err and f"small.py:{number}: " in answer.err, answer.err
    assert not PRIVATE.search(answer.err)


def test_a_key_at_the_top_that_changes_nothing_is_named_with_the_one_that_does(here: Path, type_: Type) -> None:
    with (here / C).open("a") as file:
        file.write("data_root = 'elsewhere'\noptimizer = dict(lr=1)\nenv_cfg = dict()\n")
    said = type_(*AERIAL).out
    assert "data_root (set train_dataloader.dataset.data_root, val_dataloader.dataset.data_root)" in said
    assert "optimizer (set optim_wrapper.optimizer)" in said and "env_cfg," in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train_cfg.max_iters", "5"], "Write train_cfg.max_iters=5."),
        (["train_cfg.max_iters:5"], "Write train_cfg.max_iters=5."),
        (["train_cfg.max_iters＝5"], "Write train_cfg.max_iters=5."),
        (["max_iters=5"], "train_cfg.max_iters"),
        ([""], "Is a variable in the command empty?"),
        (["="], "Is a variable in the command empty?"),
        (["lr=5"], "Did you mean `optim_wrapper.optimizer.lr`"),
    ],
)
def test_a_mistake_behind_cfg_options_is_answered(here: Path, type_: Type, words: list[str], said: str) -> None:
    answer = type_(*AERIAL, "--cfg-options", *words)
    assert answer.code == 2 and said in answer.err, answer.err


NOTHING = [
    ["why", "mapsage", ""],
    ["train", "mapsage", " "],
    *([*AERIAL, option, ""] for option in ("--work-dir", "--ckpt", "--pretrained_model", "--search", "--backup")),
    *([*AERIAL, option, ""] for option in ("--tag", "--seed", "--session", "--quota", "--device")),
    ["why", "focalsst", "--cfg_file", ""],
    ["why", "focalsst", ""],
    *([*SONAR, option, ""] for option in ("--output", "--ckpt", "--extra_tag", "--batch_size")),
    [*AERIAL, "--work-dir="],
    *([command, ""] for command in ("show", "verify", "inspect", "audit", "watch", "stop", "prune", "ls", "log")),
    ["pack", "small", ""],
    ["backup", "small", ""],
    ["restore", "small", "--from", ""],
    ["unpack", ""],
    ["pin", "", "4"],
    ["compare", "small", ""],
    ["data", "aerial", ""],
]


@pytest.mark.parametrize("words", NOTHING, ids=" ".join)
def test_an_empty_word_is_never_the_current_folder(place: Path, type_: Type, words: list[str]) -> None:
    """As a shell makes of a variable that was never set: `--work-dir "$OUT"`."""
    before = sorted(place.rglob("*"))
    answer = type_(*words)
    assert answer.code == 2 and reads_well(answer)
    assert "found nothing" in answer.err and "Is a variable in the command empty?" in answer.err, answer.err
    assert sorted(place.rglob("*")) == before


def test_data_that_are_found_from_another_folder_are_named(
    here: Path, type_: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`data_root` counts from the current folder, as in MMEngine: typed in `configs`, the command finds none."""
    (here / "data/Train/images_png").mkdir(parents=True)
    (here / "configs").mkdir()
    monkeypatch.chdir(here / "configs")
    answer = type_("why", "mapsage", "../small.py", "--cfg-options", "train_dataloader.dataset.data_root=data")
    assert answer.code == 2
    assert f"Found it in {here}. Type the command in {here}, or set data_root to {here / 'data'}." in answer.err


def test_one_run_is_one_run(here: Path, type_: Type) -> None:
    assert "\n1 run: " in type_("prune", "work_dirs").out


def test_a_folder_that_cannot_be_made_for_another_reason_than_room_asks_for_none(here: Path, type_: Type) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("a file system where nothing can be made, whoever asks")
    answer = type_("train", "mapsage", C, "--work-dir", "/proc/no", "--tag", "x")
    assert answer.code == 10 and "cannot be made" in answer.err
    assert (
        re.search("[Nn]ame a(nother)? folder", answer.err)
        and "room" not in answer.err
        and "bytes free" not in answer.err
    )


def test_a_note_may_be_empty(here: Path, type_: Type) -> None:
    assert type_("pin", "small", "4", "--note", "").code == 0


@pytest.mark.parametrize("command", ["show", "verify", "audit", "watch", "stop", "prune", "pin", "restore"])
def test_a_run_is_named_by_its_tag_in_every_command(here: Path, type_: Type, command: str) -> None:
    answer = type_(command, "small")
    assert answer.code == 0 and answer.err == ""
    assert "small" in answer.out
    shutil.copytree(here / "work_dirs/small", here / "others/small", symlinks=True)
    several = type_(command, "small")
    assert several.code == 2 and "several runs have this tag" in several.err
    assert "others/small" in several.err and "work_dirs/small" in several.err


def test_a_file_of_text_is_no_damaged_checkpoint(place: Path, type_: Type) -> None:
    for name in (C, Y, "notes.txt", "train.log"):
        (place / name).touch()
        if not (place / name).stat().st_size:
            (place / name).write_text("loss 0.1\n")
        for words in (["inspect", name], ["verify", name], [*AERIAL, "--tag", "x", "--pretrained_model", name]):
            answer = type_(*words)
            said = answer.out + answer.err
            assert answer.code == 12 and f"this is a text file ({Path(name).suffix})" in said, said
            assert "damaged:" not in said and "again" not in said and "b'" not in said, said


def test_a_checkpoint_of_the_other_application_is_named_as_one(place: Path, type_: Type) -> None:
    answer = type_(*SONAR, "--ckpt", "work_dirs/small/iter_4.pth")
    assert answer.code == 13 and "changed:" not in answer.out
    assert "is a checkpoint of `unbroken train mapsage`, and this is a training of focalsst" in answer.out
    assert "name a checkpoint of focalsst" in answer.out


@pytest.mark.parametrize("application", [aerial, sonar], ids=["mapsage", "focalsst"])
def test_what_is_said_to_be_meant_can_be_typed(place: Path, application: object) -> None:
    """Every option that is proposed for one of another program is taken as it stands, with its key."""
    parser: OptionParser = application.parser()  # type: ignore[attr-defined]
    config = C if application is aerial else Y
    values = {"lr": "0.01", "learning_rate": "0.01", "weight_decay": "0.01", "wd": "0.01", "gpu": "0", "gpu_ids": "0"}
    values |= dict.fromkeys(("data_root", "data_path", "data_dir", "data"), "data")
    for name, template in parser.meant.items():
        said = template.format(value=values.get(name, "3"), pairs="resume=False", words="OPTIMIZATION.LR 0.1")
        said = said.partition(" (")[0].partition(",")[0].replace("=N", "=3").replace(" N", " 3").replace("VALUE", "0.1")
        if not said.startswith("--") or "--session" in said or ".pth" in said:
            continue
        words = shlex.split(said)
        application.read([config, *words], Environment())  # type: ignore[attr-defined]
