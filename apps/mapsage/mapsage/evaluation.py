"""Judging a segmentor by labelled tiles: what it predicts of each, the pixel counts of all, and their scores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mapsage.config import MapSageConfig
from mapsage.dataset.folders import Folder
from mapsage.dataset.pipeline import Sample, require_comparable
from mapsage.dataset.preprocess import Preprocessor, collate
from mapsage.metrics import PixelCounts, Scores, count_pixels, scores, table
from mapsage.model import EncoderDecoder
from mapsage.predict import predict_labels
from unbroken.errors import DamagedFile
from unbroken.train import evaluating, shared_pass

Say = Callable[[str], None]


def evaluate(
    config: MapSageConfig,
    dataset: Folder,
    model: EncoderDecoder,
    preprocess: Preprocessor,
    say: Say,
    *,
    workers: int,
    part: str = "val",
    skip_bad: bool = False,
    poll: Callable[[], None] = lambda: None,
    take: Callable[[Sample, Tensor], None] = lambda _sample, _prediction: None,
) -> Scores:
    """IoU and accuracy over all pixels of the tiles (percent); says the table and the line of means.

    Several processes share the tiles, and count all pixels together.

    A tile that cannot be read ends it, or with `skip_bad` is left out and said. `part` is what MMEngine calls the loop,
    `poll` is called between tiles, and `take` is given each tile with its predicted labels.
    """
    classes = config.model.decode_head.num_classes

    def judge(batch: Any) -> PixelCounts:
        (sample,) = batch
        label_HW = None if sample.label is None else tuple(sample.label.shape)
        require_comparable(sample.name, label_HW, file_HW=sample.ori_shape)
        prediction = predict(config, model, preprocess, sample)
        take(sample, prediction)
        return count_pixels(prediction, sample.label, num_classes=classes)

    with evaluating(model), torch.inference_mode():
        each = shared_pass(
            dataset, judge, batch_size=1, workers=workers, collate=collate, skip_bad=skip_bad, poll=poll, say=say
        )
    counts, seen = sum(each, PixelCounts.none(classes)), len(each)
    if not seen:
        what = f"not one of its {len(dataset)} tiles can be read"
        raise DamagedFile(f"the {part} set", what, do="The log names each, and what is wrong with it.")
    found = scores(counts, dataset.classes)
    say(table(found))
    say(f"Iter({part}) [{seen}/{len(dataset)}]  {words(found)}")
    return found


def words(found: Scores) -> str:
    """`aAcc: 73.7000  mIoU: 62.6500  mAcc: 78.5600`."""
    return "  ".join(f"{name}: {value:.4f}" for name, value in found.means.items())


def predict(config: MapSageConfig, model: EncoderDecoder, preprocess: Preprocessor, sample: Sample) -> Tensor:
    """The labels of one sample at its file's size, int64 (H, W), on the CPU."""
    image_1CHW, _ = preprocess([sample], training=False)
    how = config.model.test_cfg
    return predict_labels(
        model,
        image_1CHW,
        mode=how.mode,
        crop_size=how.crop_size or (0, 0),  # the schema has seen to it that sliding has both
        stride=how.stride or (0, 0),
        num_classes=config.model.decode_head.num_classes,
        content_size=(sample.image.shape[-2], sample.image.shape[-1]),
        original_size=sample.ori_shape,
        align_corners=config.model.decode_head.align_corners,
        least_px=config.model.backbone.least_px,
    ).cpu()
