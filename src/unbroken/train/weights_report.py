"""What becomes of every tensor of a file and of a model when the one is fine-tuned from the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from unbroken.train.class_rows import ClassMatch, Names

Shape = tuple[int, ...]
Group = Literal["loaded", "by class name", "missing", "misfit", "unused"]
GROUPS: tuple[Group, ...] = ("loaded", "by class name", "missing", "misfit", "unused")


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What becomes of one tensor; the shape of a side that does not have it is None."""

    name: str
    group: Group
    model: Shape | None = None
    file: Shape | None = None
    reason: str = ""

    def as_data(self) -> dict[str, Any]:
        """JSON-able data."""
        shapes = {"model": self.model, "file": self.file}
        known = {side: list(shape) for side, shape in shapes.items() if shape is not None}
        return {"name": self.name, **known, "reason": self.reason}


@dataclass(frozen=True, kw_only=True)
class WeightsReport:
    """What becomes of every tensor, named as in the model: those of the model in its order, then the unused ones.

    `missing` ones and `misfit`s keep their initial values, and so do the rows of classes that are new.
    """

    fates: tuple[Fate, ...]
    classes: ClassMatch | None = None  # where rows were told by name
    notes: tuple[str, ...] = ()

    def names(self, group: Group) -> Names:
        """The tensors of one group."""
        return tuple(fate.name for fate in self.fates if fate.group == group)

    @property
    def fills_model(self) -> bool:
        """Whether nothing of the model keeps its initial values."""
        new = self.classes is not None and bool(self.classes.new)
        return not (self.names("missing") or self.names("misfit") or new)

    @property
    def complete(self) -> bool:
        """Whether nothing of the model keeps its initial values and nothing of the file is left out."""
        left = self.classes is not None and bool(self.classes.left)
        return self.fills_model and not (self.names("unused") or left)

    def as_data(self) -> dict[str, Any]:
        """All of it as JSON-able data, for the journal."""
        data: dict[str, Any] = {"counts": {group: len(self.names(group)) for group in GROUPS}}
        if self.classes is not None:
            data["classes"] = {"taken": self.classes.taken, "new": self.classes.new, "left": self.classes.left}
        data |= {"notes": list(self.notes), "loaded": list(self.names("loaded"))}
        for group in GROUPS[1:]:
            data[group] = [fate.as_data() for fate in self.fates if fate.group == group]
        return data
