"""The two pictures of the demo: curves stitched over the sessions, and predicted tiles beside the truth."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from PIL import Image

from mapsage.config import MapSageConfig
from mapsage.datasets import build_dataset
from mapsage.evaluation import predict
from mapsage.picture import png_bytes, side_by_side
from mapsage.task import build_preprocessor, build_segmentor
from unbroken import Disk, write_whole
from unbroken.config import read_config, validate
from unbroken.train import evaluating, read_checkpoint

mpl.use("Agg")
TILES = 4
Session = list[Mapping[str, Any]]


def draw_curves(sessions: Iterable[Session], twin: Iterable[Session], path: Path) -> None:
    """Loss and mIoU of every session in its colour over the uninterrupted run in grey."""
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.5), layout="constrained")
    whole = [record for session in twin for record in session]
    left.plot(*_column(whole, "loss"), color="0.55", linewidth=4, alpha=0.45, label="uninterrupted twin")
    right.plot(*_miou(whole), color="0.55", linewidth=5, alpha=0.45, label="uninterrupted twin")
    for number, session in enumerate(sessions, start=1):
        colour = f"C{number - 1}"
        steps, losses = _column(session, "loss")
        left.plot(steps, losses, color=colour, linewidth=1, label=f"session {number}: steps {steps[0]}-{steps[-1]}")
        right.plot(*_miou(session), "o", color=colour, markersize=7, label=f"session {number}")
        for axes in (left, right):
            axes.axvline(steps[-1], color=colour, linestyle=":", linewidth=1)
    for axes, what in ((left, "training loss"), (right, "validation mIoU (%)")):
        axes.set(xlabel="step", ylabel=what)
        axes.legend(fontsize=8)
        axes.grid(alpha=0.25)
    figure.suptitle("Killed twice, resumed by the same command; dotted lines: where a session ended")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, format=path.suffix.strip("."))
    write_whole(Disk(), path, buffer.getvalue())
    plt.close(figure)


def draw_tiles(config_path: Path, checkpoint: Path, path: Path) -> None:
    """Validation tiles: picture, truth, prediction, one row each."""
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
    write_whole(Disk(), path, png_bytes(_stack(rows)))


def _stack(rows: list[Image.Image]) -> Image.Image:
    picture = Image.new("RGB", (max(row.width for row in rows), sum(row.height for row in rows)), "white")
    top = 0
    for row in rows:
        picture.paste(row, (0, top))
        top += row.height
    return picture


def _column(records: Session, name: str) -> tuple[list[int], list[float]]:
    found = [(int(record["step"]), float(record[name])) for record in records if name in record]
    return [step for step, _ in found], [value for _, value in found]


def _miou(records: Session) -> tuple[list[int], list[float]]:
    found = [(int(r["step"]), float(r["evaluation"]["mIoU"])) for r in records if "evaluation" in r]
    return [step for step, _ in found], [value for _, value in found]
