"""A small MapSage job with everything random in it switched on, for twin tests."""

from __future__ import annotations

from pathlib import Path

from mapsage.samples import write_sample_data

STEPS, TILES = 36, 14

CONFIG = """
_heads = [1, 2, 4, 8]
_crop = (48, 48)
_data = dict(type="EarthVQADataset", data_root={data!r})
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", size=_crop),
    backbone=dict(type="MixVisionTransformer", embed_dims=4, num_layers=[1, 1, 1, 1], num_heads=_heads,
                  drop_rate=0.1, attn_drop_rate=0.1, drop_path_rate=0.2),
    decode_head=dict(type="SegformerHead", in_channels=[4 * h for h in _heads], channels=8, num_classes=8,
                     dropout_ratio=0.1),
    test_cfg=dict(mode="slide", crop_size=_crop, stride=(32, 32)),
)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(
    **_data, data_prefix=dict(img_path="Train/images_png", seg_map_path="Train/masks_png"),
    pipeline=[
        dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"),
        dict(type="RandomResize", scale=(64, 64), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=_crop, cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5), dict(type="PhotoMetricDistortion"), dict(type="PackSegInputs"),
    ]))
val_dataloader = dict(num_workers=0, dataset=dict(
    **_data, data_prefix=dict(img_path="Val/images_png", seg_map_path="Val/masks_png"),
    pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]))
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="IoUMetric")
optim_wrapper = dict(type={wrapper!r}, optimizer=dict(type="AdamW", lr=2e-3), clip_grad=dict(max_norm=1.0),
                     accumulative_counts=2)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-3, begin=0, end=8, by_epoch=False),
    dict(type="PolyLR", begin=8, end={steps} + 4, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters={steps}, val_interval=9)
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=4, max_keep_ckpts=3), logger=dict(interval=1))
"""


def write_job(folder: Path, *, wrapper: str = "OptimWrapper", steps: int = STEPS, val: int = 2) -> Path:
    """Data and config of a small job; returns the config's path."""
    data = folder / "data"
    write_sample_data(data, train=TILES, val=val, size_px=64, val_size_px=64, seed=3)
    config = folder / "small.py"
    config.write_text(CONFIG.format(data=str(data), wrapper=wrapper, steps=steps), "utf-8")
    return config
