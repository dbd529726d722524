"""What a config becomes: network, loss, optimizer, evaluation, wired as the config says."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nano_job import Listener, built, evaluated, job, scalars, session, steps_printed, write_nano_job
from PIL import Image

from mapsage.samples import write_sample_data
from unbroken import Job
from unbroken.errors import DamagedFile, UnbrokenError, UsageError
from unbroken.train import Every, Exit, Progress, Task, fit, read_checkpoint
from unbroken.train.arguments import SessionOptions
from unbroken.train.start import launch

PLAIN = "train_dataloader.batch_size=2"  # an option that changes nothing


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def with_options(config: Path, *options: str, tag: str = "run") -> Job:
    return job(config, "--tag", tag, "--cfg-options", *(options or [PLAIN]))


def losses_of(asked: Job) -> list[float]:
    assert session(asked)[0] == 0
    return [line["loss"] for line in scalars(asked.directory).values()]


def loss_of(task: Task, samples: list[Any]) -> float:
    return float(task.loss(samples)["loss"].detach())


# -- the three switches of gradient checkpointing ----------------------------------------------------------------------


def test_gradient_checkpointing_changes_no_bit_wherever_it_is_switched_on(tmp_path: Path) -> None:
    config = write_nano_job(tmp_path, steps=3)
    plain = losses_of(with_options(config, tag="plain"))
    switches = ["gradient_checkpointing=True", "model.gradient_checkpointing=True", "model.backbone.with_cp=True"]
    for number, switch in enumerate(switches):
        assert with_options(config, switch).options.own.uses_gradient_checkpointing
        assert losses_of(with_options(config, switch, tag=f"cp{number}")) == plain


# -- accumulation, mixed precision, losses -----------------------------------------------------------------------------


def test_accumulation_takes_the_mean_gradient_of_its_micro_batches(tmp_path: Path) -> None:
    config = write_nano_job(tmp_path, steps=1)
    config.write_text(config.read_text().replace("clip_grad=dict(max_norm=1.0, norm_type=2),", ""))
    still = ["model.backbone.drop_path_rate=0.0", "model.decode_head.dropout_ratio=0.0"]
    asked = with_options(config, "optim_wrapper.accumulative_counts=2", "optim_wrapper.optimizer.lr=1.0", *still)
    task = built(asked)
    assert (task.accumulate, task.batch_size) == (2, 2)
    seen: list[list[Any]] = []
    stepped: list[torch.Tensor] = []
    loss = task.loss

    def remember(samples):  # type: ignore[no-untyped-def]
        seen.append(samples)
        return loss(samples)

    task.optimizer.register_step_pre_hook(
        lambda *_: stepped.extend(p.grad.clone() for p in task.model.parameters() if p.grad is not None)
    )
    with launch(asked, console=Listener()) as run:
        fit(run, replace(task, loss=remember))

    assert [len(samples) for samples in seen] == [2, 2]
    twin = built(asked)
    twin.model.zero_grad()
    twin.model.train()
    separate = []
    for samples in seen:
        twin.model.zero_grad()
        twin.loss(samples)["loss"].backward()
        separate.append([p.grad.clone() for p in twin.model.parameters() if p.grad is not None])
    for found, one, other in zip(stepped, *separate, strict=True):
        torch.testing.assert_close(found, (one + other) / 2, rtol=1e-5, atol=1e-7)
    assert scalars(asked.directory)[1]["loss"] == pytest.approx(
        sum(loss_of(built(asked), samples) for samples in seen) / 2, rel=1e-5
    )


def test_mixed_precision_has_its_scaler_in_the_checkpoint_and_gets_it_back(tmp_path: Path) -> None:
    config = write_nano_job(tmp_path)
    amp = partial(job, config, "--amp", "--cfg-options")
    first = amp("optim_wrapper.loss_scale=256.0", "train_cfg.max_iters=2")
    assert session(first)[0] == 0
    saved = read_checkpoint(first.directory / "iter_2.pth")["unbroken"]
    assert "scaler" in saved["tracked"]
    assert saved["parts"]["scaler"]["scale"] == 256.0
    code, said = session(amp("optim_wrapper.loss_scale=256.0", "train_cfg.max_iters=3"))
    assert code == 0
    assert "resume scaler: <class 'torch.amp.grad_scaler.GradScaler'>" in said
    task = built(amp("optim_wrapper.dtype='bfloat16'", PLAIN))
    with task.gradients.autocast():
        assert torch.ones(2, 2).matmul(torch.ones(2, 2)).dtype is torch.bfloat16


def test_mixed_losses_train_and_are_logged_by_name(tmp_path: Path) -> None:
    config = write_nano_job(tmp_path, steps=2)
    three = (
        "loss_decode=[dict(type='CrossEntropyLoss', loss_weight=1.0), "
        "dict(type='DiceLoss', use_sigmoid=False, loss_weight=0.5), dict(type='LovaszLoss', loss_weight=0.25)], "
    )
    config.write_text(config.read_text().replace("dropout_ratio=0.1,", f"dropout_ratio=0.1, {three}"))
    asked = with_options(config)
    assert session(asked)[0] == 0
    for line in scalars(asked.directory).values():
        parts = [line[f"decode.loss_{name}"] for name in ("ce", "dice", "lovasz")]
        assert all(part > 0 for part in parts)
        assert line["loss"] == pytest.approx(sum(parts), rel=1e-5)


# -- data --------------------------------------------------------------------------------------------------------------

LOVEDA = """
_part = dict(type="LoveDADataset", data_root={root!r}, pipeline=[
    dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="Resize", scale=(64, 64)),
    dict(type="RandomFlip", prob=0.5), dict(type="PackSegInputs")])
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(type="ConcatDataset", datasets=[
    dict(data_prefix=dict(img_path="Train/Rural/images_png", seg_map_path="Train/Rural/masks_png"), **_part),
    dict(data_prefix=dict(img_path="Train/Urban/images_png", seg_map_path="Train/Urban/masks_png"), **_part)]))
