"""Networks and trainings of MMSegmentation that are not built here: one sentence, not all that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbroken.config import Misfit, other_parts, value_at

# The parts by which a training is another one, and what is built of each.
BUILT = {
    "model.type": ("EncoderDecoder",),
    "model.backbone.type": ("MixVisionTransformer",),
    "model.decode_head.type": ("SegformerHead",),
    "model.data_preprocessor.type": ("SegDataPreProcessor",),
    "train_cfg.type": ("IterBasedTrainLoop",),
    "optim_wrapper.type": ("OptimWrapper", "AmpOptimWrapper"),
    "optim_wrapper.optimizer.type": ("AdamW",),
    "train_dataloader.dataset.type": ("BaseSegDataset", "EarthVQADataset", "LoveDADataset", "ConcatDataset"),
}
FURTHER = ("model.neck", "model.auxiliary_head")  # parts that a network built here does not have
DO = "MapSage trains SegFormer; docs/guide-aerial.md says how."


def not_built(tree: Mapping[str, Any]) -> Misfit | None:
    """The first part that is not built, with the others; None where all are, or where a name may be a misspelt one."""
    others = other_parts(tree, BUILT, likeness=0.9)
    others |= {key: value_at(tree, f"{key}.type", None) or key for key in FURTHER if value_at(tree, key, None)}
    if not others:
        return None
    key, found = next(iter(others)), ", ".join(dict.fromkeys(map(str, others.values())))
    built = " or ".join(BUILT[key]) if key in BUILT else "none"
    return Misfit(key, "is of another training", f"{built}: others are not built here", found, DO)
