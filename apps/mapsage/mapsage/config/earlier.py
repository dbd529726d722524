"""Keys that MMSegmentation 0.x knew, or that only its code can carry out: what says the same here."""

from __future__ import annotations

from typing import Final

LEAVE_OUT: Final = "Leave it out: nothing here depends on it."
OF_RUNS: Final = {
    "resume_from": "It is two keys now: load_from = 'FILE' and resume = True. Or leave both out: the same command goes "
    "on with its run by itself, and --ckpt FILE goes on from one file.",
    "auto_resume": "Leave it out: the same command goes on with its run by itself.",
    "runner": "It is train_cfg now: train_cfg = dict(type='IterBasedTrainLoop', max_iters=N, val_interval=M).",
    "total_iters": "It is train_cfg.max_iters now.",
    "max_iters": "It is train_cfg.max_iters now.",
    "total_epochs": "Lengths are in iterations here: train_cfg = dict(max_iters=EPOCHS * PICTURES // BATCH_SIZE, ...).",
    "max_epochs": "Lengths are in iterations here: train_cfg = dict(max_iters=EPOCHS * PICTURES // BATCH_SIZE, ...).",
    "lr_config": "It is param_scheduler now: param_scheduler = [dict(type='PolyLR', power=1.0, begin=0, end=N, "
    "by_epoch=False)].",
    "optimizer_config": "It is optim_wrapper now: optim_wrapper = dict(clip_grad=dict(max_norm=1.0), "
    "optimizer=dict(...)).",
    "checkpoint_config": "It is default_hooks.checkpoint now: "
    "default_hooks = dict(checkpoint=dict(type='CheckpointHook', interval=N)).",
    "log_config": "It is default_hooks.logger now: default_hooks = dict(logger=dict(type='LoggerHook', interval=N)).",
    "evaluation": "It is val_evaluator = dict(type='IoUMetric'), val_cfg = dict(type='ValLoop') and "
    "train_cfg.val_interval now; the best weights are default_hooks.checkpoint.save_best = 'mIoU'.",
    "fp16": "It is optim_wrapper.type = 'AmpOptimWrapper' now, or --amp.",
    "seed": "It is randomness = dict(seed=N) now, or --seed N.",
    "deterministic": "It is randomness = dict(deterministic=True) now, or --deterministic.",
    "samples_per_gpu": "It is train_dataloader.batch_size now.",
    "workers_per_gpu": "It is train_dataloader.num_workers now.",
    "custom_hooks": "Leave it out: hooks are code, and a config's code is not run. What hooks usually do is a key or "
    "an option here: saving and the best weights (default_hooks.checkpoint), logging (default_hooks.logger), time "
    "limits (--session), memory (--on-oom), losses that are not finite (--on-nan). Averaged weights (EMAHook) and "
    "stopping early are not built.",
    "auto_scale_lr": "Leave it out, and set optim_wrapper.optimizer.lr to what it would be.",
    "workflow": LEAVE_OUT,
    "dist_params": LEAVE_OUT,
    "cudnn_benchmark": LEAVE_OUT,
    "find_unused_parameters": LEAVE_OUT,
    "model_wrapper_cfg": LEAVE_OUT,
    "gpu_ids": "Leave it out: --device cuda:1 says where to compute.",
    "device": "Leave it out: --device cuda:1 says where to compute.",
    "resume_optimizer": LEAVE_OUT,
}
