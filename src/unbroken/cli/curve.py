"""The learning rate as a picture: of letters at a terminal, or as a PNG file."""

from __future__ import annotations

from pathlib import Path

from unbroken.errors import UsageError
from unbroken.launch.schedule import Points, Rates

COLUMNS, ROWS = 64, 9
DONE, AHEAD = ".", "#"


def as_letters(rates: Rates) -> list[str]:
    """A plot of letters: the rates that were used, and those to come."""
    points = rates.all
    if not points:
        return []
    last, top = points[-1][0], max(rate for _, rate in points)
    grid = [[" "] * COLUMNS for _ in range(ROWS)]
    for letter, part in ((DONE, rates.done), (AHEAD, rates.ahead)):
        for step, rate in part:
            column = (step - 1) * (COLUMNS - 1) // max(last - 1, 1)
            row = round(rate / top * (ROWS - 1)) if top else 0
            grid[ROWS - 1 - row][column] = letter
    labels = [f"{top:.3g}", *[""] * (ROWS - 2), "0"]
    width = max(map(len, labels))
    lines = [f"  {label:>{width}} |{''.join(row).rstrip()}" for label, row in zip(labels, grid)]
    legend = f"{DONE} was used, {AHEAD} to come" if rates.done and rates.ahead else "by step"
    axis = f"1{last:>{COLUMNS - 1}}"
    return [f"  learning rate ({legend})", *lines, f"  {'':>{width}}  {axis}"]


def write_picture(rates: Rates, file: Path, *, title: str) -> None:
    """Draw the same into a PNG (or whatever the name of the file says)."""
    from matplotlib.figure import Figure  # half a second, and only wanted here

    figure = Figure(figsize=(9, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot(xlabel="step", ylabel="learning rate", title=title)
    if rates.done:
        axes.plot(*_columns(rates.done), color="#6b7280", label="was used")
    if rates.ahead:
        axes.plot(*_columns(rates.ahead), color="#d9480f", label="to come")
    if rates.done and rates.ahead:
        axes.axvline(rates.ahead[0][0], color="#9ca3af", linestyle=":", label="the next step")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.legend()
    try:
        figure.savefig(file)
    except (OSError, ValueError) as error:
        raise UsageError(
            file, f"the picture cannot be written ({error})", expected="a .png, .svg or .pdf in a folder that exists"
        ) from error


def _columns(points: Points) -> tuple[list[int], list[float]]:
    return [step for step, _ in points], [rate for _, rate in points]
