"""How the schedule of a finished run goes on when the run is made longer: the mathematics, for any schedule.

The *seam* is the number of steps done when the run was extended. At each later step a value (a learning rate, a
momentum) is a mixture of the one that the old schedule had come to at the seam, and of one that the present config's
own schedule has at some step of its own. Which step that is, and how much of each, is all a policy says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

Policy = Literal["rewarm", "stretch", "hold", "restart"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
USUAL: Policy = "rewarm"
WARMUP_SHARE = 0.05  # of the added steps: enough for Adam's moments to follow, too short to be missed by the training


@dataclass(frozen=True, kw_only=True)
class Blend:
    """Where a step of an extension stands, between the value at the seam and the schedule of the present config.

    Args:
        share: How much the value at the seam counts, 0 to 1; the rest is the schedule's.
        step: Where in the schedule the other value is taken.
    """

    share: float
    step: int

    def mix(self, start: float, new: float) -> float:
        """Return the two values in their shares; each of them alone to the last bit.

        Args:
            start: The value at the seam.
            new: The schedule's value at `step`.
        """
        if self.share == 0:
            return new
        return start if self.share == 1 else self.share * start + (1 - self.share) * new


@dataclass(frozen=True, kw_only=True)
class Extension:
    """One decided extension of a finished run.

    `stretch` takes the longer schedule where it is. `rewarm` does so after `warmup_steps` steps on a straight line from
    the value at the seam. `hold` keeps the value at the seam. `restart` runs through the whole schedule once more in
    the added steps.

    Args:
        policy: Which of the four.
        seam: Steps done when the run was extended.
        total: Steps at the new end.
        warmup_steps: How long `rewarm` warms up, counted from the seam.
        cycle_steps: How many steps the whole schedule takes, for `restart`.
        lr: The (first) learning rate at the seam.
    """

    policy: Policy
    seam: int
    total: int
    warmup_steps: int
    cycle_steps: int
    lr: float

    def place(self, step: int) -> Blend:
        """Return where the next step stands.

        Args:
            step: Steps done, the seam or later.
        """
        done = step - self.seam
        match self.policy:
            case "hold":
                return Blend(share=1.0, step=self.seam)
            case "rewarm" if done < self.warmup_steps:
                share = 1.0 - (done + 1) / (self.warmup_steps + 1)
                return Blend(share=share, step=self.seam + self.warmup_steps)
            case "restart":
                last = max(1, self.total - self.seam - 1)
                return Blend(share=0.0, step=min(self.cycle_steps, done * (self.cycle_steps - 1) // last))
        return Blend(share=0.0, step=step)

    def value_at(self, step: int, *, start: float, scheduled: Callable[[int], float]) -> float:
        """Return the value that the next step uses: a learning rate, a momentum.

        Args:
            step: Steps done, the seam or later.
            start: The value at the seam.
            scheduled: Gives the value that the present config's own schedule has after so many steps.
        """
        place = self.place(step)
        return place.mix(start, scheduled(place.step))

    def as_plain(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_plain(cls, data: object) -> Extension | None:
        """Return what `as_plain` gave.

        Args:
            data: Anything that a file holds there; None comes of what is no extension, such as an older version wrote.
        """
        names = {item.name for item in fields(cls)}
        if not isinstance(data, Mapping) or not names <= data.keys() or data["policy"] not in POLICIES:
            return None
        counts = [data[name] for name in ("seam", "total", "warmup_steps", "cycle_steps")]
        whole = all(isinstance(value, int) and value >= 0 for value in counts)
        return cls(**{name: data[name] for name in names}) if whole and isinstance(data["lr"], int | float) else None


def warmup_of(added: int) -> int:
    """How many of the added steps a warm-up takes; at least one is left for the schedule."""
    return min(max(1, round(WARMUP_SHARE * added)), added - 1)


def cycle_of(lr_at: Callable[[int], float], total: int) -> int:
    """How many steps a schedule takes until it stays at its last value."""
    step = total
    while step > 1 and lr_at(step - 2) == lr_at(total - 1):
        step -= 1
    return step
