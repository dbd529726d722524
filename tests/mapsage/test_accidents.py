"""Memory that runs out in a training of aerial images, and losses that are not finite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.mapsage.nano_job import Listener, built, job, write_nano_job
from tests.twin.killing import events, step_records

from mapsage.dataset.preprocess import split
from unbroken import Job
from unbroken.errors import Refused
from unbroken.launch.job import Accidents
from unbroken.train import Task, fit, read_checkpoint
from unbroken.train.start import launch

STEPS = 4


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_nano_job(tmp_path, steps=STEPS)


def asked(config: Path, run: Path, *more: object) -> Job:
    return job(config, "--work-dir", run, "--tag", "t", "--cfg-options", "train_cfg.val_interval=100", *more)


def trained(found: Job, task: Task, **accidents: Any) -> str:
    listener = Listener()
    with launch(found, console=listener) as run:
        fit(run, task, accidents=Accidents(**accidents))
    return listener.text


def with_memory_for(task: Task, samples: int, *, checkpointing: bool = False) -> Task:
    """The same task on a device with room for so many samples."""

    def before(model: Any, inputs: Any) -> None:
        saves = task.model.backbone.layers[0].with_cp  # type: ignore[union-attr,index]
        if len(inputs[0]) > samples or (checkpointing and not saves):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    task.model.register_forward_pre_hook(before)
    return task


def test_a_halved_batch_is_an_accumulation_from_the_start(config: Path, tmp_path: Path) -> None:
    """Also in what its BatchNorm counted: the failed attempt counts for nothing."""
    small = asked(config, tmp_path / "small", "train_dataloader.batch_size=1", "optim_wrapper.accumulative_counts=2")
    trained(small, built(small))
    halved = asked(config, tmp_path / "halved")
    said = trained(halved, with_memory_for(built(halved), 1))
    assert "out of memory in step 1 with 2 samples at once" in said and said.count("is repeated") == 1
    one, two = step_records(tmp_path / "small"), step_records(tmp_path / "halved")
    assert [record["samples"] for record in two.values()] == [record["samples"] for record in one.values()]
    for name in ("loss", "decode.acc_seg", "grad_norm"):
        values = [[record[name] for record in records.values()] for records in (one, two)]
        torch.testing.assert_close(values[1], values[0], rtol=1e-4, atol=1e-5)
    states = [read_checkpoint(tmp_path / name / f"iter_{STEPS}.pth")["state_dict"] for name in ("small", "halved")]
    torch.testing.assert_close(states[1], states[0], rtol=1e-3, atol=1e-5)
    counted = [key for key in states[1] if key.endswith("num_batches_tracked")]
    assert counted and all(int(states[1][key]) == 2 * STEPS for key in counted)


def test_gradient_checkpointing_is_the_last_resort_and_is_remembered(config: Path, tmp_path: Path) -> None:
    found = asked(config, tmp_path / "run")
    said = trained(found, with_memory_for(built(found), 1, checkpointing=True))
    assert "step 1 is repeated with at most 1 sample at once, with gradient checkpointing" in said
    assert [(event["after"], event["recompute"]) for event in events(tmp_path / "run", "oom")] == [
        (1, False),
        (1, True),
    ]
    longer = job(
        config, "--work-dir", tmp_path / "run", "--tag", "t", "--cfg-options", f"train_cfg.max_iters={STEPS + 2}"
    )
    again = with_memory_for(built(longer), 1, checkpointing=True)
    said = trained(longer, again)
    assert "out of memory" not in said and "at most 1 sample at once, with gradient checkpointing: learned" in said


def test_fail_and_a_config_that_has_checkpointing_already(config: Path, tmp_path: Path) -> None:
    found = asked(config, tmp_path / "run", "gradient_checkpointing=True")
    assert built(found).gradients.recompute is None
    with pytest.raises(Refused, match="the step was not repeated: --on-oom fail"):
        trained(found, with_memory_for(built(found), 1), on_oom="fail")


def test_parts_of_a_batch_are_its_samples_in_order(config: Path, tmp_path: Path) -> None:
    task = built(asked(config, tmp_path / "run"))
    samples = [task.dataset.sample(index, np.random.default_rng(0)) for index in range(5)]
    assert [[sample.name for sample in part] for part in split(samples, 2)] == [
        [sample.name for sample in samples[:2]],
        [sample.name for sample in samples[2:]],
    ]
    assert (task.batches.count(samples), list(task.batches.names(samples))) == (5, [sample.name for sample in samples])


def test_a_loss_that_is_no_number_names_the_tiles(config: Path, tmp_path: Path) -> None:
    found = asked(config, tmp_path / "run")
    task = built(found)
    loss = task.loss

    def breaks(samples: Any) -> Any:
        values = dict(loss(samples))
        values["loss"] = values["loss"] * (float("nan") if task.schedule.state_dict()[0]["last_step"] >= 2 else 1.0)
        return values

    with pytest.raises(
        Refused, match=r"step 3: the loss is not a number any more.*Found nan on samples .* \(\S+, \S+\)"
    ):
        trained(found, replace(task, loss=breaks))
    assert (tmp_path / "run/iter_2.pth").exists()
