"""What became of a file's weights, as a table for the log: counts first, then the tensors that were not just loaded."""

from __future__ import annotations

from unbroken.quantities import some_of
from unbroken.train.weights_report import GROUPS, Fate, Group, Shape, WeightsReport

MOST_NAMED = 6  # of each group
MOST_BESIDE = 8
Row = tuple[str, ...]


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
