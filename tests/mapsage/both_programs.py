"""One config for MMEngine and for MapSage, and one tile, so that both see the same batches whatever their order."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.processes import environment

from mapsage.samples import write_sample_data

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-mmengine/bin/python"
# `make test` makes that environment. On CI a test that needs it fails without it, elsewhere it is left out. One whose
# packages did not all arrive has a Python, and is not ready.
needs_mmengine = pytest.mark.skipif(
    not (ROOT / ".venv-mmengine/ready").exists() and not os.environ.get("CI"),
    reason="no real MMEngine: make .venv-mmengine/ready",
)
# It only ends a program that hangs: ten short trainings take 20 s alone, and minutes on a machine that is shared.
MMENGINE_TIMEOUT_S = 900

# SegFormer's usual recipe: norms and positions do not decay, the head learns ten times as fast.
PARAMWISE = {"pos_block": {"decay_mult": 0.0}, "norm": {"decay_mult": 0.0}, "head": {"lr_mult": 10.0}}
CONFIG = """
default_scope = "mmseg"
_crop = (64, 64)
_read = [dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]
_data = dict(type="BaseSegDataset", data_root={data!r}, img_suffix=".png", seg_map_suffix=".png", pipeline=_read,
             reduce_zero_label=True, metainfo=dict(classes=("background", "building", "road", "water", "barren",
                                                            "forest", "agriculture", "playground")))
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", size=_crop, mean=[123.675, 116.28, 103.53],
                           std=[58.395, 57.12, 57.375], bgr_to_rgb=True, pad_val=0, seg_pad_val=255),
    backbone=dict(type="MixVisionTransformer", in_channels=3, embed_dims=4, num_stages=4, num_layers=[1, 1, 1, 1],
                  num_heads=[1, 2, 4, 8], patch_sizes=[7, 3, 3, 3], sr_ratios=[8, 4, 2, 1], out_indices=(0, 1, 2, 3),
                  mlp_ratio=4, qkv_bias=True, drop_rate=0.0, attn_drop_rate=0.0, drop_path_rate=0.0),
    decode_head=dict(type="SegformerHead", in_channels=[4, 8, 16, 32], in_index=[0, 1, 2, 3], channels=8,
                     num_classes=8, dropout_ratio=0.0, norm_cfg=dict(type="BN", requires_grad=True),
                     align_corners=False, loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False)),
    train_cfg=dict(), test_cfg=dict(mode="whole"))
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type="InfiniteSampler", shuffle=True), dataset=dict(
    **_data, data_prefix=dict(img_path="Train/images_png", seg_map_path="Train/masks_png")))
optim_wrapper = dict(type="OptimWrapper", clip_grad=dict(max_norm=1.0, norm_type=2), accumulative_counts={accumulate},
                     optimizer=dict(type="AdamW", lr=0.001, betas=(0.9, 0.999), weight_decay=0.01){paramwise})
param_scheduler = {schedule}
train_cfg = dict(type="IterBasedTrainLoop", max_iters={steps})
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=4, by_epoch=False),
                     logger=dict(type="LoggerHook", interval=1, log_metric_by_epoch=False))
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
"""
SCHEDULE = """[
    dict(type="LinearLR", start_factor=1e-6, begin=0, end=3, by_epoch=False),
    dict(type="PolyLR", power=1.0, eta_min=0.0, begin=3, end=12, by_epoch=False),
]"""


def write_config(
    folder: Path,
    name: str,
    *,
    paramwise: bool = False,
    steps: int = 8,
    accumulate: int = 1,
    schedule: str = SCHEDULE,
) -> Path:
    """The config; the data it names are `write_tile`'s."""
    rules = f", paramwise_cfg=dict(custom_keys={PARAMWISE})" if paramwise else ""
    text = CONFIG.format(
        data=str(folder / "data"), paramwise=rules, steps=steps, accumulate=accumulate, schedule=schedule
    )
    config = folder / f"{name}.py"
    config.write_text(text, "utf-8")
    return config


def write_tile(folder: Path) -> None:
    """One training tile."""
    write_sample_data(folder / "data", train=2, val=2, size_px=64, val_size_px=64, seed=1)
    for second in (folder / "data/Train").glob("*/*1.png"):
        second.unlink()


def mmengine_trains(*asked: dict[str, Any]) -> str:
    """The real MMEngine does these trainings; its log."""
    program = Path(__file__).with_name("mmengine_program.py")
    words = json.dumps([{key: _plain(value) for key, value in each.items()} for each in asked])
    done = subprocess.run(
        [PYTHON, program, words], env=environment(), capture_output=True, text=True, timeout=MMENGINE_TIMEOUT_S
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout + done.stderr


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The largest difference between two states of the same names."""
    assert one.keys() == other.keys()
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)
