"""What becomes of every tensor of a file and of a model when the one is fine-tuned from the other; as a table, too.

In the table counts come first, then the tensors that were not just loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from unbroken.quantities import some_of
from unbroken.train.pretrained.weights_file import ClassMatch, Names

Shape = tuple[int, ...]
Group = Literal["loaded", "by class name", "missing", "misfit", "unused"]
GROUPS: tuple[Group, ...] = ("loaded", "by class name", "missing", "misfit", "unused")
MOST_NAMED = 6  # of each group
MOST_BESIDE = 8
Row = tuple[str, ...]


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


def as_lines(report: WeightsReport, *, verb: str = "loaded") -> list[str]:
    """One line when everything was loaded; else a count of each group, and the first few tensors of each."""
    expected = sum(fate.group != "unused" for fate in report.fates)
    lines = [f"{len(report.names('loaded'))} of {expected} tensors {verb}"]
    others = {group: [fate for fate in report.fates if fate.group == group] for group in GROUPS[1:]}
    shown = {group: fates for group, fates in others.items() if fates}
    lines += _aligned([(f"  {group}", str(len(fates)), _meaning(group)) for group, fates in shown.items()])
    lines += [report.classes.sentence] if report.classes else []
    lines += report.notes
    if shown:
        head = ("group", "tensor", "model", "file", "why")
        lines += _aligned([head, *(row for group, fates in shown.items() for row in _rows(group, fates))])
    return lines


def beside_line(names: tuple[str, ...]) -> list[str]:
    """What else the file holds: an optimizer or averaged weights are not read."""
    return [f"beside the weights, not read: {some_of(names, MOST_BESIDE)}"] if names else []


def _meaning(group: Group) -> str:
    match group:
        case "by class name":
            return "rows of the classes that both know"
        case "missing":
            return "not in the file: keep their initial values"
        case "misfit":
            return "in both, but differ: keep their initial values"
        case "unused":
            return "not in the model: left out"
    return ""


def _rows(group: Group, fates: list[Fate]) -> list[Row]:
    rows: list[Row] = [
        (group, fate.name, _size(fate.model), _size(fate.file), _why(fate)) for fate in fates[:MOST_NAMED]
    ]
    more = len(fates) - MOST_NAMED
    return [*rows, (group, f"and {more} more")] if more > 0 else rows


def _why(fate: Fate) -> str:
    """Of a misfit alone: with the others, the group says it."""
    return fate.reason.partition(": keeps")[0] if fate.group == "misfit" else ""


def _size(shape: Shape | None) -> str:
    return "-" if shape is None else str(list(shape))


def _aligned(rows: list[Row]) -> list[str]:
    """Columns as wide as their widest cell."""
    columns = max((len(row) for row in rows), default=0)
    full = [(*row, *[""] * (columns - len(row))) for row in rows]
    widths = [max(len(row[column]) for row in full) for column in range(columns)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in full]
