"""A small SegFormer on the made-up tiles of `unbroken data aerial`: minutes on a CPU.

小型 SegFormer，使用 `unbroken data aerial` 生成的样例数据；在 CPU 上几分钟即可完成。
"""

_base_ = ["./_base_/segformer_mit.py", "./_base_/earthvqa.py"]

_heads = [1, 2, 4, 8]
_embed = 16
_iterations = 400
_warm_up = 30
_every = 80

model = dict(
    data_preprocessor=dict(size=(64, 64)),
    backbone=dict(embed_dims=_embed, num_layers=[1, 1, 1, 1], num_heads=_heads, drop_path_rate=0.0),
    decode_head=dict(in_channels=[_embed * h for h in _heads], channels=64, dropout_ratio=0.0),
    test_cfg=dict(mode="slide", crop_size=(128, 128), stride=(96, 96)),
)
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        data_root="data/aerial",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            dict(type="RandomResize", scale=(128, 128), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type="RandomCrop", crop_size=(64, 64), cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
            dict(type="PackSegInputs"),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root="data/aerial",
        # At its own size, larger than the window: sliding really slides. 按原尺寸验证，窗口真正滑动
        pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")],
    )
)

optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, betas=(0.9, 0.999), weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, begin=0, end=_warm_up, by_epoch=False),
    dict(type="PolyLR", power=1.0, eta_min=0.0, begin=_warm_up, end=_iterations, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=_iterations, val_interval=_every)
default_hooks = dict(
    checkpoint=dict(type="CheckpointHook", interval=_every, save_best="mIoU"),
    logger=dict(type="LoggerHook", interval=10),
)
randomness = dict(seed=0)
