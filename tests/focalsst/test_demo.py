"""The demo tells its whole story, here with the smallest detector: two kills, a twin, the verdict, two pictures."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from focalsst.config import SonarConfig
from focalsst.demo import FULL, Size, Stage, config_of, finish, shipped, tell
from focalsst.recipes import steps_of
from tests.processes import started_here_alike
from unbroken.config import read_config, validate
from unbroken.train import read_checkpoint

SMALL = Size(model="nano", train=32, val=6, points=600, reach_m=24.0, kills=(13, 20), log_every=3, eval_every=1)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, int]:
    """The folder of one telling, what was said, and the exit code."""
    home = tmp_path_factory.mktemp("demo sonar")
    said: list[str] = []
    with started_here_alike():
        code = tell(home, say=said.append, size=SMALL)
    return home, "\n".join(said), code


def test_the_demo_ends_with_twins(told: tuple[Path, str, int]) -> None:
    _, text, code = told
    assert code == 0, text
    assert "VERDICT: the run that was killed twice is BIT-IDENTICAL to its twin." in text
    assert "losses of all 24 steps: identical" in text
    assert "detections of the last evaluation: identical" in text
    assert text.count("killed by SIGKILL") == 2 == text.count("replayed: bit-identical")
    assert text.count("plan: FRESH") == 2 == text.count("plan: RESUME")
    assert "AP:" not in text and "recall" not in text  # the long blocks are left to the logs


def test_the_demo_shows_the_commands_that_it_runs(told: tuple[Path, str, int]) -> None:
    home, text, _ = told
    commands = re.findall(r"^   \$ OMP_NUM_THREADS=[12] (unbroken train focalsst .*)$", text, re.M)
    (place,) = home.glob("2*")
    assert len(commands) == 4 and len(set(commands)) == 2
    for command, name in zip(commands, ("twin", "interrupted", "interrupted", "interrupted")):
        assert f"--output {place.name}/{name} " in command
        assert (place / name / "sonar_models/nano/default/ckpt/checkpoint_epoch_3.pth").is_file()
    assert f"$ cd '{home}'" in text


def test_the_demo_names_files_that_are_there_to_be_looked_at(told: tuple[Path, str, int]) -> None:
    home, text, _ = told
    (place,) = home.glob("2*")
    listed = text.partition("To look at, below")[2].partition("or: unbroken show")[0].splitlines()[1:]
    names = [line.split()[0] for line in listed if line.strip()]
    assert len(names) == 5 and all((place / name).exists() for name in names)
    for picture in ("scenes.png", "curves.png"):
        assert picture in names
        with Image.open(place / picture) as opened:
            opened.load()
            assert min(opened.size) > 400 and len(opened.convert("RGB").getcolors(1 << 24) or []) > 50


def test_the_demo_has_a_table_of_both_classes_at_both_groups_of_overlaps(told: tuple[Path, str, int]) -> None:
    _, text, _ = told
    number = r" +\d+\.\d"
    assert re.search(rf"^   Box  +6 +0\.50{number}{number} +0\.70{number}{number}$", text, re.M), text
    assert re.search(rf"^   Diver +\d+ +0\.25{number}{number} +0\.50{number}{number}$", text, re.M), text
    assert re.search(rf"^   mean, 3-D{number}{number}$", text, re.M), text


def test_a_twin_that_differs_in_one_bit_is_told_and_gives_exit_code_1(told: tuple[Path, str, int]) -> None:
    home, _, _ = told
    (place,) = home.glob("2*")
    said: list[str] = []
    stage = Stage(home=home, place=place, size=SMALL, say=said.append, began_s=time.monotonic(), threads=1)
    path = stage.run("twin") / "ckpt/checkpoint_epoch_3.pth"
    whole = path.read_bytes()
    tree = read_checkpoint(path)
    name, weights = next((n, w) for n, w in tree["model_state"].items() if w.is_floating_point() and w.ndim > 1)
    weights.view(-1).view(torch.int32)[0] ^= 1
    torch.save(tree, path)
    try:
        code = finish(stage)
    finally:
        path.write_bytes(whole)
    text = "\n".join(said)
    assert code == 1
    assert "VERDICT: the run that was killed twice is NOT the same as its twin." in text
    assert f"model_state.{name}: the tensors differ" in text


def test_the_full_demo_is_killed_in_the_middle_of_two_epochs_and_after_a_save() -> None:
    config = validate(SonarConfig, read_config(shipped() / config_of(FULL))).value
    per_epoch = steps_of(config, FULL.train, epochs=1)
    first, second = FULL.kills
    assert per_epoch < first < second < per_epoch * config.OPTIMIZATION.NUM_EPOCHS
    assert first // per_epoch != second // per_epoch
    for kill in FULL.kills:
        assert 0.2 < kill % per_epoch / per_epoch < 0.8
