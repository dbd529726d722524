"""What is minimised: cross entropy, Dice and Lovasz, computed as MMSegmentation does.

Logits are NKHW of any size and are resized to the label first, labels int64 NHW with 0..K-1 and 255 for
pixels that nobody knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mapsage.predict import resize_bilinear
from unbroken.errors import ConfigError

IGNORED = 255
# Added to divisors that are zero when every pixel is ignored; far below one pixel, it moves no other result.
_TINY = torch.finfo(torch.float32).eps

LossKind = Literal["ce", "dice", "lovasz"]
_OPTIONS: Mapping[str, frozenset[str]] = {
    "ce": frozenset({"avg_non_ignore", "class_weight"}),
    "dice": frozenset({"use_sigmoid", "naive", "eps"}),
    "lovasz": frozenset(),
}


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """One part of the loss: its kind, its weight in the sum, and the keyword options of its function here."""

    kind: LossKind
    weight: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = sorted(set(self.options) - _OPTIONS[self.kind])
        if unknown:
            raise ConfigError(
                "model.decode_head.loss_decode",
                f"the {self.kind} loss has no such option",
                expected=sorted(_OPTIONS[self.kind]) or "no options",
                found=unknown,
            )


def decode_losses(
    logits_NKHW: Tensor,
    label_NHW: Tensor,
    terms: Sequence[LossTerm],
    *,
    ignore_index: int = IGNORED,
    align_corners: bool = False,
) -> dict[str, Tensor]:
    """Weighted terms as `decode.loss_<kind>` (one kind twice: added), and `decode.acc_seg` in percent."""
    size_HW = (int(label_NHW.shape[1]), int(label_NHW.shape[2]))
    logits_NKHW = resize_bilinear(logits_NKHW, size_HW, align_corners=align_corners)
    losses: dict[str, Tensor] = {}
    for term in terms:
        name = f"decode.loss_{term.kind}"
        match term.kind:
            case "ce":
                value = cross_entropy(logits_NKHW, label_NHW, ignore_index=ignore_index, **term.options)
            case "dice":
                value = dice(logits_NKHW, label_NHW, **term.options)
            case "lovasz":
                value = lovasz(logits_NKHW, label_NHW, ignore_index=ignore_index)
        value = term.weight * value
        losses[name] = losses[name] + value if name in losses else value
    losses["decode.acc_seg"] = pixel_accuracy(logits_NKHW, label_NHW, ignore_index=ignore_index)
    return losses


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of all entries whose name contains "loss", in their order."""
    values = [value for name, value in losses.items() if "loss" in name]
    if not values:
        raise ConfigError("model.decode_head.loss_decode", "there is no loss to minimise", found=list(losses))
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def cross_entropy(
    logits_NKHW: Tensor,
    label_NHW: Tensor,
    *,
    ignore_index: int = IGNORED,
    avg_non_ignore: bool = False,
    class_weight: Sequence[float] | None = None,
) -> Tensor:
    """Cross entropy per pixel, ignored pixels 0, averaged by one of two conventions.

    `avg_non_ignore=False` divides by all pixels, so loss and gradient shrink with the ignored share (mmseg's
    default); `True` divides by the labelled ones. With `class_weight` each pixel weighs in the divisor what
    it weighs in the sum, an ignored one that is counted weighs 1. Without any labelled pixel the loss is 0.
    """
    weight_K = None if class_weight is None else logits_NKHW.new_tensor(class_weight, dtype=torch.float32)
    # Summed here, not inside cross_entropy, whose own sums in two dimensions are not deterministic on GPUs.
    loss_NHW = F.cross_entropy(logits_NKHW, label_NHW, weight=weight_K, ignore_index=ignore_index, reduction="none")
    known_NHW = label_NHW != ignore_index
    if weight_K is None:
        divisor = known_NHW.sum() if avg_non_ignore else known_NHW.new_tensor(known_NHW.numel(), dtype=torch.int64)
    else:
        weight_NHW = weight_K[torch.where(known_NHW, label_NHW, 0)]
        divisor = weight_NHW.where(known_NHW, 0.0 if avg_non_ignore else 1.0).sum()
    return loss_NHW.sum() / (divisor + _TINY)


