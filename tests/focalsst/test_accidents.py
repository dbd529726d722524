"""Memory that runs out in a sonar training, and losses that are not finite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focalsst.dataset.folder import Batch, collate
from focalsst.task import build
from tests.focalsst.nano_job import FRAMES, Listener, events, job, session, steps, write_nano_job
from unbroken import Job
from unbroken.errors import Refused
from unbroken.launch.job import Accidents
from unbroken.train import Task, fit, read_checkpoint
from unbroken.train.start import launch

pytestmark = pytest.mark.usefixtures("in_the_application_s_folder")

BAD = 4


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("app")
    write_nano_job(folder, pasting=True)
    return folder


def asked(tmp_path: Path, *options: object) -> Job:
    return job("--workers", 0, "--epochs", 1, "--output", tmp_path, *options)


def built(found: Job) -> Task:
    torch.set_num_threads(1)
    torch.manual_seed(found.seed)
    return replace(build(found, lambda _line: None), validation=None)


def trained(found: Job, task: Task, **accidents: Any) -> str:
    listener = Listener()
    with launch(found, console=listener) as run:
        fit(run, task, accidents=Accidents(**accidents))
    return listener.text


def with_memory_for(task: Task, samples: int) -> Task:
    """The same task on a device with room for so many frames; the attempt gets half way through before it fails."""
    half_way = 0

    def before(_model: Any, inputs: Any) -> None:
        if inputs[2] > samples:
            nonlocal half_way
            half_way += 1

    def inside(_module: Any, _inputs: Any, _output: Any) -> None:
        nonlocal half_way
        if half_way:
            half_way = 0
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    task.model.register_forward_pre_hook(before)
    task.model.dense_head.register_forward_hook(inside)  # type: ignore[union-attr]
    return task


def test_a_halved_batch_is_an_accumulation_from_the_start(tmp_path: Path) -> None:
    """Frame for frame, and in what every BatchNorm counted: half an attempt counts for nothing."""
    small = asked(tmp_path / "s", "--batch_size", 1, "--set", "OPTIMIZATION.GRAD_ACCUMULATION_STEPS", 2)
    trained(small, built(small))
    halved = asked(tmp_path / "h")
    said = trained(halved, with_memory_for(built(halved), 1))
    assert "out of memory in step 1 with 2 samples at once" in said and said.count("is repeated") == 1
    one, two = steps(small.directory), steps(halved.directory)
    assert [line["samples"] for line in two] == [line["samples"] for line in one]
    for name in ("loss", "loss_hm", "loss_loc", "grad_norm"):
        torch.testing.assert_close([line[name] for line in two], [line[name] for line in one], rtol=1e-3, atol=1e-4)
    file = "ckpt/checkpoint_epoch_1.pth"
    states = [read_checkpoint(found.directory / file)["model_state"] for found in (small, halved)]
    counted = [key for key in states[1] if key.endswith("num_batches_tracked")]
    assert counted and all(int(states[0][key]) == int(states[1][key]) for key in counted)
    assert [event["after"] for event in events(halved.directory, "oom")] == [1]


def test_there_is_no_checkpointing_to_fall_back_to(tmp_path: Path) -> None:
    found = asked(tmp_path)
    with pytest.raises(Refused, match="it cannot be divided further, the network has no checkpointing"):
        trained(found, with_memory_for(built(found), 0))


@pytest.mark.parametrize("parts", [1, 2, 3, 4])
def test_the_parts_of_a_batch_are_what_their_samples_would_have_been_alone(tmp_path: Path, parts: int) -> None:
    task = built(asked(tmp_path))
    samples = [task.dataset.sample(index, np.random.default_rng(0)) for index in range(4)]
    samples[1] = replace(samples[1], boxes=samples[1].boxes[:0])
    samples[2] = replace(samples[2], points=samples[2].points[:0])
    batch = collate(samples)
    found = batch.split(parts)
    assert [task.batches.count(part) for part in found] == [len(part.names) for part in found]
    assert tuple(name for part in found for name in part.names) == batch.names
    begin = 0
    for part in found:
        alone = collate(samples[begin : begin + len(part)])
        for name in ("points", "owner", "boxes", "counts"):
            torch.testing.assert_close(getattr(part, name), getattr(alone, name), rtol=0, atol=0)
        begin += len(part)


def build_with_a_bad_frame(found: Job, say: Any) -> Task:
    """The real task, but the loss of every batch with the fifth frame is not a number."""
    task = build(found, say)
    bad = task.dataset.sample(BAD, np.random.default_rng(0)).name
    loss = task.loss

    def breaks(batch: Batch) -> Any:
        values = dict(loss(batch))
        values["loss"] = values["loss"] * (float("nan") if bad in batch.names else 1.0)
        return values

    return replace(task, loss=breaks)


@pytest.mark.parametrize("workers", [0, 2])
def test_going_back_leaves_the_frames_out_of_each_epoch(tmp_path: Path, workers: int) -> None:
    words = ["--workers", workers, "--epochs", 2, "--output", tmp_path]
    found = replace(job(*words, "--on-nan", "rollback"), task="tests.focalsst.test_accidents:build_with_a_bad_frame")
    code, said = session(found)
    assert code == 0, said
    back = events(found.directory, "rollback")
    assert [[epoch, BAD] in event["samples"] for epoch, event in enumerate(back)] == [True, True]
    gone = {(epoch, sample) for event in back for epoch, sample in event["samples"]}
    used = [(line["epoch"], sample) for line in steps(found.directory) for sample in line["samples"]]
    assert sorted([*used, *gone]) == [(epoch, sample) for epoch in range(2) for sample in range(FRAMES)]
    assert {(event["epoch"], event["sample"]) for event in events(found.directory, "skipped")} == gone
    assert said.count("plan: FRESH") == 2 and said.count("plan: RESUME") == 1
    assert (found.directory / "ckpt/checkpoint_epoch_2.pth").exists()


def test_a_loss_that_is_no_number_names_the_frames(tmp_path: Path) -> None:
    found = asked(tmp_path)
    task = build_with_a_bad_frame(found, lambda _line: None)
    bad = task.dataset.sample(BAD, np.random.default_rng(0)).name
    with pytest.raises(Refused, match=f"the loss is not a number any more.*Found nan on samples.*{bad}"):
        trained(found, replace(task, validation=None))


def test_the_options_reach_the_training(tmp_path: Path) -> None:
    found = asked(tmp_path, "--on-nan", "ignore", "--set", "OPTIMIZATION.LR", 1e30, "OPTIMIZATION.GRAD_NORM_CLIP", 1e30)
    code, said = session(found)
    assert code == 0 and "is not a number: " in said and "(--on-nan ignore), said once" in said
