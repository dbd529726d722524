"""The plots of the page as data for plotly.js: one per curve, with every run, its sessions, rewinds and lost tails."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from unbroken.report.compare import RunComparison
from unbroken.report.curves import Column
from unbroken.report.page.words import for_plot, word
from unbroken.report.run_facts import RunFacts
from unbroken.report.segments import RunCurves, Segment

MOST = 2000  # points of a drawn curve
SMOOTHED = 500  # points of a smoothed one
WINDOW_SHARE = 0.04  # of all points, that one smoothed point is the mean of
FEWEST_TO_SMOOTH = 60

Points = tuple[list[int], list[float | None]]  # steps and values; None is a gap


@dataclass(frozen=True, kw_only=True)
class DrawnCurve:
    """A curve as it is drawn."""

    steps: list[int]
    values: list[float | None]
    not_finite: list[int]  # steps of values that are not finite, at most one of a stretch
    of: int  # points there were


def decimate(column: Column, most: int = MOST) -> DrawnCurve:
    """All points where they are few enough; else the smallest and the largest of each of equal stretches."""
    count = len(column)
    if count <= most:
        pieces: Iterator[tuple[int, int]] = ((place, place + 1) for place in range(count))
    else:
        stretches = most // (2 if math.isfinite(sum(column.values)) else 3)
        pieces = ((count * k // stretches, count * (k + 1) // stretches) for k in range(stretches))
    steps: list[int] = []
    values: list[float | None] = []
    gaps: list[int] = []
    for begin, end in pieces:
        for place, value in _extremes(column.values[begin:end]):
            steps.append(column.steps[begin + place])
            values.append(None if value is None else rounded(value))
            if value is None:
                gaps.append(steps[-1])
    return DrawnCurve(steps=steps, values=values, not_finite=gaps, of=count)


def _extremes(values: array[float]) -> list[tuple[int, float | None]]:
    """The smallest and the largest at their places, in order, and the first place that is not finite."""
    found: dict[int, float | None] = {}
    usable: Sequence[float] = values
    if not math.isfinite(sum(values)):
        usable = [value for value in values if math.isfinite(value)]
        if len(usable) < len(values):
            found[next(place for place, value in enumerate(values) if not math.isfinite(value))] = None
    if usable:
        for extreme in (min(usable), max(usable)):
            found.setdefault(values.index(extreme), extreme)
    return sorted(found.items())


def smoothed(column: Column) -> Points | None:
    """The mean of the values around each of equally spaced points; None where there are too few to smooth."""
    finite = math.isfinite(sum(column.values))
    kept = column if finite else _finite(column)
    count = len(kept)
    if count < FEWEST_TO_SMOOTH:
        return None
    half = max(1, round(count * WINDOW_SHARE / 2))
    sums = array("d", accumulate(kept.values, initial=0.0))
    places = sorted({(count - 1) * k // (SMOOTHED - 1) for k in range(SMOOTHED)})
    means: list[float | None] = []
    for place in places:
        begin, end = max(place - half, 0), min(place + half + 1, count)
        mean = (sums[end] - sums[begin]) / (end - begin)
        means.append(rounded(mean) if math.isfinite(mean) else None)  # the sum of huge values may not be
    return [kept.steps[place] for place in places], means


def _finite(column: Column) -> Column:
    kept = Column()
    for step, value in zip(column.steps, column.values):
        if math.isfinite(value):
            kept.add(step, value)
    return kept


def rounded(value: float) -> float:
    """Six significant digits: more than a screen has."""
    return float(f"{value:.6g}")


# -- plots -------------------------------------------------------------------------------------------------------------


# Told apart by people who see few colours, and readable on white and on black; then again, dashed.
COLOURS = ("#2f7ed8", "#e8710a", "#1a9e77", "#c0399f", "#8b6ce0", "#b8860b", "#d43d51", "#0e9aa7")
DASHES = ("solid", "dash", "dot", "dashdot")
GREY = "#868c93"
FIRST_PLOTS = ("loss", "lr")
MOST_PLOTS = 40
MOST_LABELS = 8  # rewinds that are labelled; more are told apart by pointing at them
LAYERS = ("raw", "discarded", "kept", "smooth")  # from below; signs lie above all lines
Trace = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One plot: its name, its traces (each says in `run` whose it is), and what signs are used in it."""

    name: str
    traces: tuple[Trace, ...]
    signs: tuple[str, ...]
    points: int  # there were, where not all of them are drawn; else 0
    open: bool  # shown at once
    evaluation: bool