def dice(
    logits_NKHW: Tensor, label_NHW: Tensor, *, use_sigmoid: bool = True, naive: bool = False, eps: float = 1e-3
) -> Tensor:
    """Dice loss 1 - 2 sum(pt) / (sum(pp) + sum(tt)) per sample, over all classes and pixels; mean of samples.

    From V-Net (Milletari et al., 2016). `naive` has plain sums below the line instead of squares. A pixel
    without a class is no class's target but still counts below the line, so predictions there are pushed to
    zero.
    """
    classes = logits_NKHW.shape[1]
    target_NHWK = F.one_hot(label_NHW.clamp(0, classes), classes + 1)[..., :classes]
    target_ND = target_NHWK.permute(0, 3, 1, 2).flatten(1).float()
    probability_NKHW = logits_NKHW.sigmoid() if use_sigmoid else logits_NKHW.softmax(dim=1)
    probability_ND = probability_NKHW.flatten(1)
    both_N = (probability_ND * target_ND).sum(1)
    if naive:
        return (1 - (2 * both_N + eps) / (probability_ND.sum(1) + target_ND.sum(1) + eps)).mean()
    below_N = ((probability_ND * probability_ND).sum(1) + eps) + ((target_ND * target_ND).sum(1) + eps)
    return (1 - (2 * both_N) / below_N).mean()


def lovasz(logits_NKHW: Tensor, label_NHW: Tensor, *, ignore_index: int = IGNORED) -> Tensor:
    """Lovasz-softmax (Berman et al., 2018): a smooth stand-in for 1 - mIoU, the whole batch as one picture.

    Mean over the classes present in the labels; 0 when no pixel is labelled.
    """
    probability_NHWK = logits_NKHW.float().softmax(dim=1).permute(0, 2, 3, 1)
    known_NHW = label_NHW != ignore_index
    probability_PK, label_P = probability_NHWK[known_NHW], label_NHW[known_NHW]
    pixels_K = torch.bincount(label_P, minlength=logits_NKHW.shape[1]).tolist()
    present = [c for c, pixels in enumerate(pixels_K) if pixels]
    if not present:
        return logits_NKHW.sum() * 0.0
    return torch.stack([_lovasz_of_class(probability_PK[:, c], label_P == c) for c in present]).mean()


def _lovasz_of_class(probability_P: Tensor, is_class_P: Tensor) -> Tensor:
    """Errors in falling order, each times the step of the Jaccard loss that adding its pixel makes."""
    error_P, order_P = (is_class_P.float() - probability_P).abs().sort(descending=True, stable=True)
    hit_P = is_class_P[order_P].long()
    # Counts stay integers: exact at any size, and deterministic on GPUs, where a float cumsum is not.
    intersection_P = hit_P.sum() - hit_P.cumsum(0)
    union_P = hit_P.sum() + (1 - hit_P).cumsum(0)
    jaccard_loss_P = 1.0 - intersection_P / union_P
    step_P = torch.cat([jaccard_loss_P[:1], jaccard_loss_P[1:] - jaccard_loss_P[:-1]])
    return torch.dot(error_P, step_P)


@torch.no_grad()
def pixel_accuracy(logits_NKHW: Tensor, label_NHW: Tensor, *, ignore_index: int = IGNORED) -> Tensor:
    """Percent of labelled pixels whose highest logit is the right class; 0 when none is labelled."""
    known_NHW = label_NHW != ignore_index
    right = ((logits_NKHW.argmax(dim=1) == label_NHW) & known_NHW).sum()
    return 100.0 * right / known_NHW.sum().clamp(min=1)
