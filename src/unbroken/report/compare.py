"""Runs side by side: what they came to, what it took, and what was different about them; a pure function of facts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbroken.config import Difference, differences, nearest
from unbroken.errors import UsageError
from unbroken.report.notes import Note, notes_on
from unbroken.report.run_facts import RunFacts
from unbroken.run.history import Score
from unbroken.run.summary import Summary

SMALLER_IS_BETTER = ("loss", "err", "mae", "mse", "perplexity", "ppl")  # in the name of a metric
TELLING = ("miou", "map", "iou", "score", "f1", "acc")  # in the name, the first one first
LONGEST_LABEL = 60
LAST_LOSSES = 50  # steps over which the loss at the end is averaged


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One run in a comparison."""

    label: str
    summary: Summary
    best: Score | None  # by the metric of the comparison
    at_best: Mapping[str, float] = field(default_factory=dict)
    at_last: Mapping[str, float] = field(default_factory=dict)
    last_step: int | None = None  # of the last evaluation
    at_common: Mapping[str, float] = field(default_factory=dict)
    loss: float | None = None  # mean of the last steps
    samples: int | None = None
    sessions: int = 0
    rewinds: int = 0
    discarded: int = 0  # steps that were done again
    parent: str = ""

    def as_data(self) -> dict[str, Any]:
        """The same for `--json`."""
        summary = self.summary
        return {
            "label": self.label,
            "folder": str(summary.directory),
            "id": summary.id,
            "tag": summary.tag,
            "status": summary.status,
            "step": summary.step,
            "total": summary.total,
            "best": None if self.best is None else vars(self.best),
            "at_best": dict(self.at_best),
            "last_step": self.last_step,
            "at_last": dict(self.at_last),
            "at_common": dict(self.at_common),
            "loss": self.loss,
            "trained_s": summary.trained_s,
            "samples": self.samples,
            "sessions": self.sessions,
            "rewinds": self.rewinds,
            "discarded_steps": self.discarded,
            "began": summary.began,
            "last_seen": summary.last_seen,
            "parent": None if summary.parent is None else dict(summary.parent),
        }


@dataclass(frozen=True, kw_only=True)
class RunComparison:
    """Several runs, in the order in which they were named."""

    metric: str  # "" where none can be compared
    larger: bool
    common_step: int | None  # the furthest step that all of them were evaluated at
    runs: tuple[Standing, ...]
    differences: tuple[Difference, ...]
    notes: tuple[Note, ...]
    programs: tuple[Difference, ...] = ()  # files by their digests, packages by their versions, commits
    leader: int | None = None  # which run is the best
    second: int | None = None  # which one comes after it
    margin: float | None = None  # how far ahead of the next one

    def as_data(self) -> dict[str, Any]:
        """The same for `--json`."""
        return {
            "metric": self.metric,
            "larger_is_better": self.larger,
            "common_step": self.common_step,
            "leader": None if self.leader is None else self.runs[self.leader].label,
            "margin": self.margin,
            "runs": [run.as_data() for run in self.runs],
            "differences": [difference.as_data() for difference in self.differences],
            "program_differences": [difference.as_data() for difference in self.programs],
            "notes": [note.as_data() for note in self.notes],
        }


def compare(facts: Sequence[RunFacts], *, metric: str = "") -> RunComparison:
    """Put the runs side by side; `metric` is what decides, else the one by which they recorded their best."""
    evaluated = [run.curves.evaluated() for run in facts]
    chosen = _metric(facts, evaluated, metric)
    larger = _larger(chosen, facts, evaluated)
    common = max(set.intersection(*(_measured(steps, chosen) for steps in evaluated)), default=None)
    labels = labels_of([run.summary for run in facts])
    runs = tuple(
        _standing(run, label, steps, metric=chosen, larger=larger, common=common)
        for run, label, steps in zip(facts, labels, evaluated)
    )
    leader, second, margin = _leader(runs, larger=larger)
    return RunComparison(
        metric=chosen,
        larger=larger,
        common_step=common,
        runs=runs,
        differences=differences([run.config for run in facts]),
        programs=_programs([run.program for run in facts]),
        notes=tuple(notes_on(facts, labels, metric=chosen, asked=bool(metric), common=common)),
        leader=leader,
        second=second,
        margin=margin,
    )


def _programs(programs: Sequence[Mapping[str, str]]) -> tuple[Difference, ...]:
    """What differs of what every run recorded: what only some have loaded tells of no change."""
    if len(programs) < 2 or not all(programs):
        return ()
    shared = [name for name in programs[0] if all(name in program for program in programs)]
    told = [Difference(key=name, values=tuple(program[name] for program in programs)) for name in shared]
    return tuple(item for item in told if len(set(item.values)) > 1)


def labels_of(runs: Sequence[Summary]) -> list[str]:
    """What to call each run: as short as tells them apart."""
    labels = [short_label(run.label) for run in runs]
    places = [run.directory.absolute().parts for run in runs]
    for length in range(1, max(map(len, places)) + 1):
        if len(set(labels)) == len(labels):
            break
        again = {label for label in labels if labels.count(label) > 1}
        shorter = [short_label(str(Path(*parts[-length:]))) for parts in places]
        labels = [short if label in again else label for label, short in zip(labels, shorter)]
    return [label if labels.count(label) == 1 else f"{label} #{place}" for place, label in enumerate(labels, start=1)]


