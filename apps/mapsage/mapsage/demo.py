"""`unbroken demo aerial`: train on made-up tiles, be killed twice, resume, and compare with a run that was not.

Real processes and real SIGKILLs: what is shown here is what happens to a training on a machine that stops.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mapsage.config import MapSageConfig
from mapsage.samples import write_sample_data
from unbroken import Disk, durable_folder, open_ordinary, write_whole
from unbroken.config import read_config, validate
from unbroken.demo import compare_runs, draw_curves, say_verdict, sessions_of, started, steps_done, train_until, typed

Say = Callable[[str], None]
POLL_S, OFTEN_S = 0.01, 0.0005  # a save lasts milliseconds
THREADS = 1  # beside two loader workers: on two cores, more threads wait for each other far longer than they work
TILES = 4  # that are drawn
WIDTH = 116  # of what a process prints, wrapped between words
AS_PRINTED: dict[str, Any] = {
    "initial_indent": "   | ",
    "subsequent_indent": "   |     ",
    "break_long_words": False,
    "break_on_hyphens": False,
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a story: steps, steps between saves, the step of the first kill, tiles."""

    steps: int = 240
    every: int = 60
    first_kill: int = 95  # in the middle of an epoch, 35 steps after a save
    train: int = 96
    val: int = 24


FULL = Size()

CONFIG = '''"""The job of the demo: a small SegFormer, with dropout, drop path and random augmentation on."""
_heads = [1, 2, 4, 8]
_data = dict(type="EarthVQADataset", data_root={data!r})
model = dict(
    type="EncoderDecoder",
    data_preprocessor=dict(type="SegDataPreProcessor", size=(64, 64)),
    backbone=dict(type="MixVisionTransformer", embed_dims=16, num_layers=[1, 1, 1, 1], num_heads=_heads,
                  drop_path_rate=0.1),
    decode_head=dict(type="SegformerHead", in_channels=[16 * h for h in _heads], channels=64, num_classes=8,
                     dropout_ratio=0.1),
    test_cfg=dict(mode="slide", crop_size=(128, 128), stride=(96, 96)),
)
train_dataloader = dict(batch_size=8, num_workers=2, dataset=dict(
    **_data, data_prefix=dict(img_path="Train/images_png", seg_map_path="Train/masks_png"),
    pipeline=[
        dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"),
        dict(type="RandomResize", scale=(128, 128), ratio_range=(0.5, 2.0), keep_ratio=True),
        dict(type="RandomCrop", crop_size=(64, 64), cat_max_ratio=0.75),
        dict(type="RandomFlip", prob=0.5), dict(type="PhotoMetricDistortion"), dict(type="PackSegInputs"),
    ]))
val_dataloader = dict(num_workers=0, dataset=dict(
    **_data, data_prefix=dict(img_path="Val/images_png", seg_map_path="Val/masks_png"),
    pipeline=[dict(type="LoadImageFromFile"), dict(type="LoadAnnotations"), dict(type="PackSegInputs")]))
val_cfg = dict(type="ValLoop")
val_evaluator = dict(type="IoUMetric")
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="AdamW", lr=2e-3), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, begin=0, end=20, by_epoch=False),
    dict(type="PolyLR", begin=20, end={steps}, by_epoch=False),
]
train_cfg = dict(type="IterBasedTrainLoop", max_iters={steps}, val_interval={every})
default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval={every}), logger=dict(interval=10))
'''


def tell(folder: Path, *, say: Say, size: Size = FULL) -> int:
    """Play the whole story below `folder`; returns 0 when the interrupted run is the twin of the other."""
    began_s = time.monotonic()
    place = (folder / datetime.now().astimezone().strftime("%Y%m%d_%H%M%S")).absolute()
    durable_folder(Disk(), place)
    config = _prepare(folder.absolute(), place, say, size)
    run, twin = place / "interrupted" / "work_dirs" / "demo", place / "uninterrupted" / "work_dirs" / "demo"

    say(f"\n== 2. Train, and kill the process (SIGKILL) after step {size.first_kill}, in the middle of an epoch")
    _session(config, run, say, until=lambda: steps_done(run) >= size.first_kill)
    say("\n== 3. The same command again; this time the kill falls into a save, while the file is being written")
    # Whether it saves comes first: that is the cheap one of two questions that are asked two thousand times a second.
    if not _session(
        config, run, say, until=lambda: _is_saving(run) and steps_done(run) > size.first_kill, poll_s=OFTEN_S
    ):
        say("   (the save was over before the kill arrived: as good a moment as any)")
    say("\n== 4. The same command again, to the end")
    _session(config, run, say)
    say("\n== 5. The same job in one piece, never interrupted: the twin")
    _session(config, twin, say, quiet=True)
    say("\n== 6. Compare")
    good = _verdict(config, run, twin, place, say, size)
    say(f"({time.monotonic() - began_s:.0f} s)")
    return 0 if good else 1


