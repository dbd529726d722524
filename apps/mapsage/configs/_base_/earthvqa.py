"""EarthVQA: pictures and masks in Train/ and Val/. Masks hold 0 to 8: 0 is no data, so there are eight classes.

EarthVQA 数据集：掩码取值 0 到 8，其中 0 表示无数据，因此共八个类别（reduce_zero_label=True）。
"""

_crop_px = (512, 512)

_train = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=(1024, 1024), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type="RandomCrop", crop_size=_crop_px, cat_max_ratio=0.75),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackSegInputs"),
]
# The mask is loaded after the resize: predictions are compared with its original pixels. 先缩放再读掩码：按原始像素评估
_val = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(1024, 1024), keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]

train_dataloader = dict(
    batch_size=4,  # out of memory: 2, with accumulative_counts=2. 显存不足：改为 2，并把 accumulative_counts 设为 2
    num_workers=2,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    dataset=dict(
        type="EarthVQADataset",
        data_root="/kaggle/input/2024earthvqa/2024EarthVQA",
        data_prefix=dict(img_path="Train/images_png", seg_map_path="Train/masks_png"),
        reduce_zero_label=True,
        pipeline=_train,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="EarthVQADataset",
        data_root="/kaggle/input/2024earthvqa/2024EarthVQA",
        data_prefix=dict(img_path="Val/images_png", seg_map_path="Val/masks_png"),
        reduce_zero_label=True,
        pipeline=_val,
    ),
)
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="IoUMetric", iou_metrics=["mIoU"])