val_dataloader = None
val_cfg = None
val_evaluator = None
"""


def rewrite(masks: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in sorted(masks.glob("*.png")):
        with Image.open(path) as picture:
            labels = np.array(picture)
        Image.fromarray(change(labels).astype(np.uint8)).save(path)


def test_loveda_in_two_folders_trains_as_one(tmp_path: Path) -> None:
    for number, part in enumerate(("Rural", "Urban")):
        drawn = tmp_path / f"drawn{number}"
        write_sample_data(drawn, train=3, val=2, size_px=64, val_size_px=64, seed=number)
        rewrite(drawn / "Train" / "masks_png", lambda labels: np.where(labels == 8, 0, labels))
        (tmp_path / "LoveDA" / "Train").mkdir(parents=True, exist_ok=True)
        (drawn / "Train").rename(tmp_path / "LoveDA" / "Train" / part)
    config = write_nano_job(tmp_path, steps=2, more=LOVEDA.format(root=str(tmp_path / "LoveDA")))
    config.write_text(config.read_text().replace("num_classes=8", "num_classes=7"))
    asked = with_options(config)

    task = built(asked)
    assert len(task.dataset) == 6 and task.dataset.classes[-1] == "agricultural"
    assert task.validation is None
    code, said = session(asked)

    assert code == 0 and "6 training tiles" in said
    assert list(steps_printed(said)) == [1, 2]


def test_validation_compares_at_the_size_of_the_mask_whatever_the_picture_was_resized_to(tmp_path: Path) -> None:
    config = write_nano_job(tmp_path, steps=1)
    task = built(with_options(config))
    assert task.validation is not None
    metrics = task.validation.evaluate(Progress(), lambda: None)
    assert metrics.keys() == {"aAcc", "mIoU", "mAcc"} and 0 <= metrics["aAcc"] <= 100
    config.write_text(config.read_text().replace('"Resize", scale=(96, 96)', '"Resize", scale=(32, 32)'))
    small = built(with_options(config)).validation
    assert small is not None and small.evaluate(Progress(), lambda: None).keys() == metrics.keys()


def nothing_trained(asked: Job) -> bool:
    """No more than the lock, which was taken before anything was looked at, is in the run's folder."""
    found = {path.name for path in asked.directory.rglob("*") if path.is_file()}
    return found <= {"lock", "holder.json"}


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("train_dataloader.dataset.data_root='nowhere'", "nowhere/Train/images_png: this folder does not exist"),
        ("train_dataloader.dataset.data_prefix.img_path='Train/images_pgn'", "images_png"),
        ("val_dataloader.dataset.data_root='nowhere'", "nowhere/Val/images_png: this folder does not exist"),
        ("train_dataloader.dataset.img_suffix='.jpg'", "there are no pictures here"),
        ("train_dataloader.dataset.seg_map_suffix='.tif'", "5 of 5 pictures have no mask"),
    ],
)
def test_data_that_is_not_there_is_an_error_before_anything_is_written(tmp_path: Path, option: str, said: str) -> None:
    asked = with_options(write_nano_job(tmp_path), option)
    with pytest.raises(UsageError) as missing:
        session(asked)
    assert missing.value.exit_code == 2
    assert said in str(missing.value)
    assert ("unbroken data aerial nowhere" in str(missing.value)) == ("nowhere" in option)
    assert nothing_trained(asked)


