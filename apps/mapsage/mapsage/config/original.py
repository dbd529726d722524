"""What MMSegmentation has otherwise: keys of its version 0.x, and defaults that are others here. No pydantic.

A config that leaves out a key whose default there would make another training is told at its launch what counts here; a
file of MMEngine whose config leaves one out was written under the default there, and is compared as such. All keys with
both defaults are in `docs/defaults.md`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

from unbroken.config import value_at

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


THERE: dict[str, Any] = {
    "model.data_preprocessor.mean": None,
    "model.data_preprocessor.std": None,
    "model.data_preprocessor.bgr_to_rgb": False,
    "model.decode_head.norm_cfg": None,
    "param_scheduler.*.by_epoch": True,
    "train_dataloader.dataset.img_suffix": ".jpg",
    "train_dataloader.dataset.datasets.*.img_suffix": ".jpg",
    "val_dataloader.dataset.img_suffix": ".jpg",
    "val_dataloader.dataset.datasets.*.img_suffix": ".jpg",
}


def with_original_defaults(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The config of another program, with its own defaults written out where ours are others."""
    filled = copy.deepcopy(dict(tree))
    for _key, section, name, there in _left_out(filled):
        section[name] = there
    return filled


def words_on_defaults(tree: Mapping[str, Any], canonical: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence on what a config leaves out and MMSegmentation would take otherwise; none where nothing is."""
    found = [(key, value_at(canonical, key), there) for key, _, _, there in _left_out(copy.deepcopy(dict(tree)))]
    listed = [f"{key} = {here!r} (there {there!r})" for key, here, there in found]
    said = f"left out of the config, with another default than in MMSegmentation: {', '.join(listed)}"
    return (said,) if found else ()


def _left_out(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str, Any]]:
    """Each such key that is not there, the section it belongs into, its name in it and the default there."""
    for pattern, there in THERE.items():
        *above, name = pattern.split(".")
        for key, section in _sections(tree, above, ""):
            of_theirs = name != "img_suffix" or section.get("type") == "BaseSegDataset"
            if name not in section and of_theirs:
                yield f"{key}.{name}", section, name, there


def _sections(here: Any, parts: list[str], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not parts:
        if isinstance(here, dict):
            yield key, here
    elif parts[0] == "*":
        for place, item in enumerate(here if isinstance(here, list | tuple) else [here]):
            yield from _sections(item, parts[1:], f"{key}.{place}")
    elif isinstance(here, dict):
        if parts == ["data_preprocessor"]:
            here.setdefault("data_preprocessor", {})
        if parts[0] in here:
            yield from _sections(here[parts[0]], parts[1:], f"{key}.{parts[0]}" if key else parts[0])
