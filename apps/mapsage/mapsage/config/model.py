"""The network: SegFormer as MMSegmentation names its parts, its losses and its way of predicting."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Annotated, Any, Literal

from pydantic import Field

from mapsage.config.data import Size
from unbroken.config import Count, Effect, FromZero, Misfit, OrOne, Positive, Rate, Section

SHAPE, MEANING, FREE, IGNORED = Effect.SHAPE, Effect.MEANING, Effect.FREE, Effect.IGNORED

# A loss whose name does not say so is logged by MMSegmentation and not learned from.
LossName = Annotated[str, Field(pattern="loss")]
RGB = tuple[float, float, float]
Stages = Annotated[tuple[Count, ...], Field(min_length=1)]  # one number per stage


class SegDataPreProcessor(Section):
    """From the bytes of a picture to what the network sees: (RGB - mean) / std, padded in training."""

    type: Annotated[Literal["SegDataPreProcessor"], MEANING] = "SegDataPreProcessor"
    mean: Annotated[RGB | None, MEANING] = (123.675, 116.28, 103.53)  # ImageNet's, in grey levels; None: as they are
    std: Annotated[tuple[Positive, Positive, Positive] | None, MEANING] = (58.395, 57.12, 57.375)
    bgr_to_rgb: Annotated[bool, MEANING] = True
    pad_val: Annotated[Literal[0], MEANING] = 0  # after normalisation: the mean colour
    seg_pad_val: Annotated[Literal[255], MEANING] = 255  # the label that nothing counts
    size: Annotated[Size | None, MEANING] = None  # height, width in px; None: the crop of the training pipeline

    def misfits(self) -> Iterator[Misfit]:
        """A mean without a standard deviation is half of a normalisation."""
        if (self.mean is None) != (self.std is None):
            missing = "mean" if self.mean is None else "std"
            yield Misfit(missing, "is None", do="Give mean and std, or None for both: then pictures stay 0 to 255.")


class Pretrained(Section):
    """Weights that the backbone starts from; every later launch starts from the run's own checkpoint."""

    type: Annotated[Literal["Pretrained"], FREE] = "Pretrained"
    checkpoint: Annotated[str, FREE]
    prefix: Annotated[str | None, FREE] = None


