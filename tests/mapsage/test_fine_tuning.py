"""Fine-tuning into a config with other classes, from a file that the real MMEngine wrote and from our own."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine_files import FOLDER, needs_files
from nano_job import Listener, built, job, session, write_nano_job
from PIL import Image
from torch import Tensor

from mapsage.task import build
from unbroken import Job
from unbroken.errors import Incompatible, UsageError
from unbroken.journal import read_events
from unbroken.train import fit, read_checkpoint
from unbroken.train.start import launch

BEST = FOLDER / "best_mIoU_iter_10.pth"
THEIRS = ("background", "building", "road", "water", "barren", "forest", "agriculture", "playground")
HEAD = ("decode_head.conv_seg.weight", "decode_head.conv_seg.bias")
LISTS = {
    "fewer": ("water", "building", "forest"),
    "more": ("pond", *THEIRS, "harbour"),
    "reordered": THEIRS[::-1],
    "as many, others": ("water", "road", "pond", "harbour", "forest", "barren", "building", "background"),
}


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def with_classes(folder: Path, names: Iterable[str], *, more: str = "") -> Path:
    """The nano config with another list of classes, and masks that have no more than these."""
    names = tuple(names)
    config = write_nano_job(folder, steps=1, more=more)
    dataset = f'type="BaseSegDataset", reduce_zero_label=True, metainfo=dict(classes={names!r})'
    text = config.read_text().replace('type="EarthVQADataset"', dataset)
    config.write_text(text.replace("num_classes=8", f"num_classes={len(names)}"))
    for mask in (folder / "data").rglob("masks_png/*.png"):
        with Image.open(mask) as picture:
            labels = np.array(picture)
        labels[labels > len(names)] = 0
        Image.fromarray(labels).save(mask)
    return config


def first_weights(asked: Job) -> tuple[dict[str, Tensor], str]:
    """What the first step of a real launch begins with, and what the launch said."""
    seen: list[dict[str, Tensor]] = []
    console = Listener()
    torch.set_num_threads(1)
    with launch(asked, console=console) as run:
        task = build(asked, run.session_log.say)
        loss = task.loss

        def remember(samples: Any) -> Any:
            seen.append({name: tensor.clone() for name, tensor in task.model.state_dict().items()})
            return loss(samples)

        fit(run, replace(task, loss=remember))
    return seen[0], console.text


def assert_rows_by_name(
    began: dict[str, Tensor], names: tuple[str, ...], file: dict[str, Tensor], of_file: tuple[str, ...], new: Any
) -> None:
    for tensor in HEAD:
        for row, name in enumerate(names):
            expected = file[tensor][of_file.index(name)] if name in of_file else new[tensor][row]
            assert torch.equal(began[tensor][row], expected), (tensor, name)
    assert all(torch.equal(began[name], file[name]) for name in file if name not in HEAD)


@needs_files
@pytest.mark.parametrize("names", LISTS.values(), ids=LISTS)
def test_classes_that_mmengines_file_knows_keep_their_rows_and_others_are_as_in_a_new_model(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    config = with_classes(tmp_path, names, more=f"load_from = {str(BEST)!r}\nresume = False")
    began, said = first_weights(job(config))
    new, _ = first_weights(job(config, "--tag", "new", "--cfg-options", "load_from=None", "--work-dir", "new"))
    assert_rows_by_name(began, names, read_checkpoint(BEST)["state_dict"], THEIRS, new)
    known = [name for name in names if name in THEIRS]
    assert f"by class name: {', '.join(known)} ({len(known)} of {len(names)} rows)" in said
    run = job(config).directory
    (event,) = (each for each in read_events(run / "unbroken" / "journal.jsonl") if each["event"] == "weights")
    assert event["counts"] == {"loaded": 122, "by class name": 2, "missing": 0, "misfit": 0, "unused": 0}
    assert event["classes"]["new"] == [name for name in names if name not in THEIRS]
    assert event["beside"] == ["message_hub"]
    parent = json.loads((run / "unbroken" / "run.json").read_text())["parent"]
    assert (parent["file"], parent["step"], parent["written_by"]) == (str(BEST), 10, "MMEngine weights")


@needs_files
def test_strict_refuses_other_classes_and_passes_the_same(tmp_path: Path) -> None:
    config = with_classes(tmp_path, LISTS["fewer"])
    with pytest.raises(Incompatible, match=r"by class name: water, building, forest \(3 of 3 rows\); only in the file"):
        session(job(config, "--pretrained_model", BEST, "--strict"))
    assert not (job(config).directory / "unbroken" / "run.json").exists()
    same = write_nano_job(tmp_path / "same", steps=1)
    code, said = session(job(same, "--pretrained_model", BEST, "--strict", "--tag", "same"))
    assert code == 0 and "124 of 124 tensors loaded" in said


@pytest.mark.parametrize("kind", ["iter_1.pth", "best_mIoU_iter_1.pth"])
def test_our_own_files_name_their_classes(tmp_path: Path, kind: str) -> None:
    config = with_classes(tmp_path, LISTS["more"])
    assert session(job(config, "--work-dir", "first"))[0] == 0
    file = Path("first") / kind
    names = LISTS["fewer"]
    began, _ = first_weights(job(with_classes(tmp_path / "second", names), "--pretrained_model", file))
    assert_rows_by_name(began, names, read_checkpoint(file)["state_dict"], LISTS["more"], {})


def test_a_bare_backbone_of_init_cfg_fills_the_backbone_and_strict_says_what_is_missing(tmp_path: Path) -> None:
    config = write_nano_job(tmp_path, steps=1)
    bare = {name: torch.randn_like(tensor) for name, tensor in built(job(config)).model.backbone.state_dict().items()}
    torch.save(bare, "mit_nano.pth")
    more = 'drop_path_rate=0.1, init_cfg=dict(type="Pretrained", checkpoint="mit_nano.pth")'
    config.write_text(config.read_text().replace("drop_path_rate=0.1", more))
    with pytest.raises(Incompatible, match=r"missing +decode_head\."):
        session(job(config, "--strict"))
    began, said = first_weights(job(config))
    assert all(torch.equal(began[f"backbone.{name}"], tensor) for name, tensor in bare.items())
    assert f"{len(bare)} of 124 tensors loaded" in said
    assert f"missing  {124 - len(bare)}  not in the file: keep their initial values" in said


def test_strict_alone_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="resuming is strict in any case"):
        job(write_nano_job(tmp_path), "--strict")
