"""From a batch of points to named boxes: the detector in evaluation mode, in float32, and its suppression."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from focalsst.dataset.batch import Batch
from focalsst.geometry import nms_bev
from focalsst.metrics import Detections
from focalsst.model.center_decode import Detections as Found
from focalsst.model.detector import Detector
from unbroken.train import evaluating


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
    return [_named(frame, of_frame, names) for frame, of_frame in zip(batch.names, found, strict=True)]


def _named(frame: str, found: Found, class_names: tuple[str, ...]) -> Detections:
    return Detections(
        frame_id=frame,
        names=[class_names[label - 1] for label in found.labels_N.tolist()],
        boxes_N7=found.boxes_N7.cpu().numpy(),
        scores_N=found.scores_N.cpu().numpy(),
    )
