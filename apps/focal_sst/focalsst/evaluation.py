"""From batches of points to named boxes, and what they are worth: detections, scores, and pictures of a few frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focalsst.config import SonarConfig
from focalsst.dataset.folder import Batch, SonarFolder, collate
from focalsst.geometry import nms_bev
from focalsst.metrics import Detections, Labels, Scores, class_rules, evaluate
from focalsst.model.detector import Detector
from focalsst.results import named, report, write_results
from unbroken.errors import DamagedFile
from unbroken.train import Progress, evaluating, shared_pass, spread

Say = Callable[[str], None]
LEAST_SCORE = 0.1  # of the boxes that are drawn
MOST_FOUND = 30


def suppress(boxes_N7: Tensor, scores_N: Tensor, *, overlap: float) -> Tensor:
    """Indices of the boxes that stay, best first, on the device of the boxes.

    A box goes if its BEV IoU with a better one is above `overlap`. How many are considered and kept is the
    detector's to say (`DecodeSettings`). Counted on the CPU in float64, so every device removes the same boxes.
    """
    count = len(scores_N)
    stay = nms_bev(
        boxes_N7.double().cpu().numpy(),
        scores_N.double().cpu().numpy(),
        iou_threshold=overlap,
        consider=count,
        keep=count,
    )
    return torch.from_numpy(stay).to(boxes_N7.device)


def predict(model: Detector, batch: Batch, *, overlap: float) -> list[Detections]:
    """The detections of each frame of a batch, best first; `overlap` as in `suppress`.

    Mixed precision is off, nothing is drawn at random, and every module is left in the mode that it was in.
    """
    device = next(model.parameters()).device
    batch = batch.to(device)
    with evaluating(model), torch.inference_mode(), torch.autocast(device.type, enabled=False):
        prediction = model(batch.points, batch.owner, len(batch))
        found = model.detect(prediction, partial(suppress, overlap=overlap))
    names = model.settings.head.class_names
    return [
        Detections(
            frame_id=frame,
            names=[names[label - 1] for label in of_frame.labels_N.tolist()],
            boxes_N7=of_frame.boxes_N7.cpu().numpy(),
            scores_N=of_frame.scores_N.cpu().numpy(),
        )
        for frame, of_frame in zip(batch.names, found, strict=True)
    ]


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Scores of a split, and the detections they were made of."""

    scores: Scores
    detections: tuple[Detections, ...]

    @property
    def numbers(self) -> dict[str, float]:
        """The scores by name."""
        return named(self.scores)

    def write(self, folder: Path, *, settings: Mapping[str, Any], save_to_file: bool) -> None:
        """Write scores and detections into a folder of their own."""
        write_results(folder, self.detections, scores=self.scores, settings=settings, save_to_file=save_to_file)


def evaluate_split(
    model: Detector,
    dataset: SonarFolder,
    config: SonarConfig,
    *,
    device: torch.device,
    workers: int,
    say: Say,
    skip_bad: bool = False,
    poll: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Detect in every frame and compare with its labels; says the block of scores.

    A frame that cannot be read ends it, or with `skip_bad` is left out and said. `poll` is called between batches.
    Several processes share the frames, and judge what all of them found.
    """
    overlap = config.MODEL.DENSE_HEAD.POST_PROCESSING.NMS_CONFIG.NMS_THRESH
    parts = shared_pass(
        dataset,
        lambda batch: predict(model, batch.to(device), overlap=overlap),
        batch_size=config.OPTIMIZATION.BATCH_SIZE_PER_GPU,
        workers=workers,
        collate=collate,
        skip_bad=skip_bad,
        poll=poll,
        say=say,
    )
    found = [each for part in parts for each in part]
    seen = {each.frame_id for each in found}
    if not seen:
        what = f"not one of the {len(dataset)} frames to evaluate can be read"
        raise DamagedFile(dataset.root, what, do="The log names each, and what is wrong with it.")
    known = (dataset.annotation(index) for index in range(len(dataset)))
    labels = [
        Labels(frame_id=each.frame, names=each.names, boxes_N7=each.boxes) for each in known if each.frame in seen
    ]
    rules = class_rules(config.class_names, config.map_class_to_kitti)
    scores = evaluate(labels, found, rules, recall_overlaps=config.MODEL.POST_PROCESSING.RECALL_THRESH_LIST)
    say(report(scores))
    say(f"mAP {scores.mAP:.2f} (3d R40, strict), {scores.mAP_lenient:.2f} (lenient), {scores.frames} frames")
    return Evaluation(scores=scores, detections=tuple(found))


def draw_samples(
    model: Detector, dataset: SonarFolder, device: torch.device, overlap: float, count: int, _progress: Progress
) -> dict[str, bytes]:
    """PNG files by the names of their frames; frames that cannot be read are left out."""
    # Here and not above: matplotlib takes half a second, and a training without pictures does not need it.
    from focalsst.picture import FrameView, from_above_png

    found: dict[str, bytes] = {}
    for index in spread(len(dataset), count):
        try:
            sample = dataset.sample(index, np.random.default_rng(0))
        except DamagedFile:
            continue
        [detections] = predict(model, collate([sample]).to(device), overlap=overlap)
        known = dataset.annotation(index)
        view = FrameView(
            points=sample.points.numpy(),
            truth=Labels(frame_id=known.frame, names=known.names, boxes_N7=known.boxes),
            detections=detections,
        )
        found[sample.name] = from_above_png(view, least_score=LEAST_SCORE, most_found=MOST_FOUND)
    return found
