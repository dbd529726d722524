"""`why` gives the verdict of `train` with the same arguments, by the same exit code and in the same words."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from focalsst.dataset.infos import read_infos, write_infos
from tests.focalsst.nano_job import CONFIG, frame
from tests.focalsst.nano_job import write_nano_job as write_sonar_job
from tests.mapsage.nano_job import write_nano_job as write_aerial_job
from tests.unbroken.cli.typing_commands import Type, contents
from unbroken.launch import Environment

AERIAL = ["mapsage", "nano.py", "--tag", "ft"]
SONAR = ["focalsst", CONFIG, "--tag", "ft", "--workers", "0"]
SONAR_DATA = Path("data/sonar")
INFOS = SONAR_DATA / "sonar_infos_train.npz"
FILE = "weights.pth"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_sonar_job(folder, pasting=True)
    config = write_aerial_job(folder / "aerial", steps=2, end=6)
    text = config.read_text("utf-8").replace(str(folder / "aerial"), "aerial")
    (folder / "nano.py").write_text(text, "utf-8")
    return folder


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused_alike(type_: Type, root: Path, words: list[Any], *, code: int, said: str) -> None:
    before = contents(root)
    why = type_("why", *words)
    assert contents(root) == before
    train = type_("train", *words)
    assert (why.code, train.code) == (code, code), f"{why}\n{train}"
    assert (why.err or why.out).strip() == train.err.strip()
    assert said in train.err, train.err
    assert contents(root) == before, "a refused launch leaves nothing"


def gone(path: str) -> Callable[[], None]:
    return lambda: shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()


def torn(path: str) -> Callable[[], None]:
    return lambda: _cut(Path(path))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def of_four_columns() -> None:
    for file in sorted((SONAR_DATA / "points_binary").iterdir()):
        np.fromfile(file, "<f4").reshape(-1, 5)[:, :4].tofile(file)


def boxes(change: Callable[[Any], None]) -> Callable[[], None]:
    def spoil() -> None:
        known = [replace(each, boxes=each.boxes.copy()) for each in read_infos(INFOS)]
        for each in known:
            change(each.boxes)
        write_infos(INFOS, known)

    return spoil


def a_file_in_the_way() -> None:
    for name in ("work_dirs", "output"):
        Path(name).write_text("a file")


AERIAL_CASES = {
    "no data": (gone("aerial/data"), [], 2, "this folder does not exist"),
    "no masks": (gone("aerial/data/Train/masks_png"), [], 2, "this folder does not exist"),
    "no validation": (gone("aerial/data/Val/images_png"), [], 2, "this folder does not exist"),
    "one mask less": (lambda: min(Path("aerial/data/Train/masks_png").iterdir()).unlink(), [], 2, "no mask"),
    "a torn picture": (lambda: _cut(sorted(Path("aerial/data/Train/images_png").iterdir())[0]), [], 12, "truncated"),
    "no such device": (lambda: None, ["--device", "xpu:77"], 2, "torch cannot use it here"),
    "a backup in the run": (lambda: None, ["--backup", "work_dirs/ft/backup"], 2, "a backup here would lie in"),
    "a file in the way": (a_file_in_the_way, [], 10, "the run's folder cannot be made"),
}  # fmt: skip
SONAR_CASES = {
    "no data": (gone("data"), [], 2, "the folder of the data does not exist"),
    "no list": (gone("data/sonar/ImageSets/val.txt"), [], 2, "the list of frames is missing"),
    "no infos": (gone(str(INFOS)), [], 2, "there is no such file of infos"),
    "torn infos": (torn(str(INFOS)), [], 12, "the infos cannot be read"),
    "no points": (gone("data/sonar/points_binary"), [], 2, "have no file of points"),
    "a point less": (lambda: _cut(frame(SONAR_DATA, 0)), [], 12, "truncated"),
    "four columns": (of_four_columns, [], 12, "found 4 float32 numbers a point"),
    "no database": (gone("data/sonar/sonar_dbinfos_train.npz"), [], 2, "there is no database of objects"),
    "degrees": (boxes(lambda b: b[:, 6].__imul__(180 / np.pi)), [], 12, "the headings are no radians"),
    "boxes elsewhere": (boxes(lambda b: b[:, 0].__iadd__(900)), [], 2, "not one of the"),
    "no such device": (lambda: None, ["--device", "xpu:77"], 2, "torch cannot use it here"),
    "a file in the way": (a_file_in_the_way, [], 10, "the run's folder cannot be made"),
}


@pytest.mark.parametrize("case", AERIAL_CASES)
def test_what_the_aerial_application_refuses_is_refused_by_both(root: Path, type_: Type, case: str) -> None:
    spoil, options, code, said = AERIAL_CASES[case]
    spoil()
    refused_alike(type_, root, [*AERIAL, *options], code=code, said=said)


@pytest.mark.parametrize("case", SONAR_CASES)
def test_what_the_sonar_application_refuses_is_refused_by_both(root: Path, type_: Type, case: str) -> None:
    spoil, options, code, said = SONAR_CASES[case]
    spoil()
    refused_alike(type_, root, [*SONAR, *options], code=code, said=said)


def test_a_run_that_is_to_go_on_is_asked_the_same(root: Path, type_: Type) -> None:
    assert type_("train", *AERIAL).code == 0
    gone("aerial/data/Val")()
    assert type_("why", *AERIAL).code == type_("train", *AERIAL).code == 0, "a finished run needs no data"
    more = [*AERIAL, "--cfg-options", "train_cfg.max_iters=4"]
    why, train = type_("why", *more), type_("train", *more)
    assert (why.code, train.code) == (2, 2)
    assert why.err == train.err and "Val" in why.err


# -- files to begin with -------------------------------------------------------------------------------------------

WEIGHTS = {"conv.weight": torch.ones(2, 2)}
UNUSUAL = {
    "an unusual key": (
        {"network_weights": WEIGHTS, "epoch": 3},
        2,
        "Say which: --weights-key network_weights (in a script",
    ),
    "several": ({"net": WEIGHTS, "ema": WEIGHTS}, 2, "Say which: --weights-key net, or --weights-key ema (in a script"),
    "deeper": ({"a": {"generator": WEIGHTS}, "x": 1}, 2, "Say which: --weights-key a.generator (in a script"),
    "the model itself": ({"model": None, "ema": nn.Linear(2, 2)}, 2, "Save model.state_dict(), not the model itself."),
    "arrays": ({"model": {"conv.weight": np.ones((2, 2))}}, 2, "Its arrays are NumPy's."),
    "of another network": ({"state_dict": WEIGHTS}, 10, "not one tensor of this file fits the model"),
}


@pytest.mark.parametrize("recipe", [AERIAL, SONAR], ids=["aerial", "sonar"])
@pytest.mark.parametrize("case", UNUSUAL)
def test_files_whose_weights_are_not_found_are_refused_by_both(
    root: Path, type_: Type, recipe: list[str], case: str
) -> None:
    tree, code, said = UNUSUAL[case]
    torch.save(tree, FILE)
    refused_alike(type_, root, [*recipe, "--pretrained_model", FILE], code=code, said=said)


def aerial_weights(**changes: Any) -> dict[str, torch.Tensor]:
    from tests.mapsage.mmengine_files import nano

    torch.manual_seed(0)
    return {**nano().state_dict(), **changes}


@pytest.mark.parametrize("key", ["ema", "nets.ema"])
def test_weights_under_a_key_of_their_own_are_taken_from_there(root: Path, type_: Type, key: str) -> None:
    good, bad = aerial_weights(), {name: torch.full_like(value, 7) for name, value in aerial_weights().items()}
    outer, _, inner = key.partition(".")
    torch.save({"state_dict": bad, outer: {inner: good} if inner else good}, FILE)
    words = [*AERIAL, "--pretrained_model", FILE, "--weights-key", key]
    why = type_("why", *words)
    assert why.code == 0 and "all" in why.out and "tensors fit by name and shape" in why.out
    train = type_("train", *words)
    assert train.code == 0, train.err
    assert "beside the weights, not read: state_dict" in train.out


def test_a_key_that_is_not_there_names_those_that_are(root: Path, type_: Type) -> None:
    torch.save({"net": aerial_weights()}, FILE)
    words = [*AERIAL, "--pretrained_model", FILE, "--weights-key", "ema"]
    refused_alike(type_, root, words, code=2, said="no weights by name under `ema`")
    assert type_("why", *AERIAL, "--weights-key", "ema").code == 2, "there is no file to which it could belong"


def test_strict_is_strict_for_both(root: Path, type_: Type) -> None:
    weights = aerial_weights()
    weights.pop("decode_head.conv_seg.bias")
    torch.save(weights, FILE)
    words = [*AERIAL, "--pretrained_model", FILE]
    assert type_("why", *words).code == 0
    refused_alike(type_, root, [*words, "--strict"], code=13, said="these are not the weights of this model")


def foreign(tree: dict[str, Any]) -> None:
    torch.save({"meta": {"iter": 1, "epoch": 0}, "message_hub": {}, "param_schedulers": [], **tree}, "iter_1.pth")


@pytest.mark.parametrize("case", ["other classes", "an optimizer of others", "an optimizer without sense"])
def test_the_state_of_another_program_is_compared_with_what_is_trained(root: Path, type_: Type, case: str) -> None:
    weights = aerial_weights()
    optimizer = torch.optim.AdamW([nn.Parameter(torch.ones(2))]).state_dict()
    if case == "other classes":
        weights["decode_head.conv_seg.weight"] = torch.ones(5, 8, 1, 1)
        weights["decode_head.conv_seg.bias"] = torch.ones(5)
    if case == "an optimizer without sense":
        optimizer = {"state": 3, "param_groups": [{"params": "all"}]}
    foreign({"state_dict": weights, "optimizer": optimizer})
    words = [*AERIAL, "--ckpt", "iter_1.pth"]
    why, train = type_("why", *words), type_("train", *words)
    assert why.code == train.code and why.code in (12, 13), f"{why}\n{train}"
    assert why.err == train.err and why.err


@pytest.mark.parametrize("case", ["other classes", "an optimizer of others"])
def test_the_state_of_another_sonar_network_is_compared_too(root: Path, type_: Type, case: str) -> None:
    from focalsst.recipes import read
    from focalsst.task import build

    words = [*SONAR[1:], "--ckpt", "checkpoint_epoch_1.pth"]
    made_here = build(read(words, Environment()), lambda _line: None)
    state, optimizer = made_here.model.state_dict(), made_here.optimizer.state_dict()
    if case == "other classes":
        name = next(name for name in state if name.startswith("dense_head") and name.endswith("weight"))
        state[name] = torch.ones(7, *state[name].shape[1:])
    else:
        optimizer["param_groups"][0]["params"] = [0]
    tree = {"epoch": 1, "it": 4, "model_state": state, "optimizer_state": optimizer, "version": "none"}
    torch.save(tree, "checkpoint_epoch_1.pth")
    why, train = type_("why", SONAR[0], *words), type_("train", SONAR[0], *words)
    assert why.code == train.code and why.code in (12, 13), f"{why}\n{train}"
    assert why.err == train.err and why.err


# -- what it costs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [AERIAL, SONAR], ids=["aerial", "sonar"])
def test_a_plan_that_hangs_on_no_tensor_loads_no_torch(root: Path, recipe: list[str]) -> None:
    import subprocess
    import sys

    program = (
        f"import sys; from unbroken.cli import main; sys.exit(main({['why', *recipe]!r}) or 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
