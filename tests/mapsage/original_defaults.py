"""The defaults of MMEngine 0.10.7, MMSegmentation 1.2.2, mmcv 2.1.0 and PyTorch, by the sections of our schema.

Values are Python text; `required` has no default, `-` is a key that the original does not have. `SOURCES` says in which
file which classes have them, the nearest first.
"""

from __future__ import annotations

import ast
from pathlib import Path

SOURCES: dict[str, tuple[tuple[str, str], ...]] = {
    "SegDataPreProcessor": (("mmseg/models/data_preprocessor.py", "SegDataPreProcessor"),),
    "Pretrained": (("mmengine/model/weight_init.py", "PretrainedInit"),),
    "MixVisionTransformer": (("mmseg/models/backbones/mit.py", "MixVisionTransformer"),),
    "CrossEntropyLoss": (("mmseg/models/losses/cross_entropy_loss.py", "CrossEntropyLoss"),),
    "DiceLoss": (("mmseg/models/losses/dice_loss.py", "DiceLoss"),),
    "LovaszLoss": (("mmseg/models/losses/lovasz_loss.py", "LovaszLoss"),),
    "SegformerHead": (
        ("mmseg/models/decode_heads/segformer_head.py", "SegformerHead"),
        ("mmseg/models/decode_heads/decode_head.py", "BaseDecodeHead"),
    ),
    "Segmentor": (("mmseg/models/segmentors/encoder_decoder.py", "EncoderDecoder"),),
    "SegDataset": (("mmseg/datasets/basesegdataset.py", "BaseSegDataset"),),
    "LoadImageFromFile": (("mmcv/transforms/loading.py", "LoadImageFromFile"),),
    "LoadAnnotations": (("mmseg/datasets/transforms/loading.py", "LoadAnnotations"),),
    "Resize": (("mmcv/transforms/processing.py", "Resize"),),
    "RandomResize": (("mmcv/transforms/processing.py", "RandomResize"),),
    "RandomCrop": (("mmseg/datasets/transforms/transforms.py", "RandomCrop"),),
    "RandomFlip": (("mmcv/transforms/processing.py", "RandomFlip"),),
    "PhotoMetricDistortion": (("mmseg/datasets/transforms/transforms.py", "PhotoMetricDistortion"),),
    "Sampler": (("mmengine/dataset/sampler.py", "InfiniteSampler"),),
    "InOrder": (("mmengine/dataset/sampler.py", "DefaultSampler"),),
    "OptimWrapper": (
        ("mmengine/optim/optimizer/optimizer_wrapper.py", "OptimWrapper"),
        ("mmengine/optim/optimizer/amp_optimizer_wrapper.py", "AmpOptimWrapper"),
    ),
    "LinearLR": (("mmengine/optim/scheduler/param_scheduler.py", "LinearParamScheduler"),),
    "PolyLR": (("mmengine/optim/scheduler/param_scheduler.py", "PolyParamScheduler"),),
    "TrainLoop": (("mmengine/runner/loops.py", "IterBasedTrainLoop"),),
    "EvalLoop": (("mmengine/runner/loops.py", "ValLoop"),),
    "IoUMetric": (("mmseg/evaluation/metrics/iou_metric.py", "IoUMetric"),),
    "CheckpointHook": (("mmengine/hooks/checkpoint_hook.py", "CheckpointHook"),),
    "LoggerHook": (("mmengine/hooks/logger_hook.py", "LoggerHook"),),
    "LogProcessor": (("mmengine/runner/log_processor.py", "LogProcessor"),),
    "Randomness": (("mmengine/runner/runner.py", "Runner.set_randomness"),),
}

