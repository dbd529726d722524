"""How good the maps are: intersection over union and accuracy per class, from exact pixel counts.

Counts are summed over all pictures before anything is divided, so a large picture weighs more than a small
one. A class that is neither in the truth nor predicted has no score (NaN) and is left out of the means; one
that is predicted where it never was scores 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

IGNORED = 255


@dataclass(frozen=True, kw_only=True)
class PixelCounts:
    """Pixels per class: predicted rightly, predicted, and labelled; whole numbers of any size."""

    intersect: tuple[int, ...]
    predicted: tuple[int, ...]
    labelled: tuple[int, ...]

    @classmethod
    def none(cls, num_classes: int) -> PixelCounts:
        """The start of a sum."""
        zeros = (0,) * num_classes
        return cls(intersect=zeros, predicted=zeros, labelled=zeros)

    def __add__(self, other: PixelCounts) -> PixelCounts:
        return PixelCounts(
            intersect=_added(self.intersect, other.intersect),
            predicted=_added(self.predicted, other.predicted),
            labelled=_added(self.labelled, other.labelled),
        )


def count_pixels(
    prediction_HW: Tensor, label_HW: Tensor, *, num_classes: int, ignore_index: int = IGNORED
) -> PixelCounts:
    """The counts of one picture, or of a batch; pixels labelled `ignore_index` count nowhere."""
    known = label_HW != ignore_index
    prediction_P, label_P = prediction_HW[known].long(), label_HW[known].long()
    return PixelCounts(
        intersect=_histogram(prediction_P[prediction_P == label_P], num_classes),
        predicted=_histogram(prediction_P, num_classes),
        labelled=_histogram(label_P, num_classes),
    )


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Percent, rounded to two places: over all pixels, mean of classes, and of each class (NaN: no score)."""

    aAcc: float
    mIoU: float
    mAcc: float
    class_names: tuple[str, ...]
    IoU: tuple[float, ...]
    Acc: tuple[float, ...]

    @property
    def means(self) -> dict[str, float]:
        """The numbers over all classes by name, as a training records them."""
        return {"aAcc": self.aAcc, "mIoU": self.mIoU, "mAcc": self.mAcc}

    def as_data(self) -> dict[str, Any]:
        """The same as plain values for JSON, None where there is no score."""
        classes = {
            name: {"IoU": _or_none(iou), "Acc": _or_none(acc)}
            for name, iou, acc in zip(self.class_names, self.IoU, self.Acc)
        }
        return {**{name: _or_none(value) for name, value in self.means.items()}, "classes": classes}


def scores(counts: PixelCounts, class_names: Sequence[str]) -> Scores:
    """Per class IoU = I / (P + L - I), Acc = I / L; aAcc = sum I / sum L; means of classes with a score."""
    intersect = np.asarray(counts.intersect, dtype=np.float64)
    predicted = np.asarray(counts.predicted, dtype=np.float64)
    labelled = np.asarray(counts.labelled, dtype=np.float64)
    iou = _divided(intersect, predicted + labelled - intersect)
    acc = _divided(intersect, labelled)
    return Scores(
        aAcc=_percent(_divided(intersect.sum(keepdims=True), labelled.sum(keepdims=True)))[0],
        mIoU=_percent(_mean(iou))[0],
        mAcc=_percent(_mean(acc))[0],
        class_names=tuple(class_names),
        IoU=_percent(iou),
        Acc=_percent(acc),
    )


def table(result: Scores) -> str:
    """The title and a table of all classes, drawn as MMSegmentation's logs have it."""
    header = ("Class", "IoU", "Acc")
    rows = [(name, str(iou), str(acc)) for name, iou, acc in zip(result.class_names, result.IoU, result.Acc)]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    rule = "+" + "+".join("-" * (width + 2) for width in widths) + "+"
    first, *others = (
        "|" + "|".join(f" {_centred(cell, width)} " for cell, width in zip(row, widths)) + "|"
        for row in (header, *rows)
    )
    lines = [first, rule, *others]
    return "\n".join(["per class results:", "", rule, *lines, rule])


def _centred(text: str, width: int) -> str:
    """Spare room on both sides; an odd space goes to the right of odd texts and to the left of even ones."""
    spare = width - len(text)
    left = spare // 2 if len(text) % 2 else (spare + 1) // 2
    return " " * left + text + " " * (spare - left)


def _added(left: Sequence[int], right: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(left, right, strict=True))


def _histogram(values_P: Tensor, num_classes: int) -> tuple[int, ...]:
    """How often each of 0..num_classes-1 occurs; other values are dropped."""
    inside = values_P[(values_P >= 0) & (values_P < num_classes)]
    return tuple(torch.bincount(inside, minlength=num_classes).tolist())


def _divided(above: NDArray[np.float64], below: NDArray[np.float64]) -> NDArray[np.float64]:
    """Elementwise quotient, NaN for 0 / 0."""
    return np.divide(above, below, out=np.full_like(above, math.nan), where=below > 0)


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of those that are not NaN, NaN when there are none."""
    scored = values[~np.isnan(values)]
    return scored.mean(keepdims=True) if scored.size else np.asarray([math.nan])


def _percent(values: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.round(values * 100, 2))


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
