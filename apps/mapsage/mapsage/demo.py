"""`unbroken demo aerial`: train on made-up tiles, be killed twice, resume, and compare with a run that was not.

Real processes and real SIGKILLs: what is shown here is what happens to a training on a machine that stops.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mapsage.samples import write_sample_data
from unbroken import Disk, durable_folder, open_ordinary, read_steps, write_whole

Say = Callable[[str], None]
POLL_S, OFTEN_S = 0.01, 0.0005  # a save lasts milliseconds
THREADS = 1  # beside two loader workers: on two cores, more threads wait for each other far longer than they work
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
    _session(config, run, say, until=lambda: _steps_done(run) >= size.first_kill)
    say("\n== 3. The same command again; this time the kill falls into a save, while the file is being written")
    # Whether it saves comes first: that is the cheap one of two questions that are asked two thousand times a second.
    if not _session(
        config, run, say, until=lambda: _is_saving(run) and _steps_done(run) > size.first_kill, poll_s=OFTEN_S
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
    say(f"   $ OMP_NUM_THREADS={THREADS} {shlex.join(words)}")
    log = run.parent / "output.txt"
    durable_folder(Disk(), run.parent)
    with log.open("a") as output:
        start = log.stat().st_size
        command = [sys.executable, "-m", *words]
        inherited = os.environ  # noqa: TID251 - passed on to a child and not looked at
        env = {**inherited, "OMP_NUM_THREADS": str(THREADS)}
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=config.parent, env=env)
        while process.poll() is None and not until():
            time.sleep(poll_s)
        killed = process.poll() is None
        process.kill()
        process.wait()
    _show(log, start, say, quiet=quiet)
    if killed:
        saving = _is_saving(run)
        say(f"   killed by SIGKILL after step {_steps_done(run)}{', inside a save' if saving else ''}")
        return saving
    if process.returncode:
        raise SystemExit(process.returncode)
    return False


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
    from mapsage.demo_pictures import draw_curves, draw_tiles
    from unbroken.train import count_tensors, differences, read_checkpoint

    file = f"iter_{size.steps}.pth"
    one, other = read_checkpoint(run / file), read_checkpoint(twin / file)
    found = differences(one, other)
    same_losses = _losses(run) == _losses(twin)
    say(f"   {run / file}")
    say(f"   {twin / file}")
    say(f"   {count_tensors(one)} tensors (weights, optimizer moments), counters, best metric:")
    say(f"      {f'DIFFERENT, {len(found)} of them' if found else 'identical, to the last bit'}")
    for text in found[:5]:
        say(f"      {text}")
    say(f"   losses of all {size.steps} steps: {'identical' if same_losses else 'DIFFERENT'}")
    curves, tiles = place / "curves.png", place / "tiles.png"
    draw_curves(_sessions(run), _sessions(twin), curves)
    draw_tiles(config, run / file, tiles)
    say(f"   curves, stitched over the sessions: {curves}")
    say(f"   predicted tiles beside the truth:   {tiles}")
    good = not found and same_losses
    say(f"\nVERDICT: the run that was killed twice is {'BIT-IDENTICAL to' if good else 'NOT the same as'} its twin.")
    return good


def _steps_done(run: Path) -> int:
    """The last step that the run's record holds."""
    lines = _records(run)
    return max((int(line["step"]) for line in lines), default=0)


def _is_saving(run: Path) -> bool:
    return run.is_dir() and any(run.glob("*.pth.partial"))


def _losses(run: Path) -> dict[int, float]:
    """The loss of every step, from its last doing."""
    return {line["step"]: line["loss"] for line in _records(run) if "loss" in line}


def _records(run: Path) -> list[Mapping[str, Any]]:
    return list(read_steps(run / "unbroken" / "metrics.jsonl"))


def _sessions(run: Path) -> Iterator[list[Mapping[str, Any]]]:
    """The records of each session, in order."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for line in _records(run):
        found.setdefault(str(line["session"]), []).append(line)
    yield from found.values()
