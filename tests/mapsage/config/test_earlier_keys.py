"""Keys of MMSegmentation 0.x, and those that only its code can carry out: each gets advice, and the advice works."""

from __future__ import annotations

from pathlib import Path

import pytest

from mapsage.config import MapSageConfig
from mapsage.config.original import OF_RUNS
from unbroken.config import ConfigError, read_config, validate

TINY = Path(__file__).resolve().parents[3] / "apps/mapsage/configs/aerial_tiny.py"
# What was written before, a piece of the advice, and what stands there when it was followed.
REPLACED = {
    "resume_from = 'iter_8.pth'": ("load_from = 'FILE' and resume = True", "load_from = 'iter_8.pth'\nresume = True"),
    "runner = dict(type='IterBasedRunner', max_iters=90)": (
        "train_cfg = dict(type='IterBasedTrainLoop'",
        "train_cfg = dict(type='IterBasedTrainLoop', max_iters=90, val_interval=30)",
    ),
    "total_iters = 90": ("train_cfg.max_iters", "train_cfg = dict(max_iters=90)"),
    "total_epochs = 9": ("train_cfg = dict(max_iters=EPOCHS", "train_cfg = dict(max_iters=9 * 96 // 8)"),
    "lr_config = dict(policy='poly', power=1.0)": (
        "param_scheduler = [dict(type='PolyLR'",
        "param_scheduler = [dict(type='PolyLR', power=1.0, begin=0, end=400, by_epoch=False)]",
    ),
    "optimizer_config = dict(grad_clip=dict(max_norm=2.0))": (
        "optim_wrapper = dict(clip_grad=dict(max_norm",
        "optim_wrapper = dict(clip_grad=dict(max_norm=2.0), optimizer=dict(lr=0.1))",
    ),
    "checkpoint_config = dict(by_epoch=False, interval=9)": (
        "default_hooks = dict(checkpoint=dict(type='CheckpointHook'",
        "default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=9))",
    ),
    "log_config = dict(interval=9)": (
        "default_hooks = dict(logger=dict(type='LoggerHook'",
        "default_hooks = dict(logger=dict(type='LoggerHook', interval=9))",
    ),
    "evaluation = dict(interval=9, metric='mIoU')": (
        "val_evaluator = dict(type='IoUMetric')",
        "val_evaluator = dict(type='IoUMetric')\nval_cfg = dict(type='ValLoop')\ntrain_cfg = dict(val_interval=9)\n"
        "default_hooks = dict(checkpoint=dict(save_best='mIoU'))",
    ),
    "fp16 = dict(loss_scale=512.0)": (
        "optim_wrapper.type = 'AmpOptimWrapper'",
        "optim_wrapper = dict(type='AmpOptimWrapper')",
    ),
    "seed = 3": ("randomness = dict(seed=N)", "randomness = dict(seed=3)"),
    "deterministic = True": ("randomness = dict(deterministic=True)", "randomness = dict(deterministic=True)"),
    "samples_per_gpu = 2": ("train_dataloader.batch_size", "train_dataloader = dict(batch_size=2)"),
    "workers_per_gpu = 2": ("train_dataloader.num_workers", "train_dataloader = dict(num_workers=2)"),
}
LEFT_OUT = (
    "custom_hooks = [dict(type='EMAHook')]",
    "custom_hooks = []",
    "auto_resume = True",
    "auto_scale_lr = dict(enable=False)",
    "workflow = [('train', 1)]",
    "dist_params = dict(backend='nccl')",
    "cudnn_benchmark = True",
    "find_unused_parameters = True",
    "gpu_ids = [0]",
)


def written(folder: Path, lines: str) -> Path:
    config = folder / "mine.py"
    config.write_text(f"_base_ = {str(TINY)!r}\n{lines}\n", "utf-8")
    return config


@pytest.mark.parametrize("before", REPLACED)
def test_an_old_key_is_answered_with_what_says_the_same(tmp_path: Path, before: str) -> None:
    advice, after = REPLACED[before]
    with pytest.raises(ConfigError, match="is not a known key") as caught:
        validate(MapSageConfig, read_config(written(tmp_path, before)))
    assert advice in str(caught.value) and caught.value.do == OF_RUNS[before.split(" = ")[0]]
    assert caught.value.where.endswith("mine.py:2")
    validate(MapSageConfig, read_config(written(tmp_path, after)))


@pytest.mark.parametrize("line", LEFT_OUT)
def test_what_only_its_code_can_do_is_to_be_left_out(tmp_path: Path, line: str) -> None:
    with pytest.raises(ConfigError, match="Leave it out") as caught:
        validate(MapSageConfig, read_config(written(tmp_path, line)))
    assert "Did you mean" not in str(caught.value)


def test_every_advice_is_about_a_key_that_is_not_known() -> None:
    assert not OF_RUNS.keys() & MapSageConfig.model_fields.keys()


def test_a_key_that_nobody_knows_gets_the_nearest_as_before(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean `load_from`"):
        validate(MapSageConfig, read_config(written(tmp_path, "load_form = 'x.pth'")))
