"""A config of our own for the nano network that the real MMEngine trained, on tiles of our own."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mapsage.recipes import read
from mapsage.samples import write_sample_data
from unbroken import Job
from unbroken.launch import Environment
from unbroken.train import Exit, Task, run_job
from unbroken.train.record.console import StepReport, step_line

STEPS = 20

CONFIG = """
_data = dict(type="EarthVQADataset", data_root={data!r})
_heads = [1, 2, 4, 8]
_crop = (64, 64)
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", size=_crop),
    backbone=dict(type="MixVisionTransformer", embed_dims=4, num_layers=[1, 1, 1, 1], num_heads=_heads,
                  drop_path_rate=0.1),
    decode_head=dict(type="SegformerHead", in_channels=[4 * h for h in _heads], channels=8, num_classes=8,
                     dropout_ratio=0.1, norm_cfg=dict(type="BN", requires_grad=True)),
    test_cfg=dict(mode="slide", crop_size=_crop, stride=(48, 48)),
)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(
    **_data, data_prefix=dict(img_path="Train/images_png", seg_map_path="Train/masks_png"),
    pipeline=[
        dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"),
        dict(type="RandomResize", scale=(96, 96), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=_crop, cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5), dict(type="PhotoMetricDistortion"), dict(type="PackSegInputs"),
    ]))
val_dataloader = dict(num_workers=0, dataset=dict(
    **_data, data_prefix=dict(img_path="Val/images_png", seg_map_path="Val/masks_png"),
    pipeline=[dict(type="LoadImageFromFile"), dict(type="Resize", scale=(96, 96), keep_ratio=True),
              dict(type="LoadAnnotations"), dict(type="PackSegInputs")]))
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="IoUMetric")
optim_wrapper = dict(type="OptimWrapper", clip_grad=dict(max_norm=1.0, norm_type=2),
                     optimizer=dict(type="AdamW", lr=0.001, betas=(0.9, 0.999), weight_decay=0.01))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, begin=0, end=5, by_epoch=False),
    dict(type="PolyLR", power=1.0, eta_min=0.0, begin=5, end={end}, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters={steps}, val_interval=10)
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=10), logger=dict(interval=1))
randomness = dict(seed=0)
{more}
"""


def write_nano_job(
    folder: Path, *, name: str = "nano.py", steps: int = STEPS, end: int = STEPS, more: str = ""
) -> Path:
    """Tiles and the config; `more` are further lines of it. Returns the config's path."""
    data = folder / "data"
    write_sample_data(data, train=5, val=2, size_px=64, val_size_px=64, seed=1)
    config = folder / name
    config.write_text(CONFIG.format(data=str(data), steps=steps, end=end, more=more), "utf-8")
    return config


def steps_printed(output: str) -> dict[int, str]:
    """Each logged training step with its learning rate, as printed."""
    found = re.findall(r"Iter\(train\) \[ *(\d+)/\d+\]  lr: (\S+)", output)
    return {int(step): rate for step, rate in found}


def job(config: Path, *options: object) -> Job:
    """What the command line would make of a config and options."""
    arguments = [str(config), *map(str, options)]
    return read(arguments, Environment(command=f"unbroken train mapsage {' '.join(arguments)}"))


@dataclass
class Listener:
    """A console that keeps what is said, and sends this process a real SIGTERM after a step or a line."""

    stop_at: int | str | None = None
    lines: list[str] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)
        if isinstance(self.stop_at, str) and self.stop_at in line:
            signal.raise_signal(signal.SIGTERM)

    def step(self, report: StepReport, line: str) -> None:
        self.lines.append(step_line(report))
        if report.step == self.stop_at:
            signal.raise_signal(signal.SIGTERM)

    def close(self) -> None:
        pass

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def session(asked: Job, *, stop_at: int | str | None = None) -> tuple[int, str]:
    """One session in this process: its exit code and what it said. Errors and refusals are raised."""
    listener = Listener(stop_at)
    torch.set_num_threads(1)
    try:
        run_job(asked, listener)
    except Exit as ending:
        return int(str(ending.code)), listener.text
    return 0, listener.text


def built(asked: Job) -> Task:
    from mapsage.task import build

    torch.set_num_threads(1)
    torch.manual_seed(asked.seed)
    return build(asked, lambda _line: None)


def scalars(run: Path) -> dict[int, dict[str, Any]]:
    """The last line of every step in the run's scalars.json, as the guide's `tail -f` shows it."""
    lines = [json.loads(line) for line in (run / "vis_data" / "scalars.json").read_text().splitlines()]
    return {line["step"]: line for line in lines if "loss" in line}


def evaluated(run: Path) -> list[int]:
    """The steps of all evaluations, in the order in which they were made."""
    lines = [json.loads(line) for line in (run / "vis_data" / "scalars.json").read_text().splitlines()]
    return [line["step"] for line in lines if "mIoU" in line]
