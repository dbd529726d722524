"""How the tensors of a file compare with those of the model that a config builds: by name and shape, as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MOST_NAMED = 4  # tensors that a person is shown


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Names of tensors as the model spells them; `misfit` says both shapes.

    `tensors` are those of the model; `missing` has the file not, `unused` has only the file; `remarks` are sentences
    on what fits in another way than by shape.
    """

    tensors: int
    misfit: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor of either side has its counterpart."""
        return not (self.misfit or self.missing or self.unused)

    def as_data(self) -> dict[str, Any]:
        """JSON-able data."""
        return {**asdict(self), "complete": self.complete}

    def as_words(self) -> str:
        """How many tensors would not fit."""
        if self.complete:
            return f"all {self.tensors} tensors fit by name and shape"
        counts = {
            "of another shape": len(self.misfit),
            "not in the file": len(self.missing),
            "only in the file": len(self.unused),
        }
        unfit = len(self.misfit) + len(self.missing)
        parts = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
        return f"{unfit} of {self.tensors} tensors would not fit ({parts})"

    def examples(self) -> list[str]:
        """The first of the tensors that would not fit, and how many more there are."""
        unfit = [
            *self.misfit,
            *(f"{name} is not in the file" for name in self.missing),
            *(f"{name} is only in the file" for name in self.unused),
        ]
        more = len(unfit) - MOST_NAMED
        return [*unfit[:MOST_NAMED], *([f"and {more} more (all: --json)"] if more > 0 else [])]
