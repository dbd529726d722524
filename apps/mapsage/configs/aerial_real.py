"""A small SegFormer on real 512 px tiles in EarthVQA's layout: from scratch in minutes on a CPU, dropout on.

小型 SegFormer，使用 EarthVQA 目录结构的真实 512 像素影像；从零开始，CPU 上几分钟，启用 dropout。
"""

_base_ = "./aerial_tiny.py"

_iterations = 800
_warm_up = 60
_every = 160

model = dict(
    data_preprocessor=dict(size=(128, 128)),
    backbone=dict(num_layers=[2, 2, 2, 2], drop_path_rate=0.1),
    decode_head=dict(dropout_ratio=0.1),
    test_cfg=dict(crop_size=(256, 256), stride=(192, 192)),
)
train_dataloader = dict(
    dataset=dict(
        data_root="data/aerial_mini",
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="LoadAnnotations"),
            # Half the size on average sees streets whole. 平均缩小一半，窗口能看到完整街区
            dict(type="RandomResize", scale=(256, 256), ratio_range=(0.5, 2.0), keep_ratio=True),
            dict(type="RandomCrop", crop_size=(128, 128), cat_max_ratio=0.75),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PhotoMetricDistortion"),
            dict(type="PackSegInputs"),
        ],
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root="data/aerial_mini",
        # Predicted at half size, compared with the mask's own pixels. 以一半尺寸预测，按掩码原始像素评估
        pipeline=[
            dict(type="LoadImageFromFile"),
            dict(type="Resize", scale=(256, 256), keep_ratio=True),
            dict(type="LoadAnnotations"),
            dict(type="PackSegInputs"),
        ],
    )
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, begin=0, end=_warm_up, by_epoch=False),
    dict(type="PolyLR", power=1.0, eta_min=0.0, begin=_warm_up, end=_iterations, by_epoch=False),
]
train_cfg = dict(max_iters=_iterations, val_interval=_every)
default_hooks = dict(checkpoint=dict(interval=_every))
