"""Judging a detector by the frames of a split: detections, scores, and both written down."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from focalsst.config import SonarConfig
from focalsst.dataset.batch import collate
from focalsst.dataset.folder import SonarFolder
from focalsst.metrics import Detections, Labels, Scores, class_rules, evaluate
from focalsst.model.detector import Detector
from focalsst.predict import predict
from focalsst.report import named, report
from focalsst.results import write_results
from unbroken.errors import DamagedFile
from unbroken.train import BadSample, one_pass, this_world

Say = Callable[[str], None]


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
    world, left_out = this_world(), list[str]()

    def skipped(bad: BadSample) -> None:
        left_out.append(f"skipped in evaluation: {bad.reason}")

    found: list[Detections] = []
    for batch in one_pass(
        dataset,
        batch_size=config.batch_size,
        workers=workers,
        collate=collate,
        skipped=skipped if skip_bad else None,
        share=(world.rank, world.size),
    ):
        poll()
        found += predict(model, batch.to(device), overlap=config.nms_threshold)
    told = world.gather_values((found, left_out))
    found = [each for detections, _ in told for each in detections]
    for line in (line for _, lines in told for line in lines):
        say(line)
    seen = {each.frame_id for each in found}
    if not seen:
        what = f"not one of the {len(dataset)} frames to evaluate can be read"
        raise DamagedFile(dataset.root, what, do="The log names each, and what is wrong with it.")
    known = (dataset.annotation(index) for index in range(len(dataset)))
    labels = [
        Labels(frame_id=each.frame, names=each.names, boxes_N7=each.boxes) for each in known if each.frame in seen
    ]
    rules = class_rules(config.class_names, config.map_class_to_kitti)
    scores = evaluate(labels, found, rules, recall_overlaps=config.recall_thresholds)
    say(report(scores))
    say(f"mAP {scores.mAP:.2f} (3d R40, strict), {scores.mAP_lenient:.2f} (lenient), {scores.frames} frames")
    return Evaluation(scores=scores, detections=tuple(found))
