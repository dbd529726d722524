"""What runs can be sorted and filtered by: a name, and the value that a run has under it.

A *field* is one of the fixed names, or `best.METRIC`, `last.METRIC`, `config.KEY.SUB`. A run that has no such value has
None there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from unbroken.clock import local_moment
from unbroken.config.difference import leaves
from unbroken.errors import UsageError
from unbroken.report.rows import Row

Value = Any  # a number, a text, or what a config holds
Getter = Callable[[Row], Value]
ConfigOf = Callable[[Row], Any]

NUMBERS: dict[str, Getter] = {
    "step": lambda row: row.step,
    "total": lambda row: row.total,
    "sessions": lambda row: row.sessions,
    "size": lambda row: row.size_bytes,
    "trained": lambda row: row.trained_s,
    "best": lambda row: row.best,
}
TEXTS: dict[str, Getter] = {
    "tag": lambda row: row.label,
    "status": lambda row: row.status,
    "recipe": lambda row: row.recipe,
    "folder": lambda row: row.folder,
    "id": lambda row: row.id,
}
TIMES: dict[str, Getter] = {
    "seen": lambda row: _by_our_clock(row.last_seen),
    "began": lambda row: _by_our_clock(row.began),
}
FIXED = {**TEXTS, **NUMBERS, **TIMES}
OPEN = {"best": "METRIC", "last": "METRIC", "config": "KEY"}
ALL = (*FIXED, *(f"{name}.{what}" for name, what in OPEN.items()))


def _by_our_clock(time: str) -> str | None:
    """As `ls` shows it and people type it, so that a day is one of this machine's."""
    moment = local_moment(time)
    return moment.isoformat(timespec="milliseconds") if moment is not None else time or None


def require_field(name: str, *, where: str) -> str:
    """The name itself, or UsageError with all there are and the nearest one."""
    head, dot, rest = name.partition(".")
    if name in FIXED or (head in OPEN and dot and rest):
        return name
    from difflib import get_close_matches

    near = get_close_matches(head, OPEN, n=1) if dot else get_close_matches(name, [*FIXED, *OPEN], n=1)
    meant = f"{near[0]}.{OPEN[near[0]]}" if near and (dot or near[0] not in FIXED) else "".join(near)
    raise UsageError(
        where,
        "there is no such field",
        expected=f"one of {', '.join(ALL)}",
        found=f"{name[:80]!r}",
        do=f"Did you mean {meant}?" if meant else "",
    )


def getter_of(name: str, config_of: ConfigOf) -> Getter:
    """How to get the field of a run."""
    if name in FIXED:
        return FIXED[name]
    head, _, rest = name.partition(".")
    if head == "best":
        return lambda row: row.best if row.best_metric == rest else None
    if head == "last":
        return lambda row: row.metrics.get(rest)
    return lambda row: _inside(config_of(row), rest)


def names_there(head: str, rows: Iterable[Row], config_of: ConfigOf) -> list[str]:
    """Which `best.`, `last.` or `config.` fields the runs have."""
    found: dict[str, None] = {}
    for row in rows:
        if head == "best" and row.best_metric is not None:
            found[row.best_metric] = None
        elif head == "last":
            found |= dict.fromkeys(row.metrics)
        elif head == "config":
            found |= dict.fromkeys(key for key, _ in leaves(config_of(row)) if key)
    return [f"{head}.{name}" for name in found]


def is_nan(value: Value) -> bool:
    """Whether a value is a number that is none."""
    return isinstance(value, float) and math.isnan(value)


def _inside(config: Any, key: str) -> Value:
    if isinstance(config, Mapping) and key in config:
        return config[key]
    for part in key.split("."):
        if isinstance(config, Mapping) and part in config:
            config = config[part]
        elif isinstance(config, list) and part.isdecimal() and len(part) < 10 and int(part) < len(config):
            config = config[int(part)]
        else:
            return None
    return config
