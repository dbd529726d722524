"""A run as a row: what a listing shows, in values that a table can hold."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from unbroken.fields import numbers_of
from unbroken.jsonlines import parsed_json

if TYPE_CHECKING:
    from unbroken.run.summary import Summary


class Row(NamedTuple):
    """One run. `signature` says which state of its files this tells of; 0: look again the next time."""

    folder: str  # absolute
    signature: int
    part: str  # of the folder, that the checkpoints lie in
    label: str
    id: str
    tag: str
    recipe: str
    status: str
    step: int
    total: int | None
    best_metric: str | None
    best_value: float | None  # None for one that is not a number: the table has none either
    best_step: int | None
    last: str  # JSON
    last_step: int | None
    began: str
    last_seen: str
    sessions: int
    trained_s: float | None
    size_bytes: int
    parent: str  # JSON

    @property
    def parent_facts(self) -> Mapping[str, Any] | None:
        """Where the run began from, if it did not begin from nothing."""
        return _mapping(self.parent) if self.parent else None

    @property
    def metrics(self) -> Mapping[str, float]:
        """The newest evaluation."""
        return numbers_of(_mapping(self.last)) if self.last else {}

    @property
    def best(self) -> float | None:
        """The best score, which may be NaN; None if there is none."""
        return math.nan if self.best_value is None and self.best_metric is not None else self.best_value


def _mapping(cell: str) -> Mapping[str, Any]:
    """What a cell of the table holds; nothing where it was damaged, as all of the table may be."""
    try:
        found = parsed_json(cell.encode())
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}


TEXT: set[type] = {str}
WHOLE: set[type] = {int}
NUMBER: set[type] = {int, float}
MAYBE: set[type] = {type(None)}
TYPES: tuple[set[type], ...] = (
    TEXT,
    WHOLE,
    *(TEXT,) * 6,
    WHOLE,
    WHOLE | MAYBE,
    TEXT | MAYBE,
    NUMBER | MAYBE,
    WHOLE | MAYBE,
    TEXT,
    WHOLE | MAYBE,
    TEXT,
    TEXT,
    WHOLE,
    NUMBER | MAYBE,
    WHOLE,
    TEXT,
)


def row_of(summary: Summary, *, folder: str, signature: int, part: str) -> Row:
    """A run's row."""
    best = summary.best
    return Row(
        folder=folder,
        signature=signature,
        part=part,
        label=summary.label,
        id=summary.id,
        tag=summary.tag,
        recipe=summary.recipe,
        status=summary.status,
        step=summary.step,
        total=summary.total,
        best_metric=best.metric if best else None,
        best_value=None if best is None or math.isnan(best.value) else best.value,
        best_step=best.step if best else None,
        last=json.dumps(dict(summary.last)) if summary.last else "",
        last_step=summary.last_step,
        began=summary.began,
        last_seen=summary.last_seen,
        sessions=summary.sessions,
        trained_s=summary.trained_s,
        size_bytes=summary.size_bytes,
        parent=json.dumps(summary.parent) if summary.parent else "",
    )