THERE: dict[str, dict[str, str]] = {
    "MapSageConfig": {
        "val_dataloader": "None",
        "test_dataloader": "None",
        "param_scheduler": "None",
        "val_cfg": "None",
        "test_cfg": "None",
        "val_evaluator": "None",
        "test_evaluator": "None",
        "gradient_checkpointing": "-",
        "load_from": "None",
        "resume": "False",
        "work_dir": "required",
        "log_level": "'INFO'",
    },
    "Segmentor": {
        "type": "required",
        "data_preprocessor": "None",
        "backbone": "required",
        "decode_head": "required",
        "test_cfg": "None",
        "gradient_checkpointing": "-",
        "train_cfg": "None",
        "pretrained": "None",
        "auxiliary_head": "None",
        "neck": "None",
    },
    "SegDataPreProcessor": {
        "type": "required",
        "mean": "None",
        "std": "None",
        "bgr_to_rgb": "False",
        "pad_val": "0",
        "seg_pad_val": "255",
        "size": "None",
    },
    "MixVisionTransformer": {
        "type": "required",
        "in_channels": "3",
        "embed_dims": "64",
        "num_stages": "4",
        "num_layers": "[3, 4, 6, 3]",
        "num_heads": "[1, 2, 4, 8]",
        "patch_sizes": "[7, 3, 3, 3]",
        "strides": "[4, 2, 2, 2]",
        "sr_ratios": "[8, 4, 2, 1]",
        "out_indices": "(0, 1, 2, 3)",
        "mlp_ratio": "4",
        "qkv_bias": "True",
        "drop_rate": "0.0",
        "attn_drop_rate": "0.0",
        "drop_path_rate": "0.0",
        "init_cfg": "None",
        "with_cp": "False",
        "pretrained": "None",
    },
    "Pretrained": {
        "type": "required",
        "checkpoint": "required",
        "prefix": "None",
    },
    "SegformerHead": {
        "type": "required",
        "in_channels": "required",
        "in_index": "-1",
        "channels": "required",
        "num_classes": "required",
        "dropout_ratio": "0.1",
        "norm_cfg": "None",
        "align_corners": "False",
        "ignore_index": "255",
        "loss_decode": "dict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)",
    },
    "HeadNorm": {
        "type": "required",
        "requires_grad": "True",
    },
    "CrossEntropyLoss": {
        "type": "required",
        "use_sigmoid": "False",
        "loss_weight": "1.0",
        "avg_non_ignore": "False",
        "class_weight": "None",
        "loss_name": "'loss_ce'",
    },
    "DiceLoss": {
        "type": "required",
        "use_sigmoid": "True",
        "naive_dice": "False",
        "eps": "0.001",
        "loss_weight": "1.0",
        "loss_name": "'loss_dice'",
    },
    "LovaszLoss": {
        "type": "required",
        "loss_type": "'multi_class'",
        "classes": "'present'",
        "per_image": "False",
        "reduction": "'mean'",
        "loss_weight": "1.0",
        "loss_name": "'loss_lovasz'",
    },
    "Inference": {
        "mode": "'whole'",
        "crop_size": "None",
        "stride": "None",
    },
    "DataLoader": {
        "batch_size": "1",
        "num_workers": "0",
        "persistent_workers": "False",
        "pin_memory": "False",
        "prefetch_factor": "None",
        "sampler": "required",
        "dataset": "required",
    },
    "Sampler": {
        "type": "required",
        "shuffle": "True",
    },
    "SegDataset": {
        "type": "required",
        "data_root": "None",
        "data_prefix": "dict(img_path='', seg_map_path='')",
        "img_suffix": "'.jpg'",
        "seg_map_suffix": "'.png'",
        "reduce_zero_label": "False",
        "metainfo": "None",
        "pipeline": "[]",
    },
    "DataPrefix": {
        "img_path": "''",
        "seg_map_path": "''",
    },
    "MetaInfo": {
        "classes": "None",
        "palette": "None",
    },
    "LoadImageFromFile": {
        "type": "required",
        "to_float32": "False",
        "color_type": "'color'",
        "imdecode_backend": "'cv2'",
        "backend_args": "None",
    },
    "LoadAnnotations": {
        "type": "required",
        "imdecode_backend": "'pillow'",
        "backend_args": "None",
    },
    "Resize": {
        "type": "required",
        "scale": "None",
        "keep_ratio": "False",
    },
    "RandomResize": {
        "type": "required",
        "scale": "required",
        "ratio_range": "None",
        "keep_ratio": "False",
        "resize_type": "'Resize'",
    },
    "RandomCrop": {
        "type": "required",
        "crop_size": "required",
        "cat_max_ratio": "1.0",
    },
    "RandomFlip": {
        "type": "required",
        "prob": "None",
        "direction": "'horizontal'",
    },
    "PhotoMetricDistortion": {
        "type": "required",
        "brightness_delta": "32",
        "contrast_range": "(0.5, 1.5)",
        "saturation_range": "(0.5, 1.5)",
        "hue_delta": "18",
    },
    "PackSegInputs": {
        "type": "required",
    },
    "ConcatDataset": {
        "type": "required",
        "datasets": "required",
    },
    "EvalDataLoader": {
        "batch_size": "1",
        "num_workers": "0",
        "persistent_workers": "False",
        "pin_memory": "False",
        "prefetch_factor": "None",
        "sampler": "required",
        "dataset": "required",
    },
    "InOrder": {
        "type": "required",
        "shuffle": "True",
    },
    "OptimWrapper": {
        "type": "'OptimWrapper'",
        "optimizer": "required",
        "clip_grad": "None",
        "accumulative_counts": "1",
        "paramwise_cfg": "None",
        "loss_scale": "'dynamic'",
        "dtype": "None",
    },
    "AdamW": {
        "type": "required",
        "lr": "0.001",
        "betas": "(0.9, 0.999)",
        "weight_decay": "0.01",
        "eps": "1e-08",
    },
    "ClipGrad": {
        "max_norm": "required",
        "norm_type": "2.0",
    },
    "ParamwiseCfg": {
        "custom_keys": "{}",
        "norm_decay_mult": "None",
        "bias_lr_mult": "None",
        "bias_decay_mult": "None",
        "dwconv_decay_mult": "None",
    },
    "Multipliers": {
        "lr_mult": "1.0",
        "decay_mult": "1.0",
    },
    "LinearLR": {
        "type": "required",
        "start_factor": "1.0 / 3",
        "end_factor": "1.0",
        "begin": "0",
        "end": "INF",
        "by_epoch": "True",
    },
    "PolyLR": {
        "type": "required",
        "power": "1.0",
        "eta_min": "0",
        "begin": "0",
        "end": "INF",
        "by_epoch": "True",
    },
    "TrainLoop": {
        "type": "required",
        "max_iters": "required",
        "val_interval": "1000",
        "val_begin": "1",
    },
    "EvalLoop": {
        "type": "required",
        "fp16": "False",
    },
    "IoUMetric": {
        "type": "required",
        "iou_metrics": "['mIoU']",
        "ignore_index": "255",
    },
    "CheckpointHook": {
        "type": "required",
        "interval": "-1",
        "by_epoch": "True",
        "max_keep_ckpts": "-1",
        "save_best": "None",
        "rule": "None",
        "save_last": "True",
    },
    "LoggerHook": {
        "type": "required",
        "interval": "10",
        "log_metric_by_epoch": "True",
    },
    "Randomness": {
        "seed": "None",
        "deterministic": "False",
        "diff_rank_seed": "False",
    },
    "LogProcessor": {
        "type": "required",
        "window_size": "10",
        "by_epoch": "True",
        "num_digits": "4",
    },
}


def read_signatures(packages: Path, section: str) -> dict[str, str]:
    """The arguments of the original's classes with their defaults, read from its source; nothing is imported."""
    found: dict[str, str] = {}
    for file, name in reversed(SOURCES[section]):
        owner, _, method = name.partition(".")
        found |= _arguments((packages / file).read_text("utf-8"), owner, method or "__init__")
    return found


def _arguments(source: str, owner: str, method: str) -> dict[str, str]:
    classes = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef) and node.name == owner)
    function = next(f for node in classes for f in node.body if isinstance(f, ast.FunctionDef) and f.name == method)
    given = function.args
    positional = given.args[1:]
    defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(given.kwonlyargs, given.kw_defaults, strict=True)]
    return {argument.arg: "required" if value is None else ast.unparse(value) for argument, value in pairs}