def colour_of(place: int) -> str:
    """The colour of the run at a place."""
    return COLOURS[place % len(COLOURS)]


def plots_of(found: RunComparison, facts: Sequence[RunFacts], language: str) -> Iterator[Plot]:
    """The metric that decides first, then loss and learning rate, then everything else that the runs recorded."""
    artist = Artist(found, facts, language)
    evaluated = list(dict.fromkeys(name for run in facts for name in run.curves.evaluations))
    recorded = list(dict.fromkeys(name for run in facts for name in run.curves.values))
    first = [name for name in FIRST_PLOTS if name in recorded]
    main = [found.metric] if found.metric in evaluated else []
    order = [(name, True) for name in main] + [(name, False) for name in first]
    order += [(name, True) for name in evaluated if name not in main]
    order += [(name, False) for name in recorded if name not in first]
    for place, (name, evaluation) in enumerate(order[:MOST_PLOTS]):
        plot = artist.plot(name, evaluation=evaluation, is_open=place < len(main) + len(first))
        if plot.traces:
            yield plot


@dataclass
class Artist:
    """Draws one curve of all runs after the other."""

    found: RunComparison
    facts: Sequence[RunFacts]
    language: str

    def plot(self, name: str, *, evaluation: bool, is_open: bool) -> Plot:
        """One plot."""
        traces: list[Trace] = []
        signs: list[str] = []
        points = 0
        for place, run in enumerate(self.facts):
            segments = (run.curves.evaluations if evaluation else run.curves.values).get(name, ())
            kept = joined([segment for segment in segments if segment.kept])
            drawn, used = self._run(place, run, name, segments, kept, evaluation=evaluation)
            traces += drawn
            signs += used
            points = max(points, len(kept) if len(kept) > MOST else 0)
        traces.sort(key=lambda trace: LAYERS.index(trace["kind"]) if trace["kind"] in LAYERS else len(LAYERS))
        order = ("smooth", "raw", "best", "session", "rewind", "discarded", "nan")
        used_signs = tuple(sign for sign in order if sign in signs)
        return Plot(
            name=name, traces=tuple(traces), signs=used_signs, points=points, open=is_open, evaluation=evaluation
        )

    def _run(
        self, place: int, run: RunFacts, name: str, segments: Sequence[Segment], kept: Column, *, evaluation: bool
    ) -> tuple[list[Trace], list[str]]:
        line = Line(place, for_plot(self.found.runs[place].label), self.language)
        lost = [segment for segment in segments if not segment.kept]
        tails = [line.discarded(lost, evaluation=evaluation)] if lost else []
        signs = ["discarded"] if lost else []
        mean = None if evaluation or name == "lr" else smoothed(kept)
        traces = [*tails, *line.kept(kept, mean, evaluation=evaluation)]
        signs += ["smooth", "raw"] if mean is not None else []
        shown: Points = mean or (list(kept.steps), list(kept.values))
        if not evaluation and name in FIRST_PLOTS and shown[0]:
            begins = line.begins(run.curves, shown)
            falls = line.rewinds(run.curves, lost, labelled=mean is None)
            traces += [*begins, *falls]
            signs += ["session"] * bool(begins) + ["rewind"] * bool(falls)
        best = self.found.runs[place].best
        if evaluation and name == self.found.metric and best is not None:
            traces.append(line.best(best.step, best.value))
            signs.append("best")
        broken = decimate(kept).not_finite
        if broken:
            traces.append(line.not_finite(broken, shown))
            signs.append("nan")
        return traces, signs


