"""Networks of the original and of OpenPCDet that are not built here: one sentence, not all that follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbroken.config import Misfit, other_parts, value_at

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
