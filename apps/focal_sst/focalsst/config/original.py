"""What the original has otherwise: the switches that AS_PUBLISHED stands for, its defaults, and what is not built here.

docs/deviations.md says of each switch what it is and how much it changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from unbroken.config import Misfit, other_parts, value_at

ENCODER, HEAD = "MODEL.BACKBONE_3D.FOCAL_ENCODER", "MODEL.DENSE_HEAD"
STEPS = "DATA_CONFIG.DATA_PROCESSOR"
MASK, VOXELS = f"{STEPS}.mask_points_and_boxes_outside_range", f"{STEPS}.transform_points_to_voxels"

# What AS_PUBLISHED stands for. A step of DATA_PROCESSOR is named by its NAME.
SWITCHES: Final[Mapping[str, Any]] = {
    "DATA_CONFIG.POINT_FEATURE_ENCODING.INTENSITY": "original",
    f"{MASK}.MASK_Z": False,
    f"{VOXELS}.OVERFLOW": "first",
    "MODEL.VFE.PADDED_ROWS": True,
    f"{ENCODER}.STRAIGHT_THROUGH": False,
    f"{ENCODER}.MAX_GROWTH": None,
    f"{ENCODER}.EDGE_CELLS": False,
    f"{ENCODER}.LOSS_CONFIG.ADD_TO_TOTAL": False,
    f"{ENCODER}.LOSS_CONFIG.BALANCED": False,
    f"{ENCODER}.LOSS_CONFIG.SUPERVISE_NEIGHBOURS": False,
    "MODEL.BACKBONE_3D.DSVT.INPUT_LAYER.paired_pos": False,
    "MODEL.MAP_TO_BEV.HEIGHT_AWARE": False,
    f"{HEAD}.HEADING": "direction",
    f"{HEAD}.POST_PROCESSING.PEAKS_ONLY": False,
    f"{HEAD}.POST_PROCESSING.NMS_CONFIG.PER_CLASS": False,
    "OPTIMIZATION.FREEZE_IN_PROJ": True,
}
# What the original takes where a file of its own leaves a key out, and a config here does not.
DEFAULTS: Final[Mapping[str, Any]] = {"DATA_CONFIG.USE_BINARY_FORMAT": False, f"{HEAD}.USE_BIAS_BEFORE_NORM": False}
# The parts by which a network is another one, and what is built of each.
BUILT = {
    "MODEL.NAME": ("CenterPoint",),
    "MODEL.VFE.NAME": ("SDAVFE", "SimpleVFE"),
    "MODEL.BACKBONE_3D.NAME": ("FocalDSVT",),
    "MODEL.MAP_TO_BEV.NAME": ("DsvtToDenseBEV",),
    "MODEL.BACKBONE_2D.NAME": ("BaseBEVBackbone",),
    "MODEL.DENSE_HEAD.NAME": ("CenterHead",),
}
STAGES = "MODEL.BACKBONE_3D.DSVT.set_info"
DO = "docs/deviations.md says what is not built; of the original's configs focal_sst.yaml is."


def with_published(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """A config with what its AS_PUBLISHED stands for, or where it says none, with the original's defaults.

    Of the latter AS_PUBLISHED is True if it sets no switch to another value, so that what is recorded reads the same.
    """
    if tree.get("AS_PUBLISHED", True) is not True:
        return tree
    said = "AS_PUBLISHED" in tree
    for key, value in (SWITCHES if said else {**SWITCHES, **DEFAULTS}).items():
        tree = _with(tree, key.split("."), value, overrule=said)
    return {**tree, "AS_PUBLISHED": not differing(tree)}


def differing(tree: Mapping[str, Any]) -> list[str]:
    """The switches that a config with all of its values sets otherwise than the original is."""
    return [key for key, value in SWITCHES.items() if _at(tree, key.split("."), value) != value]


def _at(tree: Any, path: list[str], default: Any) -> Any:
    for part in path:
        if isinstance(tree, list):
            tree = next((item for item in tree if _is_step(item, part)), None)
        elif isinstance(tree, Mapping) and part in tree:
            tree = tree[part]
        else:
            return default
    return tree


def _with(tree: Any, path: list[str], value: Any, *, overrule: bool) -> Any:
    """A copy with one value set; what has another form than a config is left for the schema to complain of."""
    head, *below = path
    if isinstance(tree, list):
        return [_with(item, below, value, overrule=overrule) if _is_step(item, head) else item for item in tree]
    if not isinstance(tree, Mapping):
        return tree
    if not below:
        return {**tree, head: value} if overrule or head not in tree else tree
    if head in ("DATA_CONFIG", "MODEL", "OPTIMIZATION") and head not in tree:
        return tree
    return {**tree, head: _with(tree.get(head, {}), below, value, overrule=overrule)}


def _is_step(item: Any, name: str) -> bool:
    return isinstance(item, Mapping) and item.get("NAME") == name


def not_built(tree: Mapping[str, Any]) -> Misfit | None:
    """The first part that is not built, with the others; None where all are, or where a name may be a misspelt one."""
    others = other_parts(tree, BUILT, likeness=0.75)
    stages = value_at(tree, STAGES)
    if isinstance(stages, list) and len(stages) > 1:
        others[STAGES] = f"DSVT in {len(stages)} stages"
    if not others:
        return None
    key, found = next(iter(others)), ", ".join(dict.fromkeys(others.values()))
    expected = "one stage: DSVT with several stages is not built here"
    if key in BUILT:
        expected = f"{' or '.join(BUILT[key])}: other parts are not built here"
    return Misfit(key, "is of another network", expected, found, DO)
