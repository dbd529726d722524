"""Every key of a sonar config with the value that it has where a file leaves it out: in the original, and here.

`python -m tests.focalsst.defaults_table` prints the table of docs/defaults-sonar.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic.fields import FieldInfo

from focalsst.config import SonarConfig
from focalsst.config.original import DEFAULTS, SWITCHES
from unbroken.config import Effect, Section
from unbroken.config.schema import effect_of_field, sections_in

# What the original's code takes for a key that is left out; a key that is in none of these must be there.
TAKEN: Mapping[str, Any] = {
    "DATA_CONFIG.USE_BINARY_FORMAT": False,
    "DATA_CONFIG.CACHE_ALL_DATA": False,
    "DATA_CONFIG.USE_DISK_CACHE": False,
    "DATA_CONFIG.MAP_CLASS_TO_KITTI": None,
    "DATA_CONFIG.DATA_PROCESSOR.mask_points_and_boxes_outside_range.MASK_Z": False,
    "DATA_CONFIG.DATA_PROCESSOR.mask_points_and_boxes_outside_range.USE_CENTER_TO_FILTER": True,
    "DATA_CONFIG.DATA_PROCESSOR.mask_points_and_boxes_outside_range.min_num_corners": 1,
    "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST.gt_sampling.LIMIT_WHOLE_SCENE": False,
    "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST.gt_sampling.USE_ROAD_PLANE": False,
    "DATA_CONFIG.DATA_AUGMENTOR.AUG_CONFIG_LIST.gt_sampling.DATABASE_WITH_FAKELIDAR": False,
    "MODEL.VFE.USE_NORM": True,
    "MODEL.VFE.USE_ABSLOTE_XYZ": True,
    "MODEL.VFE.WITH_DISTANCE": False,
    "MODEL.BACKBONE_3D.FOCAL_ENCODER.FOCAL_THRESHOLD": 0.5,
    "MODEL.BACKBONE_3D.FOCAL_ENCODER.FOCAL_TOPK": False,
    "MODEL.BACKBONE_3D.FOCAL_ENCODER.LOSS_CONFIG.LOSS_WEIGHT": 1.0,
    "MODEL.BACKBONE_3D.FOCAL_ENCODER.LOSS_CONFIG.ALPHA": 0.25,
    "MODEL.BACKBONE_3D.FOCAL_ENCODER.LOSS_CONFIG.GAMMA": 2.0,
    "MODEL.BACKBONE_3D.DSVT.reduction_type": "attention",
    "MODEL.BACKBONE_3D.DSVT.ues_checkpoint": False,
    "MODEL.DENSE_HEAD.USE_BIAS_BEFORE_NORM": False,
    "MODEL.DENSE_HEAD.UPSAMPLE": 1,
    "MODEL.DENSE_HEAD.BN_EPS": 1e-5,
    "MODEL.DENSE_HEAD.BN_MOM": 0.1,
    "MODEL.DENSE_HEAD.TARGET_ASSIGNER_CONFIG.FEATURE_MAP_STRIDE": None,
    "OPTIMIZATION.GRAD_ACCUMULATION_STEPS": 1,
    "OPTIMIZATION.LOSS_SCALE_FP16": 65536.0,
    "HOOK": None,
}
# Keys of ours, with what the original's code does there.
OURS: Mapping[str, Any] = {
    **{key: value for key, value in SWITCHES.items() if key not in TAKEN},
    "AS_PUBLISHED": True,
    "MODEL.VFE.NORMALIZE_COORDS": False,
    "MODEL.BACKBONE_3D.FOCAL_ENCODER.NUM_FILTERS": (32, 64),
    "MODEL.MAP_TO_BEV.HEIGHT_WINDOW": "not built",
    "MODEL.MAP_TO_BEV.HEIGHT_LOSS_WEIGHT": "not built",
    "MODEL.BATCH_NORM.EPS": 1e-3,
    "MODEL.BATCH_NORM.MOMENTUM": 0.01,
    "OPTIMIZATION.FP16": False,
    "OPTIMIZATION.SEED": "none",
    "OPTIMIZATION.EVAL_INTERVAL": 0,
}
# Keys that the original reads nowhere.
UNREAD = (
    "MODEL.BACKBONE_3D.FOCAL_ENCODER.NAME",
    "MODEL.BACKBONE_3D.DSVT.NAME",
    "MODEL.DENSE_HEAD.CLASS_AGNOSTIC",
    "MODEL.DENSE_HEAD.SEPARATE_HEAD_CFG.HEAD_ORDER",
    "MODEL.POST_PROCESSING.SCORE_THRESH",
    "MODEL.POST_PROCESSING.OUTPUT_RAW_SCORE",
    "OPTIMIZATION.MOMENTUM",
    "OPTIMIZATION.LR_WARMUP",
    "OPTIMIZATION.WARMUP_EPOCH",
    "OPTIMIZATION.LR_DECAY",
    "OPTIMIZATION.LR_CLIP",
)


def leaves(schema: type[Section], under: str = "") -> Iterator[tuple[str, FieldInfo, Effect]]:
    """Every key that holds a value, with its field and its effect; a step or an augmentation is named by its NAME."""
    for name, info in schema.model_fields.items():
        key, effect = f"{under}{name}", effect_of_field(info)
        sections = sections_in(info.annotation)
        if not sections or name in ("set_info", "CLASS_NAMES"):
            if not (sections_named(schema) and name == "NAME"):
                yield key, info, effect or Effect.MEANING
            continue
        for section in sections:
            yield from leaves(section, f"{key}.{sections_named(section)}" if sections_named(section) else f"{key}.")


def sections_named(schema: type[Section]) -> str:
    """`gt_sampling.` for a section that its NAME tells apart from others."""
    info = schema.model_fields.get("NAME")
    words = get_args(info.annotation) if info else ()
    return f"{words[0]}." if words and isinstance(words[0], str) else ""


def default_of(info: FieldInfo) -> Any:
    return "required" if info.is_required() else info.get_default(call_default_factory=True)


def shown(value: Any) -> str:
    """As YAML has it."""
    if isinstance(value, Section):
        return ", ".join(shown(getattr(value, name)) for name in type(value).model_fields)
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    return "null" if value is None else str(value)


def table() -> list[tuple[str, str, str, str, str]]:
    """Key, original, here for a file of the original, here with AS_PUBLISHED: False, effect."""
    rows = []
    for key, info, effect in leaves(SonarConfig):
        there = shown(TAKEN[key]) if key in TAKEN else shown(OURS[key]) if key in OURS else "required"
        here = default_of(info)
        like = {**SWITCHES, **DEFAULTS}.get(key, here)
        repaired = False if key == "AS_PUBLISHED" else here
        mark = " (ours)" if key in OURS else ""
        there = "not read" if key in UNREAD else f"{there}{mark}"
        rows.append((key, there, shown(like), shown(repaired), str(effect)))
    return rows


def lines() -> list[str]:
    """The table as the page has it."""
    return [f"| `{key}` | " + " | ".join(cell.replace("|", "/") for cell in cells) + " |" for key, *cells in table()]


if __name__ == "__main__":
    print("\n".join(lines()))