class MixVisionTransformer(Section):
    """The backbone, MiT. Stage i is `embed_dims * num_heads[i]` wide; the defaults are those of mmseg."""

    type: Annotated[Literal["MixVisionTransformer"], SHAPE] = "MixVisionTransformer"
    in_channels: Annotated[Literal[3], SHAPE] = 3
    embed_dims: Annotated[Count, SHAPE] = 64
    num_stages: Annotated[Count, SHAPE] = 4
    num_layers: Annotated[Stages, SHAPE] = (3, 4, 6, 3)
    num_heads: Annotated[Stages, SHAPE] = (1, 2, 4, 8)
    patch_sizes: Annotated[Stages, SHAPE] = (7, 3, 3, 3)
    strides: Annotated[Stages, MEANING] = (4, 2, 2, 2)
    sr_ratios: Annotated[Stages, SHAPE] = (8, 4, 2, 1)
    out_indices: Annotated[tuple[int, ...], SHAPE] = (0, 1, 2, 3)
    mlp_ratio: Annotated[Count, SHAPE] = 4
    qkv_bias: Annotated[bool, SHAPE] = True
    drop_rate: Annotated[Rate, MEANING] = 0.0
    attn_drop_rate: Annotated[Rate, MEANING] = 0.0
    drop_path_rate: Annotated[Rate, MEANING] = 0.0
    init_cfg: Pretrained | None = None
    with_cp: Annotated[bool, FREE] = False  # gradient checkpointing: less memory, the same numbers
    pretrained: Annotated[None, IGNORED] = None

    def misfits(self) -> Iterator[Misfit]:
        """Each stage needs one number of every kind."""
        for name in ("num_layers", "num_heads", "patch_sizes", "strides", "sr_ratios"):
            found = getattr(self, name)
            if len(found) != self.num_stages:
                yield Misfit(name, "needs one number per stage", f"{self.num_stages} numbers", list(found))
        if any(not 0 <= index < self.num_stages for index in self.out_indices):
            stages = f"stages from 0 to {self.num_stages - 1}"
            yield Misfit("out_indices", "names a stage that is not there", stages, list(self.out_indices))

    @property
    def least_px(self) -> int:
        """The shortest side of which every stage leaves as much as it reduces keys and values by."""
        stages = list(zip(self.patch_sizes, self.strides, self.sr_ratios))

        def fits(side: int) -> bool:
            for kernel, stride, ratio in stages:
                side = (side + 2 * (kernel // 2) - kernel) // stride + 1
                if side < ratio:
                    return False
            return True

        return next(side for side in count(1) if fits(side))

    @property
    def widths(self) -> tuple[int, ...]:
        """The channels of each stage."""
        return tuple(self.embed_dims * heads for heads in self.num_heads)


class CrossEntropyLoss(Section):
    """Softmax cross entropy per pixel, averaged over all pixels or (`avg_non_ignore`) over labelled ones."""

    type: Annotated[Literal["CrossEntropyLoss"], MEANING] = "CrossEntropyLoss"
    use_sigmoid: Annotated[Literal[False], MEANING] = False
    loss_weight: Annotated[FromZero, MEANING] = 1.0
    avg_non_ignore: Annotated[bool, MEANING] = False
    class_weight: Annotated[tuple[FromZero, ...] | None, MEANING] = None
    loss_name: Annotated[LossName, IGNORED] = "loss_ce"


class DiceLoss(Section):
    """Dice loss over all classes and pixels of a sample together, as mmseg computes it."""

    type: Annotated[Literal["DiceLoss"], MEANING] = "DiceLoss"
    use_sigmoid: Annotated[bool, MEANING] = True
    naive_dice: Annotated[bool, MEANING] = False
    eps: Annotated[Positive, MEANING] = 1e-3
    loss_weight: Annotated[FromZero, MEANING] = 1.0
    loss_name: Annotated[LossName, IGNORED] = "loss_dice"


class LovaszLoss(Section):
    """Lovasz-softmax over the classes present in the whole batch."""

    type: Annotated[Literal["LovaszLoss"], MEANING] = "LovaszLoss"
    loss_type: Annotated[Literal["multi_class"], MEANING] = "multi_class"
    classes: Annotated[Literal["present"], MEANING] = "present"
    per_image: Annotated[Literal[False], MEANING] = False
    reduction: Annotated[Literal["none"], MEANING] = "none"
    loss_weight: Annotated[FromZero, MEANING] = 1.0
    loss_name: Annotated[LossName, IGNORED] = "loss_lovasz"


Loss = Annotated[CrossEntropyLoss | DiceLoss | LovaszLoss, Field(discriminator="type")]


class HeadNorm(Section):
    """Batch normalisation in the head; `requires_grad=False` freezes scale and shift, not the statistics."""

    type: Annotated[Literal["BN", "SyncBN"], SHAPE] = "BN"
    requires_grad: Annotated[bool, MEANING] = True


class SegformerHead(Section):
    """The decode head: maps of all stages to `channels`, joined, then one score per class."""

    type: Annotated[Literal["SegformerHead"], SHAPE] = "SegformerHead"
    in_channels: Annotated[Stages, SHAPE]
    in_index: Annotated[tuple[int, ...], SHAPE] = (0, 1, 2, 3)
    channels: Annotated[Count, SHAPE] = 256
    num_classes: Annotated[Count, SHAPE]
    dropout_ratio: Annotated[Rate, MEANING] = 0.1
    norm_cfg: HeadNorm | None = HeadNorm()  # None: no normalisation, and convolutions with a bias
    align_corners: Annotated[bool, MEANING] = False
    ignore_index: Annotated[Literal[255], MEANING] = 255
    loss_decode: Annotated[tuple[Loss, ...], Field(min_length=1), OrOne()] = (CrossEntropyLoss(),)

    def misfits(self) -> Iterator[Misfit]:
        """The losses weigh the classes there are, and the channels match the maps."""
        if len(self.in_channels) != len(self.in_index):
            yield Misfit("in_channels", "needs one number per map", len(self.in_index), list(self.in_channels))
        for place, loss in enumerate(self.loss_decode):
            weights = loss.class_weight if isinstance(loss, CrossEntropyLoss) else None
            if weights is not None and len(weights) != self.num_classes:
                key = f"loss_decode.{place}.class_weight"
                yield Misfit(key, "needs one weight per class", f"{self.num_classes} weights", len(weights))


class Inference(Section):
    """How a picture is predicted: in one piece, or by windows that slide over it and are averaged."""

    mode: Annotated[Literal["whole", "slide"], MEANING] = "whole"
    crop_size: Annotated[Size | None, MEANING] = None  # height, width of the window in px
    stride: Annotated[Size | None, MEANING] = None

    def misfits(self) -> Iterator[Misfit]:
        """Sliding needs a window, and steps that leave no gap."""
        if self.mode == "whole":
            return
        if self.crop_size is None or self.stride is None:
            missing = "crop_size" if self.crop_size is None else "stride"
            yield Misfit(missing, "is missing", do="mode='slide' needs crop_size and stride.")
        elif any(step > side for step, side in zip(self.stride, self.crop_size)):
            yield Misfit("stride", "leaves gaps between windows", f"at most {self.crop_size}", self.stride)


class Segmentor(Section):
    """The whole network."""

    type: Annotated[Literal["EncoderDecoder"], SHAPE] = "EncoderDecoder"
    data_preprocessor: SegDataPreProcessor = SegDataPreProcessor()
    backbone: MixVisionTransformer = MixVisionTransformer()
    decode_head: SegformerHead
    test_cfg: Inference = Inference()
    gradient_checkpointing: Annotated[bool, FREE] = False  # the guide's switch; the same as backbone.with_cp
    train_cfg: Annotated[Any, IGNORED] = None
    pretrained: Annotated[None, IGNORED] = None
    auxiliary_head: Annotated[None, IGNORED] = None
    neck: Annotated[None, IGNORED] = None

    def misfits(self) -> Iterator[Misfit]:
        """The head takes what the backbone gives."""
        head, widths = self.decode_head, self.backbone.widths
        given = [widths[index] for index in self.backbone.out_indices if 0 <= index < len(widths)]
        if any(not 0 <= index < len(given) for index in head.in_index):
            yield Misfit("decode_head.in_index", "names a map that the backbone does not give", found=head.in_index)
            return
        wanted = [given[index] for index in head.in_index]
        if list(head.in_channels) != wanted:
            yield Misfit(
                "decode_head.in_channels",
                "does not fit the backbone (embed_dims * num_heads)",
                expected=wanted,
                found=list(head.in_channels),
            )
