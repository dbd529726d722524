"""Which shapes picture and mask of a tile may have at the end of a pipeline: in training, and where it is judged.

Asked of each sample that is used, and of the first ones before anything begins.
"""

from __future__ import annotations

from unbroken.errors import ConfigError

Shape = tuple[int, ...]  # height and width in px


def require_trainable(where: str, image_HW: Shape, label_HW: Shape | None, *, batch_HW: Shape) -> None:
    """Raise ConfigError unless a tile can be part of a training batch."""
    if image_HW[0] > batch_HW[0] or image_HW[1] > batch_HW[1]:
        raise ConfigError(
            where,
            "the picture is larger than a training batch",
            expected=f"at most {_px(batch_HW)}",
            found=_px(image_HW),
            do="Crop or resize in the training pipeline, or raise the size of the preprocessor.",
        )
    if label_HW is None:
        what = "there is no label to train on"
        raise ConfigError(where, what, do="Add LoadAnnotations to the training pipeline.")
    if label_HW != image_HW:
        raise ConfigError(
            where,
            "image and label differ in size",
            expected=_px(image_HW),
            found=_px(label_HW),
            do="In a training pipeline LoadAnnotations comes before any resize.",
        )


def require_comparable(where: str, label_HW: Shape | None, *, file_HW: Shape) -> None:
    """Raise ConfigError unless a tile has a label of the size that its prediction has: that of the file."""
    if label_HW is None:
        raise ConfigError(
            where, "there is no label to compare with", do="Add masks, and LoadAnnotations to the pipeline."
        )
    if label_HW != file_HW:
        raise ConfigError(
            where,
            "the mask is resized together with its picture, but a prediction has the size of the file",
            expected=_px(file_HW),
            found=_px(label_HW),
            do="In a validation pipeline LoadAnnotations comes after any resize.",
        )


def _px(shape: Shape) -> str:
    return f"{shape[0]}x{shape[1]} px (height x width)"
