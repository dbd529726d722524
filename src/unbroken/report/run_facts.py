"""Everything that a comparison knows about one run, gathered by looking only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from unbroken.checkpoint.structure import read_structure
from unbroken.errors import UnbrokenError
from unbroken.fields import count_of
from unbroken.report.curves import LARGE_BYTES
from unbroken.report.segments import RunCurves, curves_of
from unbroken.run.history import programs_of, score_of
from unbroken.run.layout import own
from unbroken.run.predictions import evaluations_in
from unbroken.run.summary import Score, Summary, summary_of
from unbroken.run.view import METRICS, RunView, looked_at
from unbroken.storage.moved import undisturbed

PREDICTIONS = "predictions"


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """One run: its short form, its config, its curves, and what its newest checkpoint says about the data."""

    summary: Summary
    config: Mapping[str, Any] = field(default_factory=dict)
    curves: RunCurves = field(default_factory=RunCurves)
    seed: int | None = None
    conditions: Mapping[str, Any] = field(default_factory=dict)
    best: Score | None = None  # as the run recorded it
    samples: int | None = None  # used up to the newest checkpoint
    dataset_size: int | None = None
    fingerprint: str = ""  # of the data set's files
    pictures: Mapping[int, Mapping[str, Path]] = field(default_factory=dict)  # sample predictions by step and name
    program: Mapping[str, str] = field(default_factory=dict)  # of the last session that recorded it, by name


def facts_of_runs(directories: Sequence[Path], *, processes: int = 1) -> list[RunFacts]:
    """Look at several runs; many large ones are looked at by several processes at once."""
    sizes = [_record_bytes(directory) for directory in directories]
    if sum(sizes) >= LARGE_BYTES > max(sizes) and processes > 1:
        from unbroken.report.pool import spread

        return spread(facts_of, directories, processes=processes, at_once=-(-len(directories) // processes))
    return [facts_of(directory, processes=processes) for directory in directories]


def facts_of(directory: Path, *, processes: int = 1) -> RunFacts:
    """Look at one run; whatever is missing or garbled is left out."""
    # What may have to be looked at anew, as its files go meanwhile, comes before the curves, which may be long.
    view, inside = looked_at(directory, lambda view: (view, _inside_furthest(view)))
    summary = summary_of(view)
    curves = curves_of(view, processes=processes)
    if summary.status == "never started" and curves.sessions and not view.own.is_dir():
        last = max(session.last for session in curves.sessions)  # all that is left are the curves
        summary = replace(summary, status="left by another program", step=last)
    programs, record = [*programs_of(view.events).values()], view.record
    return RunFacts(
        summary=summary,
        config=view.config,
        curves=curves,
        seed=record.seed if record is not None and type(record.seed) is int else None,
        conditions=record.conditions if record is not None and isinstance(record.conditions, Mapping) else {},
        best=summary.best or score_of(inside.get("best")),
        samples=count_of(inside.get("position")) or None,
        dataset_size=count_of(inside.get("dataset_size")) or None,
        fingerprint=str(inside.get("fingerprint") or ""),
        pictures=pictures_of(directory),
        program=programs[-1].compared() if programs else {},
    )


def _inside_furthest(view: RunView) -> Mapping[str, Any]:
    """What the furthest checkpoint says about itself; its numbers are not read, nor is it verified."""
    furthest = view.furthest
    if furthest is None:
        return {}
    if furthest.inside or not furthest.listed:  # it was opened to see how far it is
        return furthest.inside
    try:
        return undisturbed(furthest.path, partial(read_structure, furthest.path)).stamp
    except UnbrokenError:
        return {}


def pictures_of(directory: Path) -> dict[int, dict[str, Path]]:
    """The sample predictions that a run kept; links are left out: they may lead out of the run."""
    folder = directory / PREDICTIONS
    found = {} if folder.is_symlink() else evaluations_in(folder)
    return {
        step: {path.stem: path for path in sorted(place.glob("*.png")) if path.is_file() and not path.is_symlink()}
        for step, place in found.items()
        if not place.is_symlink()
    }


def _record_bytes(directory: Path) -> int:
    try:
        return (own(directory) / METRICS).stat().st_size
    except OSError:
        return 0
