"""What a sonar job becomes: network, loss, optimizer steps, evaluation, files, wired as config and options say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focalsst.dataset.folder import Batch
from focalsst.task import build
from tests.focalsst.nano_job import BATCH, FRAMES, Listener, events, job, session, steps, write_nano_job
from unbroken import Job
from unbroken.errors import Refused
from unbroken.train import Task, fit
from unbroken.train.start import launch

pytestmark = pytest.mark.usefixtures("in_the_application_s_folder")

PER_EPOCH = -(-FRAMES // BATCH)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("app")
    write_nano_job(folder, pasting=True)
    return folder


def asked(tmp_path: Path, *options: object) -> Job:
    return job("--workers", 0, "--output", tmp_path / "runs", *options)


def built(found: Job) -> Task:
    torch.set_num_threads(1)
    torch.manual_seed(found.seed)
    return build(found, lambda _line: None)


def test_accumulation_takes_the_mean_gradient_of_its_micro_batches_also_of_a_short_last_group(tmp_path: Path) -> None:
    """Five batches of an epoch in groups of two: the last group is one batch, and counts in full."""
    words = ["--set", "OPTIMIZATION.GRAD_ACCUMULATION_STEPS", 2, "OPTIMIZATION.GRAD_NORM_CLIP", 1e9]
    found = asked(tmp_path, "--epochs", 1, *words)
    assert (found.steps_per_epoch, found.total_steps) == (3, 3)
    task = built(found)
    seen: list[list[Batch]] = [[]]
    stepped: list[list[torch.Tensor]] = []
    before: list[dict[str, torch.Tensor]] = []
    loss = task.loss

    def remember(batch: Batch) -> Any:
        if not seen[-1]:
            before.append({name: value.clone() for name, value in task.model.state_dict().items()})
        seen[-1].append(batch)
        return loss(batch)

    def note(*_: object) -> None:
        if not seen[-1]:
            return  # torch calls it again for the step of the class above, once any test has made one of that class
        stepped.append([p.grad.clone() for p in task.model.parameters() if p.grad is not None])
        seen.append([])

    task.optimizer.register_step_pre_hook(note)
    with launch(found, console=Listener()) as run:
        fit(run, replace(task, loss=remember, validation=None))

    assert [[len(batch) for batch in group] for group in seen[:-1]] == [[2, 2], [2, 2], [1]]
    for group, gradients, weights in zip(seen, stepped, before, strict=False):
        twin = built(found)
        twin.model.load_state_dict(weights)
        twin.model.train()
        for batch in group:
            (twin.loss(batch)["loss"] / len(group)).backward()
        separate = [p.grad for p in twin.model.parameters() if p.grad is not None]
        for one, other in zip(gradients, separate, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_every_parameter_is_in_the_optimizer_once(tmp_path: Path) -> None:
    task = built(asked(tmp_path))
    trained = [id(p) for group in task.optimizer.param_groups for p in group["params"]]
    assert sorted(trained) == sorted(id(p) for p in task.model.parameters() if p.requires_grad)


def test_frames_that_augmentation_left_without_points_or_objects_have_a_loss(tmp_path: Path) -> None:
    task = built(asked(tmp_path))
    task.model.train()
    sample = task.dataset.sample(0, np.random.default_rng(0))
    bare = replace(sample, points=sample.points[:0])
    for batch in ([bare, sample], [bare, bare], [replace(sample, boxes=sample.boxes[:0])]):
        assert task.batches.collate is not None
        values = task.loss(task.batches.collate(batch))
        assert torch.isfinite(values["loss"])
        values["loss"].backward()


def test_files_of_a_training_are_those_of_openpcdet_and_open_safely(tmp_path: Path) -> None:
    found = asked(tmp_path, "--save_to_file", "--max_ckpt_save_num", 1)
    assert session(found)[0] == 0
    names = {path.name for path in (found.directory / "ckpt").iterdir()}
    assert names == {"checkpoint_epoch_1.pth", "checkpoint_epoch_2.pth", "best_mAP_epoch_1.pth"}, "two stay in any case"
    for epoch in (1, 2):
        saved = torch.load(found.directory / f"ckpt/checkpoint_epoch_{epoch}.pth", weights_only=True)
        assert (saved["epoch"], saved["it"]) == (epoch, epoch * PER_EPOCH)
        assert len(saved["optimizer_state"]["param_groups"]) == 2
        assert "global_step" in saved["model_state"] or saved["model_state"]
        folder = found.directory / f"eval/eval_with_train/epoch_{epoch}/val"
        assert {"result.npz", "result.json", "final_result"} <= {path.name for path in folder.iterdir()}
    best = torch.load(found.directory / "ckpt/best_mAP_epoch_1.pth", weights_only=True)
    assert {"epoch", "it", "version", "model_state"} <= best.keys() and "optimizer_state" not in best
    assert [path.name for path in found.directory.glob("log_train_*.txt")]


def test_a_line_of_the_log_counts_as_openpcdet_does(tmp_path: Path) -> None:
    code, said = session(asked(tmp_path, "--logger_iter_interval", 2))
    assert code == 0
    assert f"epoch: 1/2, acc_iter=6, cur_iter=1/{PER_EPOCH}, batch_size=2, " in said
    assert "loss_hm=" in said and "loss_loc=" in said and "norm=" in said and "lr=" in said
    assert "Saving checkpoint at 5 iterations: checkpoint_epoch_1.pth" in said


@pytest.mark.parametrize(
    ("words", "epochs"),
    [
        (["--eval_interval", 1], [1, 2, 3]),
        (["--eval_interval", 2], [2, 3]),
        (["--eval_interval", 0], [3]),
        (["--eval_interval", 0, "--num_epochs_to_eval", 1], [2, 3]),
    ],
)
def test_when_it_is_evaluated(tmp_path: Path, words: list[object], epochs: list[int]) -> None:
    found = asked(tmp_path, "--epochs", 3, *words)
    assert session(found)[0] == 0
    assert [event["step"] for event in events(found.directory, "evaluated")] == [epoch * PER_EPOCH for epoch in epochs]


def test_the_last_epoch_has_a_checkpoint_of_its_own_whatever_the_interval(tmp_path: Path) -> None:
    found = asked(tmp_path, "--epochs", 3, "--ckpt_save_interval", 2, "--eval_interval", 0)
    assert session(found)[0] == 0
    names = {path.name for path in (found.directory / "ckpt").glob("checkpoint_*")}
    assert names == {"checkpoint_epoch_2.pth", "checkpoint_epoch_3.pth"}


def test_a_loss_that_is_no_number_ends_the_training_before_its_step(tmp_path: Path) -> None:
    found = asked(tmp_path, "--set", "OPTIMIZATION.LR", 1e30, "OPTIMIZATION.GRAD_NORM_CLIP", 1e30)
    with pytest.raises(
        Refused, match=r"the loss is not a number any more.* Found (nan|inf) on samples .* \(\d+, \d+\)"
    ):
        session(found)
    assert all(np.isfinite(line["loss"]) for line in steps(found.directory))


def test_another_number_of_workers_and_mixed_precision_are_as_asked(tmp_path: Path) -> None:
    task = built(asked(tmp_path, "--fp16"))
    assert task.gradients.scaler is None, "bfloat16 on a CPU needs none"
    with task.gradients.autocast():
        assert torch.ones(2, 2).matmul(torch.ones(2, 2)).dtype is torch.bfloat16
    first, second = asked(tmp_path / "a"), job("--workers", 2, "--output", tmp_path / "b")
    for each in (first, second):
        assert session(each)[0] == 0
    one, two = ([line["loss"] for line in steps(each.directory)] for each in (first, second))
    assert one == two
