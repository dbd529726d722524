"""Fine-tuning a detector: from our own files, whose config names the classes, and from the original's, which do not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from focalsst.config import detector_settings
from focalsst.task import build
from tests.focalsst.nano_job import CONFIG, Listener, events, job, session, write_nano_job
from tests.focalsst.original_checkpoints import train_as_the_original
from unbroken import Job
from unbroken.errors import Incompatible
from unbroken.train import Task, fit, read_checkpoint
from unbroken.train.start import launch

pytestmark = pytest.mark.usefixtures("in_the_application_s_folder")

ENCODER = "backbone_3d.focal_encoder"
TABLES = ("global_step", f"{ENCODER}.kernel_offsets", f"{ENCODER}.inv_idx")
HEAD = "dense_head.heads_list.0.hm."
KITTI = "MAP_CLASS_TO_KITTI: {Box: Car, Diver: Pedestrian, Buoy: Cyclist}"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application's folder, with a run of one epoch in it."""
    folder = tmp_path_factory.mktemp("app")
    write_nano_job(folder, epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert session(job("--workers", 0, "--extra_tag", "first"))[0] == 0
    return folder


@pytest.fixture
def with_buoys(app: Path) -> Iterator[str]:
    """A config with one class more, before the others."""
    data = app / "cfgs" / "dataset_configs" / "sonar_dataset.yaml"
    before = data.read_text()
    data.write_text(before.replace("MAP_CLASS_TO_KITTI: {Box: Car, Diver: Pedestrian}", KITTI))
    path = app / "cfgs" / "sonar_models" / "buoys.yaml"
    path.write_text((app / CONFIG).read_text() + "\nCLASS_NAMES: [Buoy, Diver, Box]\n")
    yield str(path.relative_to(app))
    data.write_text(before)


def first_weights(asked: Job) -> tuple[dict[str, Tensor], str]:
    """What the first step of a real launch begins with, and what the launch said."""
    seen: list[dict[str, Tensor]] = []
    console = Listener()
    torch.set_num_threads(1)
    with launch(asked, console=console) as run:
        task: Task = build(asked, run.session_log.say)
        loss = task.loss

        def remember(batch: Any) -> Any:
            seen.append({name: tensor.clone() for name, tensor in task.model.state_dict().items()})
            return loss(batch)

        fit(run, replace(task, loss=remember, validation=None))
    return seen[0], console.text


def checkpoint(kind: str) -> Path:
    (found,) = job("--extra_tag", "first").directory.glob(f"ckpt/{kind}")
    return found


@pytest.mark.parametrize("kind", ["checkpoint_epoch_1.pth", "best_*.pth"])
def test_our_own_files_give_the_rows_of_the_heat_map_by_name(tmp_path: Path, with_buoys: str, kind: str) -> None:
    file = checkpoint(kind)
    given = {name: tensor for name, tensor in read_checkpoint(file)["model_state"].items() if name not in TABLES}
    options = ("--workers", 0, "--output", tmp_path)
    tuned = job(*options, "--pretrained_model", file, "--extra_tag", "tuned", config=with_buoys)
    began, said = first_weights(tuned)
    new, _ = first_weights(job(*options, "--extra_tag", "new", config=with_buoys))
    rows = [name for name in given if name.startswith(HEAD) and given[name].shape != new[name].shape]
    assert len(rows) == 2
    for name in rows:
        assert torch.equal(began[name][1], given[name][1]) and torch.equal(began[name][2], given[name][0])
        assert torch.equal(began[name][0], new[name][0])
    assert all(torch.equal(began[name], given[name]) for name in given if name not in rows)
    assert "by class name: Diver, Box (2 of 3 rows); new here: Buoy" in said
    (event,) = events(tuned.directory, "weights")
    assert event["classes"] == {"taken": ["Diver", "Box"], "new": ["Buoy"], "left": []}
    with pytest.raises(Incompatible, match="new here: Buoy"):
        session(job(*options, "--pretrained_model", file, "--extra_tag", "strictly", "--strict", config=with_buoys))


def test_a_legacy_file_of_the_original_has_no_names(tmp_path: Path, with_buoys: str) -> None:
    options = ("--workers", 0, "--output", tmp_path / "runs")
    width = ("--set", "MODEL.MAP_TO_BEV.HEIGHT_AWARE", False)  # the original has no such weights
    settings = detector_settings(job(*options, *width).options.own.config)
    original = next(train_as_the_original(settings, per_epoch=5, epochs=4))
    file = tmp_path / "original.pth"
    original.write(file)
    given = {name: tensor for name, tensor in original.model_state.items() if name not in TABLES}
    options = (*options, "--pretrained_model", file)

    began, said = first_weights(job(*options, "--extra_tag", "two", *width))
    assert began.keys() == given.keys() and all(torch.equal(began[name], given[name]) for name in given)
    assert "the rows of the 2 classes are taken in their order: the file names no classes" in said
    assert "unused  3  not in the model: left out" in said

    began, said = first_weights(job(*options, "--extra_tag", "three", *width, config=with_buoys))
    assert "3 classes here, 2 in the file, and the file names no classes" in said
    rest = [name for name in given if given[name].shape == began[name].shape]
    assert len(rest) == len(given) - 2 and all(torch.equal(began[name], given[name]) for name in rest)
