"""SegFormer-B2 on EarthVQA, 40,000 iterations: saved and validated every 4,000.

SegFormer-B2 训练 EarthVQA，共 40000 次迭代；每 4000 次保存并验证一次。
"""

_base_ = ["./_base_/segformer_mit.py", "./_base_/earthvqa.py"]

_iterations = 40000
_warm_up = 1500
_every = 4000

model = dict(
    data_preprocessor=dict(
        # EarthVQA's own mean and standard deviation. EarthVQA 自身的均值与标准差
        mean=[73.53223947628777, 80.01710095339912, 74.59297778068898],
        std=[41.511366098369635, 35.66528876209687, 33.75830885257866],
        size=(512, 512),
    ),
    # Scale and shift of the norm layers stay as they are; their statistics move. 冻结 BN 的缩放与平移，统计量仍更新
    decode_head=dict(norm_cfg=dict(requires_grad=False)),
    test_cfg=dict(mode="slide", crop_size=(1024, 1024), stride=(768, 768)),
)

optim_wrapper = dict(
    type="OptimWrapper",  # AmpOptimWrapper: half precision on a GPU. 混合精度用 AmpOptimWrapper
    optimizer=dict(type="AdamW", lr=2e-5, betas=(0.9, 0.999), weight_decay=0.01),
    clip_grad=dict(max_norm=1.0),
    accumulative_counts=1,
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, begin=0, end=_warm_up, by_epoch=False),
    dict(type="PolyLR", power=1.0, eta_min=0.0, begin=_warm_up, end=_iterations, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters=_iterations, val_interval=_every)
default_hooks = dict(
    checkpoint=dict(type="CheckpointHook", interval=_every, save_best="mIoU"),
    logger=dict(type="LoggerHook", interval=50),
)
randomness = dict(seed=0)
