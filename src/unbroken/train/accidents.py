"""What is to be done when a step goes wrong, as the user said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnOom = Literal["halve", "fail"]
OnNan = Literal["stop", "rollback", "ignore"]


@dataclass(frozen=True, kw_only=True)
class Accidents:
    """What is to be done when a step goes wrong."""

    on_oom: OnOom = "halve"  # when memory runs out: do the step again in smaller parts, or end
    # when a loss or gradient is not finite: end before the step, go back to the last checkpoint and leave its samples
    # out, or go on
    on_nan: OnNan = "stop"
