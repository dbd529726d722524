"""Batches: several samples as plain tensors, points one after the other and boxes padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from focalsst.dataset.folder import Sample
from unbroken.train import even_slices


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Samples of one step.

    points float32 (N, 4) of all B samples; owner int64 (N), the sample of each point; boxes float32 (B, M, 8) with
    rows of zeros behind the `counts` int64 (B) real ones; names, one per sample.
    """

    points: torch.Tensor
    owner: torch.Tensor
    boxes: torch.Tensor
    counts: torch.Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> Batch:
        """Give the same batch on a device."""
        return Batch(
            points=self.points.to(device),
            owner=self.owner.to(device),
            boxes=self.boxes.to(device),
            counts=self.counts.to(device),
            names=self.names,
        )

    def split(self, parts: int) -> list[Batch]:
        """Divide it in its order into parts of nearly equal size; the points of a sample stay together."""
        return [self._part(piece) for piece in even_slices(len(self), parts)]

    def _part(self, piece: slice) -> Batch:
        here = (self.owner >= piece.start) & (self.owner < piece.stop)
        return Batch(
            points=self.points[here],
            owner=self.owner[here] - piece.start,
            boxes=self.boxes[piece, : int(self.counts[piece].max())],
            counts=self.counts[piece],
            names=self.names[piece],
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Join samples to a batch; some or all of them may be without objects."""
    counts = torch.tensor([len(sample.boxes) for sample in samples])
    lengths = torch.tensor([len(sample.points) for sample in samples])
    boxes = torch.zeros(len(samples), int(counts.max()), 8)
    for row, sample in zip(boxes, samples):
        row[: len(sample.boxes)] = sample.boxes
    return Batch(
        points=torch.cat([sample.points for sample in samples]),
        owner=torch.repeat_interleave(torch.arange(len(samples)), lengths),
        boxes=boxes,
        counts=counts,
        names=tuple(sample.name for sample in samples),
    )
