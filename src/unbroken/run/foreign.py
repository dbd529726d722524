"""What can be known of a run that MMEngine or OpenPCDet left: its newest numbers, its best score, its config."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unbroken.clock import utc_text
from unbroken.config import read_config
from unbroken.errors import UnbrokenError
from unbroken.fields import count_of, number_of, numbers_of
from unbroken.journal.file import read_lines_backwards
from unbroken.run.candidates import Candidate
from unbroken.run.folder import entries
from unbroken.run.history import Score

NOT_METRICS = {"step", "iter", "epoch", "time", "data_time", "memory"}
BEST_FILE = re.compile(r"best_(.+)_(?:iter|epoch)_(\d{1,18})\.pth")
LONGEST_SEARCH = 100_000  # lines of a record, from its end, to look for an evaluation in


@dataclass(frozen=True, kw_only=True)
class LeftBehind:
    """What another program's folder says."""

    best: Score | None = None
    last: Mapping[str, float] = field(default_factory=dict)
    last_step: int | None = None
    last_seen: str = ""


def left_behind(directory: Path, furthest: Candidate) -> LeftBehind:
    """Look at the newest record, and what the furthest checkpoint said; nothing that is unreadable is an error."""
    evaluations = list(_evaluations(directory))
    last_step, last = evaluations[0] if evaluations else (None, {})
    score = number_of(furthest.metrics.get("best_score"))  # OpenPCDet has none
    return LeftBehind(
        best=_best(directory, score, evaluations, step=furthest.recorded_step),
        last=last,
        last_step=last_step,
        last_seen=_written(furthest.path),
    )


def foreign_config(directory: Path) -> Mapping[str, Any]:
    """The config as MMEngine writes it, or the YAML that OpenPCDet copies into its folder; empty if there is none."""
    for path in _config_files(directory):
        with suppress(UnbrokenError, OSError):
            return read_config(path).tree
    return {}


def _best(
    directory: Path, score: float | None, evaluations: list[tuple[int, Mapping[str, float]]], *, step: int | None
) -> Score | None:
    """Which metric it is stands in the name of the best weights; else the evaluation that has the number tells."""
    named = [found for entry in entries(str(directory)) if (found := BEST_FILE.fullmatch(entry.name))]
    for match in sorted(named, key=lambda found: int(found[2]), reverse=True):
        metric, at = match[1], int(match[2])
        measured = next((values[metric] for step, values in evaluations if step == at and metric in values), score)
        if measured is not None:
            return Score(metric=metric, value=measured, step=at)
    if score is None:
        return None
    for at, values in reversed(evaluations):
        for metric, value in values.items():
            if value == score:
                return Score(metric=metric, value=score, step=at)
    return Score(metric="best_score", value=score, step=step or 0)


def _evaluations(directory: Path) -> Iterator[tuple[int, Mapping[str, float]]]:
    """Newest first. MMEngine writes them between its steps; what tells them apart is that they have no `iter`."""
    for record in _sessions(directory, "scalars.json"):
        with suppress(OSError):
            for count, line in enumerate(read_lines_backwards(record)):
                if count > LONGEST_SEARCH:
                    return
                values = {name: value for name, value in numbers_of(line).items() if name not in NOT_METRICS}
                step = count_of(line.get("step"))
                if step is not None and values and "iter" not in line and "loss" not in line and "lr" not in line:
                    yield step, values


def _sessions(directory: Path, name: str) -> list[Path]:
    """A file of each of MMEngine's sessions, the newest first."""
    folders = sorted((entry.name for entry in entries(str(directory)) if entry.is_dir()), reverse=True)
    found = [directory / "vis_data" / name, *(directory / folder / "vis_data" / name for folder in folders)]
    return [path for path in found if path.is_file()]


def _config_files(directory: Path) -> Iterator[Path]:
    yield from _sessions(directory, "config.py")
    names = sorted(entry.name for entry in entries(str(directory)))
    for suffix in (".py", ".yaml", ".yml"):
        yield from (directory / name for name in reversed(names) if name.endswith(suffix))


def _written(checkpoint: Path) -> str:
    """When a file of another program was written: all there is to say when it was seen last."""
    try:
        return utc_text(datetime.fromtimestamp(os.stat(checkpoint).st_mtime, tz=UTC))  # noqa: PTH116
    except (OSError, ValueError, OverflowError):
        return ""
