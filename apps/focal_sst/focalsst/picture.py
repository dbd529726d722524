"""Pictures: frames from above and from the side, with true boxes and detections.

From above x, forward, points to the right and y, left, points up; from the side z points up.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon, Rectangle
from numpy.typing import NDArray

from focalsst.geometry import corners_bev
from focalsst.metrics import Detections, Labels
from unbroken import Disk, write_whole
from unbroken.errors import UsageError

Numbers = NDArray[np.floating[Any]]

DPI: Final = 110
WIDTH_IN: Final = 15.0
SMALL_IN, SMALL_DPI = 7.68, 100  # 768 px
PAPER, INK, GRID = "#101826", "#e6edf3", "#2b3a4f"
TRUE, FOUND = "#39d98a", "#ff9f1c"
CLASS_COLOURS: Final = ("#ff9f1c", "#ff5fa2", "#4cc9f0", "#c77dff")  # of detections, by the order of the classes
OUTLINE: Final = [patheffects.withStroke(linewidth=2.5, foreground=PAPER)]
SHADES: Final = LinearSegmentedColormap.from_list("echoes", ["#2c3f86", "#4d7fc4", "#9cc3ea", "#f4f8ff"])
MARGIN_M: Final = 1.0
LABEL_POINTS: Final = 8.0
POINTS_PER_IN: Final = 72.0


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameView:
    """One frame to be drawn: points (N, 4) of x, y, z and intensity, and what is known and was found there."""

    points: Numbers
    truth: Labels | None = None
    detections: Detections | None = None

    @property
    def title(self) -> str:
        """Which frame it is, and how many objects it has."""
        known = [side.frame_id for side in (self.truth, self.detections) if side is not None]
        words = [f"frame {known[0]}"] if known else []
        words += [f"{len(self.truth.names)} true"] if self.truth is not None else []
        words += [f"{len(self.detections.names)} found"] if self.detections is not None else []
        return ", ".join(words)


def draw_scenes(views: Sequence[FrameView], path: Path, *, least_score: float = 0.0) -> None:
    """Draw frames as a PNG, one row each: from above, and from the side; detections below `least_score` are left out.

    The points of all frames and their boxes are shown, coloured by their height.
    """
    if not views:
        raise UsageError(path, "there is no frame to draw")
    views = [_with_sure_ones(view, least_score) for view in views]
    low, high = _extent(views)
    size = np.maximum(high - low, 1e-3)
    width_in = (WIDTH_IN - 2.2) / 2
    row_in = max(width_in * float(max(size[1], size[2]) / size[0]), 1.5) + 0.65
    figure = Figure(figsize=(WIDTH_IN, row_in * len(views) + 0.6), layout="constrained", facecolor=PAPER)
    panels = figure.subplots(len(views), 2, squeeze=False)
    shades = [view.points[:, 2] for view in views]
    limits = _limits(shades)
    classes = sorted({name for view in views if view.detections for name in view.detections.names})
    dot = float(np.clip(12_000 / max(max(len(view.points) for view in views), 1), 0.5, 5.0))  # points squared
    metres_per_point = float(size[0]) / (width_in * POINTS_PER_IN)
    for row, view, shade in zip(panels, views, shades, strict=True):
        for axes, other, what in ((row[0], 1, "y, left (m)"), (row[1], 2, "z, up (m)")):
            dots = _draw_points(axes, view.points[:, 0], view.points[:, other], shade, size=dot, limits=limits)
            _style(axes, what, low=(low[0], low[other]), high=(high[0], high[other]))
            _draw_boxes(axes, view, classes, from_above=other == 1, metres_per_point=metres_per_point)
        row[0].set_title(f"{view.title}: from above", color=INK, fontsize=11, loc="left")
        row[1].set_title("from the side", color=INK, fontsize=11, loc="left")
    bar = figure.colorbar(dots, ax=panels, fraction=0.015, pad=0.01, panchor=False)
    bar.set_label("z (m)", color=INK)
    bar.ax.tick_params(colors=INK)
    bar.outline.set_edgecolor(GRID)
    _legend(figure, classes)
    write_whole(Disk(), path, _png(figure, DPI))


def _draw_points(
    axes: Axes, x_N: Numbers, y_N: Numbers, shade_N: Numbers, *, size: float, limits: tuple[float, float]
) -> PathCollection:
    """The echoes, each in its shade."""
    low, high = limits
    return axes.scatter(
        x_N, y_N, c=shade_N, s=size, cmap=SHADES, vmin=low, vmax=high, linewidths=0, alpha=0.85, rasterized=True
    )


def from_above_png(view: FrameView, *, least_score: float = 0.0, most_found: int = 50) -> bytes:
    """One frame from above as a PNG of at most 768 px; of many detections the best."""
    view = _with_sure_ones(view, least_score, most=most_found)
    low, high = _extent([FrameView(points=view.points, truth=view.truth)])  # the same at each evaluation
    size = np.maximum(high - low, 1e-3)
    width_in = SMALL_IN - 0.7
    height_in = min(width_in * float(size[1] / size[0]) + 1.4, SMALL_IN)
    figure = Figure(figsize=(SMALL_IN, height_in), layout="constrained", facecolor=PAPER)
    axes = figure.subplots()
    shades = view.points[:, 2]
    limits, classes = _limits([shades]), sorted(set(view.detections.names if view.detections else ()))
    dot = float(np.clip(6_000 / max(len(view.points), 1), 0.5, 5.0))
    _draw_points(axes, view.points[:, 0], view.points[:, 1], shades, size=dot, limits=limits)
    _style(axes, "y, left (m)", low=(low[0], low[1]), high=(high[0], high[1]))
    _draw_boxes(axes, view, classes, from_above=True, metres_per_point=float(size[0]) / (width_in * POINTS_PER_IN))
    axes.set_title(view.title, color=INK, fontsize=10, loc="left")
    _legend(figure, classes, columns=3)
    return _png(figure, SMALL_DPI)


def _draw_boxes(
    axes: Axes, view: FrameView, classes: Sequence[str], *, from_above: bool, metres_per_point: float
) -> None:
    taken: list[tuple[float, float, float, float]] = []
    if view.truth is not None:
        for name, box, outline in _outlines(view.truth.names, view.truth.boxes_N7, from_above=from_above):
            axes.add_patch(Polygon(outline, facecolor=TRUE, alpha=0.18, linewidth=0, zorder=3))
            axes.add_patch(Polygon(outline, fill=False, edgecolor=TRUE, linewidth=2.4, zorder=4))
            if from_above:
                outline = np.concatenate([outline, _arrow(axes, box, TRUE)])
            _label(axes, name, outline, TRUE, taken, metres_per_point, upward=False)
    if view.detections is None:
        return
    found = view.detections
    for number, (name, box, outline) in enumerate(_outlines(found.names, found.boxes_N7, from_above=from_above)):
        score, colour = float(found.scores_N[number]), _colour_of(name, classes)
        alpha = 0.45 + 0.55 * min(max(score, 0.0), 1.0)
        axes.add_patch(
            Polygon(
                outline, fill=False, linewidth=1.8, linestyle=(0, (4, 1.6)), zorder=5, edgecolor=colour, alpha=alpha
            )
        )
        if from_above:
            outline = np.concatenate([outline, _arrow(axes, box, colour)])
        _label(axes, f"{name} {score:.2f}", outline, colour, taken, metres_per_point, upward=True)


def _outlines(names: Sequence[str], boxes_N7: Numbers, *, from_above: bool) -> Iterator[tuple[str, Numbers, Numbers]]:
    """Each object with its box and its outline (4, 2); a box with a number that is not finite has none."""
    for name, box in zip(names, boxes_N7, strict=True):
        if not np.isfinite(box).all():
            continue
        footprint = corners_bev(box[None])[0]
        if from_above:
            yield name, box, footprint
        else:
            x = (footprint[:, 0].min(), footprint[:, 0].max())
            z = (box[2] - box[5] / 2, box[2] + box[5] / 2)
            yield name, box, np.array([[x[0], z[0]], [x[1], z[0]], [x[1], z[1]], [x[0], z[1]]])


def _arrow(axes: Axes, box: Numbers, colour: str) -> Numbers:
    """Draw the heading, from the centre to a little beyond the face; returns where it ends (1, 2)."""
    direction = np.array([np.cos(box[6]), np.sin(box[6])])
    tip = box[:2] + direction * (box[3] / 2 + 0.7)
    style = {"arrowstyle": "-|>,head_length=0.5,head_width=0.25", "color": colour, "linewidth": 1.6}
    ends = {"shrinkA": 0, "shrinkB": 0, "mutation_scale": 10}
    axes.annotate("", xy=tuple(tip), xytext=tuple(box[:2]), arrowprops=style | ends, zorder=6)
    return np.asarray(tip[None])


def _label(
    axes: Axes,
    text: str,
    outline: Numbers,
    colour: str,
    taken: list[tuple[float, float, float, float]],
    metres_per_point: float,
    *,
    upward: bool,
) -> None:
    """Write beside a box, above or below it, and further off where a label stands already."""
    height = 1.2 * LABEL_POINTS * metres_per_point
    width = 0.62 * LABEL_POINTS * len(text) * metres_per_point
    left = float(outline[:, 0].mean()) - width / 2
    step = height if upward else -height
    bottom = float(outline[:, 1].max()) + 0.2 * height if upward else float(outline[:, 1].min()) - 1.2 * height
    while any(left < r and left + width > a and bottom < t and bottom + height > b for a, b, r, t in taken):
        bottom += step / 4
    taken.append((left, bottom, left + width, bottom + height))
    axes.text(
        left + width / 2,
        bottom + height / 2,
        text,
        color=colour,
        fontsize=LABEL_POINTS,
        ha="center",
        va="center",
        zorder=7,
        clip_on=True,
        path_effects=OUTLINE,
        fontweight="bold",
    )


def _style(axes: Axes, what: str, *, low: tuple[float, float], high: tuple[float, float]) -> None:
    axes.set_facecolor(PAPER)
    axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), aspect="equal")
    axes.set_xlabel("x, forward (m)", color=INK)
    axes.set_ylabel(what, color=INK)
    axes.tick_params(colors=INK)
    axes.set_anchor("N")
    axes.grid(color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.plot(0, 0, ">", color=INK, markersize=9, clip_on=False, zorder=8)
    for spine in axes.spines.values():
        spine.set_color(GRID)


def _legend(figure: Figure, classes: Sequence[str], *, columns: int | None = None) -> None:
    handles: list[Any] = [
        Line2D([], [], color=INK, marker=">", linestyle="", markersize=9, label="sonar"),
        Patch(facecolor=f"{TRUE}30", edgecolor=TRUE, linewidth=2.4, label="true box"),
    ]
    handles += [
        Rectangle((0, 0), 1, 1, fill=False, linestyle="--", linewidth=1.8, ec=_colour_of(name, classes), label=words)
        for name in classes
        for words in (f"found: {name}, with score",)
    ]
    legend = figure.legend(
        handles=handles, loc="outside upper center", ncols=columns or len(handles), frameon=False, fontsize=10
    )
    for text in legend.get_texts():
        text.set_color(INK)


def _with_sure_ones(view: FrameView, least_score: float, *, most: int | None = None) -> FrameView:
    found = view.detections
    if found is None:
        return view
    sure = np.flatnonzero(found.scores_N >= least_score)
    kept = sure[np.argsort(-found.scores_N[sure], kind="stable")][:most].tolist()
    drawn = Detections(
        frame_id=found.frame_id,
        names=[found.names[row] for row in kept],
        boxes_N7=found.boxes_N7[kept],
        scores_N=found.scores_N[kept],
    )
    return FrameView(points=view.points, truth=view.truth, detections=drawn)


def _extent(views: Sequence[FrameView]) -> tuple[Numbers, Numbers]:
    """What holds the sensor, nearly all points (a few stray echoes would shrink the rest) and every true box."""
    spots = [np.zeros((1, 3))]
    for view in views:
        if len(view.points):
            spots.append(np.percentile(view.points[:, :3], (0.2, 99.8), axis=0))
        boxes = view.truth.boxes_N7 if view.truth is not None else np.zeros((0, 7))
        reach = np.hypot(boxes[:, 3], boxes[:, 4])[:, None] / 2 + MARGIN_M
        spots += [boxes[:, :3] - reach, boxes[:, :3] + reach]
    every = np.concatenate(spots)
    return every.min(axis=0) - MARGIN_M, every.max(axis=0) + MARGIN_M


def _limits(shades: Sequence[Numbers]) -> tuple[float, float]:
    every = np.concatenate(shades)
    if not len(every):
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(every, (1, 99)))
    return low, max(high, low + 1e-3)


def _colour_of(name: str, classes: Sequence[str]) -> str:
    return CLASS_COLOURS[classes.index(name) % len(CLASS_COLOURS)]


def _png(figure: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()