def test_a_label_that_is_no_class_ends_the_training_with_the_file_and_the_value(tmp_path: Path) -> None:
    config = write_nano_job(tmp_path)
    rewrite(tmp_path / "data" / "Train" / "masks_png", lambda labels: np.where(labels == 1, 42, labels))
    asked = with_options(config)
    with pytest.raises(UnbrokenError) as wrong:
        session(asked)
    assert wrong.value.exit_code in (2, 12)
    assert "masks_png/tile_" in str(wrong.value) and "42" in str(wrong.value)
    assert nothing_trained(asked)


def test_a_picture_that_is_torn_ends_the_training_with_its_name(tmp_path: Path) -> None:
    config = write_nano_job(tmp_path)
    for picture in (tmp_path / "data" / "Train" / "images_png").glob("*.png"):
        picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises((DamagedFile, UsageError)) as torn:
        session(with_options(config))
    assert "images_png/tile_" in str(torn.value)


# -- stopping inside a validation --------------------------------------------------------------------------------------


def test_a_stop_is_heard_between_the_tiles_of_a_validation_which_is_done_first_thing_in_the_next_session(
    tmp_path: Path,
) -> None:
    config = write_nano_job(tmp_path, steps=12)
    asked = with_options(config)
    task, polled = built(asked), []
    validation = task.validation
    assert validation is not None

    def interrupted(progress: Progress, poll: Callable[[], None]):  # type: ignore[no-untyped-def]
        def asked_to_stop() -> None:
            polled.append(1)
            signal.raise_signal(signal.SIGTERM)
            poll()

        return validation.evaluate(progress, asked_to_stop)

    listener = Listener()
    with (
        pytest.raises(Exit) as stopped,
        launch(asked, console=listener, options=SessionOptions(every=Every(steps=10), log_every=1)) as run,
    ):
        fit(run, replace(task, validation=replace(validation, evaluate=interrupted)))
    assert stopped.value.code == 75
    assert len(polled) == 1, "the second tile was not begun"
    assert "stopped by SIGTERM after step 10: everything is saved" in listener.text
    assert evaluated(asked.directory) == []

    code, said = session(asked)

    assert code == 0
    assert said.index("Iter(val)") < said.index("Iter(train) [11/12]")
    assert evaluated(asked.directory) == [10, 12]