@dataclass(frozen=True)
class Line:
    """The traces of one run."""

    place: int
    label: str
    language: str

    @property
    def _stroke(self) -> dict[str, Any]:
        dash = DASHES[self.place // len(COLOURS) % len(DASHES)]
        return {"color": colour_of(self.place), "width": 2, "dash": dash}

    def kept(self, kept: Column, mean: Points | None, *, evaluation: bool) -> list[Trace]:
        """The final history: the raw curve, faint where a smoothed one lies over it."""
        if not len(kept):
            return []
        drawn = decimate(kept)
        raw = self._trace("kept", drawn.steps, drawn.values, line=self._stroke)
        if evaluation or len(kept) == 1:
            raw |= {"mode": "lines+markers", "marker": {"size": 6, "color": colour_of(self.place)}}
        if mean is None:
            return [raw]
        raw |= {"line": {**self._stroke, "width": 1}, "opacity": 0.28, "hoverinfo": "skip", "kind": "raw"}
        return [raw, self._trace("smooth", *mean, line=self._stroke)]

    def discarded(self, lost: Sequence[Segment], *, evaluation: bool) -> Trace:
        """What a resume discarded, in grey, each tail on its own."""
        steps: list[int] = []
        values: list[float | None] = []
        for segment in lost:
            drawn = decimate(segment.points, max(MOST // len(lost) - 1, 2))
            steps += [*drawn.steps, drawn.steps[-1]]
            values += [*drawn.values, None]
        line = {"color": GREY, "width": 1.5 if evaluation else 1, "dash": "dot" if evaluation else "solid"}
        trace = self._trace("discarded", steps, values, line=line, hoverinfo="skip", opacity=0.7)
        return trace | ({"mode": "lines+markers", "marker": {"size": 5, "color": GREY}} if evaluation else {})

    def begins(self, curves: RunCurves, shown: Points) -> list[Trace]:
        """A ring on the curve where a session that is part of the final history goes on."""
        kept = [s for s in curves.sessions if s.kept_to is not None and s.base > 0]
        texts = [word("begin tip", self.language, name=for_plot(s.name), step=s.base) for s in kept]
        return self._marks(
            "session", [s.base for s in kept], [_near(shown, s.base) for s in kept], texts, "circle-open"
        )

    def rewinds(self, curves: RunCurves, lost: Sequence[Segment], *, labelled: bool) -> list[Trace]:
        """A cross at the end of each discarded tail, with words where they can be read."""
        found: list[tuple[int, float, str, str]] = []
        for rewind in curves.rewinds:
            tail = next((s.points for s in lost if s.session == rewind.lost_by), None)
            if tail is not None and math.isfinite(tail.values[-1]):
                text = word("rewind tip", self.language, reached=rewind.reached, back=rewind.back_to)
                found.append((tail.steps[-1], tail.values[-1], text, f"{rewind.reached} → {rewind.back_to}"))
        steps, values = [item[0] for item in found], [item[1] for item in found]
        tips, labels = [item[2] for item in found], [item[3] for item in found]
        marks = self._marks("rewind", steps, values, tips, "x-thin-open")
        words: Trace = {"mode": "markers+text", "text": labels, "textposition": "top center"}
        for mark in marks:
            mark["textfont"] = {"color": GREY, "size": 10}
            mark |= words if labelled and len(found) <= MOST_LABELS else {}
        return marks

    def best(self, step: int, value: float) -> Trace:
        """A star at the best evaluation."""
        marker = {"symbol": "star", "size": 14, "color": colour_of(self.place), "line": {"width": 1, "color": "#fff"}}
        return self._trace("best", [step], [value], mode="markers", marker=marker, hoverinfo="skip")

    def not_finite(self, steps: Sequence[int], shown: Points) -> Trace:
        """Where values are not numbers: a gap has no height, so the mark is put at that of the curve beside it."""
        texts = [word("nan tip", self.language, step=step) for step in steps]
        heights = [_near(shown, step) for step in steps]
        return self._marks("nan", steps, heights, texts, "x")[0]

    def _marks(
        self, kind: str, steps: Sequence[int], values: Sequence[float], texts: Sequence[str], symbol: str
    ) -> list[Trace]:
        if not steps:
            return []
        colour = GREY if kind == "rewind" else colour_of(self.place)
        marker = {"symbol": symbol, "size": 9, "color": colour, "line": {"width": 2, "color": colour}}
        return [
            self._trace(kind, steps, values, mode="markers", marker=marker, hovertext=list(texts), hoverinfo="text")
        ]

    def _trace(self, kind: str, steps: Sequence[int], values: Sequence[float | None], **more: Any) -> Trace:
        return {
            "type": "scatter",
            "mode": "lines",
            "name": self.label,
            "run": self.place,
            "kind": kind,
            "x": list(steps),
            "y": list(values),
            "showlegend": False,
            **more,
        }


def reach_of(facts: Sequence[RunFacts]) -> int:
    """The last step that any of the runs did."""
    done = (session.last for run in facts for session in run.curves.sessions)
    return max([1, *done, *(run.summary.step for run in facts)])


def joined(segments: Sequence[Segment]) -> Column:
    """Segments one after the other, as one curve."""
    whole = Column()
    for segment in segments:
        whole.extend(segment.points.steps, segment.points.values)
    return whole


def _near(shown: Points, step: int) -> float:
    """The height of a curve nearest to a step."""
    pairs = [(abs(place - step), value) for place, value in zip(*shown) if value is not None and math.isfinite(value)]
    return min(pairs)[1] if pairs else 0.0