def _prepare(folder: Path, place: Path, say: Say, size: Size) -> Path:
    say("== 1. Make data: procedural tiles in the EarthVQA layout, and a config")
    data = folder / "data"
    say(f"   {write_sample_data(data, train=size.train, val=size.val)['message']}")
    config = place / "demo.py"
    write_whole(Disk(), config, CONFIG.format(data=str(data), steps=size.steps, every=size.every).encode())
    say(f"   config: {config}")
    return config


def _session(
    config: Path,
    run: Path,
    say: Say,
    *,
    until: Callable[[], bool] = lambda: False,
    poll_s: float = POLL_S,
    quiet: bool = False,
) -> bool:
    """Run one training process; kill it when `until` says so. True when it was killed where it was meant to be."""
    words = ["unbroken", "train", "mapsage", str(config), "--work-dir", str(run)]
    say(f"   $ {typed(words, threads=THREADS)}")
    log = run.parent / "output.txt"
    durable_folder(Disk(), run.parent)
    start = log.stat().st_size if log.exists() else 0
    with started(words, log=log, folder=config.parent, threads=THREADS) as process:
        code = train_until(process, until, poll_s=poll_s)
    _show(log, start, say, quiet=quiet)
    if code:
        raise SystemExit(code)
    if code is not None:
        return False
    saving = _is_saving(run)
    say(f"   killed by SIGKILL after step {steps_done(run)}{', inside a save' if saving else ''}")
    return saving


def _show(log: Path, start: int, say: Say, *, quiet: bool) -> None:
    """What the process printed, without its tables and with every second line of progress."""
    with open_ordinary(log) as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    progress = 0
    for line in lines:
        is_progress = line.startswith("Iter(train)")
        progress += is_progress
        table = line.startswith(("+", "|", "per class")) or not line
        if not table and not (is_progress and progress % 3) and not (quiet and is_progress):
            say(textwrap.fill(line, WIDTH, **AS_PRINTED))


def _verdict(config: Path, run: Path, twin: Path, place: Path, say: Say, size: Size) -> bool:
    last = (run / f"iter_{size.steps}.pth", twin / f"iter_{size.steps}.pth")
    good = compare_runs(run, twin, last=last, holds="(weights, optimizer moments), counters, best metric", say=say)
    curves, tiles = place / "curves.png", place / "tiles.png"
    draw_curves(sessions_of(run), sessions_of(twin), curves, scores=("mIoU",), what="validation mIoU (%)")
    _draw_tiles(config, last[0], tiles)
    say(f"   curves, stitched over the sessions: {curves}")
    say(f"   predicted tiles beside the truth:   {tiles}")
    say_verdict(good, say)
    return good


def _is_saving(run: Path) -> bool:
    return run.is_dir() and any(run.glob("*.pth.partial"))


def _draw_tiles(config_path: Path, checkpoint: Path, path: Path) -> None:
    """Validation tiles: picture, truth, prediction, one row each."""
    # Here and not above: torch takes seconds, and the story begins without it.
    import numpy as np
    import torch
    from PIL import Image

    from mapsage.datasets import build_dataset
    from mapsage.evaluation import predict
    from mapsage.picture import png_bytes, side_by_side
    from mapsage.task import build_preprocessor, build_segmentor
    from unbroken.train import evaluating, read_checkpoint

    config = validate(MapSageConfig, read_config(config_path)).value
    model, preprocess = build_segmentor(config), build_preprocessor(config)
    model.load_state_dict(read_checkpoint(checkpoint)["state_dict"])
    loader = config.val_dataloader
    dataset = build_dataset(loader.datasets if loader is not None else ())
    rows = []
    with evaluating(model), torch.inference_mode():
        for index in range(min(TILES, len(dataset))):
            sample = dataset.sample(index, np.random.default_rng(0))
            if sample.label is None:
                continue
            guess = predict(config, model, preprocess, sample)
            image_HW3 = sample.image.permute(1, 2, 0).numpy()[..., ::-1]
            rows.append(side_by_side(image_HW3, sample.label.numpy(), guess.numpy(), class_names=list(dataset.classes)))
    picture = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        picture.paste(row, (0, top))
        top += row.height
    write_whole(Disk(), path, png_bytes(picture))