def _standing(
    facts: RunFacts,
    label: str,
    evaluated: Mapping[int, Mapping[str, float]],
    *,
    metric: str,
    larger: bool,
    common: int | None,
) -> Standing:
    last_step = max(evaluated, default=None)
    best = _best(facts, evaluated, metric=metric, larger=larger)
    return Standing(
        label=label,
        summary=facts.summary,
        best=best,
        at_best={**evaluated.get(best.step, {}), best.metric: best.value} if best else {},
        at_last=evaluated[last_step] if last_step is not None else {},
        last_step=last_step,
        at_common=evaluated.get(common, {}) if common is not None else {},
        loss=_loss_at_the_end(facts),
        samples=facts.samples,
        sessions=max(len(facts.curves.sessions), facts.summary.sessions),
        rewinds=len(facts.curves.rewinds),
        discarded=sum(rewind.steps for rewind in facts.curves.rewinds),
        parent=_parent(facts.summary.parent),
    )


def _metric(facts: Sequence[RunFacts], evaluated: Sequence[Mapping[int, Mapping[str, float]]], asked: str) -> str:
    known = list(dict.fromkeys(name for steps in evaluated for values in steps.values() for name in values))
    if asked:
        if asked not in known:
            close = f"Did you mean {near}? " if (near := nearest(asked, known)) else ""
            found = ", ".join(known[:20]) or "no evaluation at all"
            raise UsageError("--metric", f"no run was evaluated by {asked[:80]!r}", found=found, do=close.strip())
        return asked
    recorded = [run.best.metric for run in facts if run.best is not None]
    if recorded:
        return max(dict.fromkeys(recorded), key=recorded.count)
    shared = [name for name in known if all(_measured(steps, name) for steps in evaluated)]
    return min(shared, key=_telling, default="")


def _telling(name: str) -> int:
    return next((place for place, word in enumerate(TELLING) if word in name.lower()), len(TELLING))


def _larger(metric: str, facts: Sequence[RunFacts], evaluated: Sequence[Mapping[int, Mapping[str, float]]]) -> bool:
    """As the runs recorded it: their best is the largest or the smallest of all; else by its name."""
    for run, steps in zip(facts, evaluated):
        values = [value for value in _values(steps, metric).values() if math.isfinite(value)]
        if run.best is not None and run.best.metric == metric and len(set(values)) > 1:
            if run.best.value >= max(values):
                return True
            if run.best.value <= min(values):
                return False
    return not any(word in metric.lower() for word in SMALLER_IS_BETTER)


def _best(facts: RunFacts, evaluated: Mapping[int, Mapping[str, float]], *, metric: str, larger: bool) -> Score | None:
    if facts.best is not None and facts.best.metric == metric and math.isfinite(facts.best.value):
        return facts.best
    values = {step: value for step, value in _values(evaluated, metric).items() if math.isfinite(value)}
    if not values:
        return None
    step = max(values, key=lambda step: (values[step] if larger else -values[step], -step))
    return Score(metric=metric, value=values[step], step=step)


def _leader(runs: Sequence[Standing], *, larger: bool) -> tuple[int | None, int | None, float | None]:
    """Nobody leads where fewer than two have a value, or where the two best are level; a copy does not compete."""
    first_of: dict[tuple[str, Score | None], int] = {}
    for place, run in enumerate(runs):
        first_of.setdefault((run.summary.id or f"#{place}", run.best), place)
    scored = [(run.best.value if larger else -run.best.value, place) for place, run in enumerate(runs) if run.best]
    scored = [item for item in scored if item[1] in first_of.values()]
    if len(scored) < 2:
        return None, None, None
    (first, place), (second, other) = sorted(scored, key=lambda item: -item[0])[:2]
    return (place, other, first - second) if first > second else (None, None, 0.0)


def _loss_at_the_end(facts: RunFacts) -> float | None:
    kept: list[float] = []
    for segment in reversed(facts.curves.values.get("loss", ())):
        if segment.kept and len(kept) < LAST_LOSSES:
            kept += segment.points.values[-(LAST_LOSSES - len(kept)) :]
    return sum(kept) / len(kept) if kept else None


def _parent(parent: Mapping[str, Any] | None) -> str:
    """Whose weights a run began with, and after which step."""
    if not parent:
        return ""
    step = f" @ {parent['step']}" if isinstance(parent.get("step"), int) else ""
    return short_label(str(parent.get("tag") or parent.get("file") or parent.get("run") or "?")) + step


def short_label(text: str) -> str:
    """A name as long as a table can bear: its begin and its end."""
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL // 2]}…{text[-LONGEST_LABEL // 4 :]}"


def _values(evaluated: Mapping[int, Mapping[str, float]], metric: str) -> dict[int, float]:
    return {step: values[metric] for step, values in evaluated.items() if metric in values}


def _measured(evaluated: Mapping[int, Mapping[str, float]], metric: str) -> set[int]:
    return {step for step, values in evaluated.items() if metric in values}
