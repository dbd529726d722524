"""What is to be done when a step goes wrong, as the user said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

OnOom = Literal["halve", "fail"]
OnNan = Literal["stop", "rollback", "ignore"]


@dataclass(frozen=True, kw_only=True)
class Accidents:
    """`on_oom`: when memory runs out, repeat the step in smaller parts, or end. `on_nan`: when a loss is not finite."""

    on_oom: OnOom = "halve"
    on_nan: OnNan = "stop"
