"""Sample predictions of a training: a few fixed validation frames from above, with true boxes and those found."""

from __future__ import annotations

import numpy as np
import torch

from focalsst.dataset.batch import collate
from focalsst.dataset.folder import SonarFolder
from focalsst.metrics import Labels
from focalsst.model.detector import Detector
from focalsst.predict import predict
from unbroken.errors import DamagedFile
from unbroken.train import Progress, spread

LEAST_SCORE = 0.1  # of the boxes that are drawn
MOST_FOUND = 30


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
