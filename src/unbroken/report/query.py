"""`--where` and `--sort`: which of the runs are meant, and in which order; pure.

A *field* is one of the fixed names, or `best.METRIC`, `last.METRIC`, `config.KEY.SUB`. An expression is one or more
conditions with `and` between them: `best.mIoU>40 and status=finished`. A run that has no such value, or one that is not
a number, matches no condition on it, not even `!=`, and sorts last.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from unbroken.clock import local_moment
from unbroken.config.difference import leaves
from unbroken.errors import UsageError
from unbroken.quantities import BadQuantity, asked, duration_s, size_bytes
from unbroken.report.index import IndexRow

Value = Any  # a number, a text, or what a config holds
Getter = Callable[[IndexRow], Value]
ConfigOf = Callable[[IndexRow], Any]

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


def names_there(head: str, rows: Iterable[IndexRow], config_of: ConfigOf) -> list[str]:
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


# -- conditions and orders ---------------------------------------------------------------------------------------------


CONDITION = re.compile(r"(?P<field>[^<>=!~\"']+?)\s*(?P<operator>>=|<=|!=|==|=|>|<|~)\s*(?P<value>.*)", re.DOTALL)
AND = re.compile(r"\s+and\s+", re.IGNORECASE)
QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
LONGEST = 2000
ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip
QUANTITIES: dict[str, Callable[[str], float]] = {"size": size_bytes, "trained": duration_s}


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One comparison; `number` is its value as a number, if it is one."""

    field: str
    operator: str
    text: str
    number: float | None

    def holds(self, value: Value) -> bool:
        """Whether a run with this value is meant."""
        if value is None or is_nan(value):
            return False
        if self.operator == "~":
            return self.text.casefold() in _as_text(value).casefold()
        if self.field in TIMES:  # a day is all of its moments
            return ORDERS[self.operator](str(value)[: len(self.text)], self.text)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self.number is not None and ORDERS[self.operator](value, self.number)
        return self.operator in ("=", "!=") and ORDERS[self.operator](_as_text(value), self._text_of(value))

    def _text_of(self, value: Value) -> str:
        return self.text.lower() if isinstance(value, bool) else self.text


def conditions_of(expressions: Sequence[str]) -> tuple[Condition, ...]:
    """All conditions of all expressions; UsageError that says where one is wrong."""
    return tuple(condition for text in expressions for condition in _conditions(text))


def needs_configs(names: Iterable[str]) -> bool:
    """Whether one of these fields is a key of a config."""
    return any(name.startswith("config.") for name in names)


def matching(rows: Iterable[IndexRow], conditions: Sequence[Condition], config_of: ConfigOf) -> list[IndexRow]:
    """The runs for which every condition holds."""
    found = list(rows)
    for condition in conditions:
        value = getter_of(condition.field, config_of)
        found = [row for row in found if condition.holds(value(row))]
    return found


def sorted_by(rows: Iterable[IndexRow], order: str, config_of: ConfigOf) -> list[IndexRow]:
    """The runs by a field, the smallest first, with `-` before it the largest; those that have none last."""
    name = require_field(order.removeprefix("-"), where="--sort")
    value = getter_of(name, config_of)
    keyed = [(value(row), row) for row in rows]
    there = [(_rank(found), row) for found, row in keyed if found is not None and not is_nan(found)]
    there.sort(key=lambda pair: pair[0], reverse=order.startswith("-"))
    return [row for _, row in there] + [row for found, row in keyed if found is None or is_nan(found)]


def why_none(rows: Sequence[IndexRow], conditions: Sequence[Condition], config_of: ConfigOf) -> list[str]:
    """For each condition: how many of the runs match it alone, and where no run has such a value, what there is."""
    lines = []
    for condition in conditions:
        value = getter_of(condition.field, config_of)
        values = [found for row in rows if (found := value(row)) is not None]
        words = f"{condition.field} {condition.operator} {condition.text}: "
        if values:
            lines.append(f"{words}{sum(map(condition.holds, values))} of the {len(values)} that have it")
        else:
            lines.append(f"{words}no run has it{_what_there_is(condition.field, rows, config_of)}")
    return lines


def _what_there_is(field: str, rows: Sequence[IndexRow], config_of: ConfigOf) -> str:
    from difflib import get_close_matches

    there = names_there(field.partition(".")[0], rows, config_of)
    near = get_close_matches(field, there, n=3, cutoff=0.5) or there[:5]
    return f"; there is {', '.join(near)}" if near else ""


def _conditions(text: str) -> Iterable[Condition]:
    where = f"--where {text[:80]!r}"
    if len(text) > LONGEST:
        raise UsageError(where, "the expression is too long", expected=f"at most {LONGEST} characters", found=len(text))
    plain = QUOTED.sub(lambda found: "x" * len(found[0]), text)  # an `and` or an operator in quotes is none
    start = 0
    for gap in (*AND.finditer(plain), None):
        end = gap.start() if gap else len(text)
        yield _condition(text[start:end], plain[start:end], start + 1, where)
        start = gap.end() if gap else end


def _condition(text: str, plain: str, place: int, where: str) -> Condition:
    found = CONDITION.fullmatch(plain.strip())
    if found is None or not found["value"]:
        raise UsageError(
            where,
            f"at character {place}, this is no condition",
            expected="FIELD, one of > >= < <= = != ~ (contains), and a value",
            found=f"{text.strip()[:80]!r}",
            do='Examples: --where "best.mIoU>40", --where "status=finished and config.optimizer.lr<0.01".',
        )
    stripped = text.strip()
    sign = found["operator"].replace("==", "=")
    field = require_field(stripped[: found.end("field")], where=f"{where}, character {place}")
    value = stripped[found.start("value") :].strip()
    quoted = QUOTED.fullmatch(value) is not None
    value = value[1:-1] if quoted else value
    condition = Condition(
        field=field, operator=sign, text=_time(value) if field in TIMES else value, number=_number(value, field)
    )
    _require_sense(condition, where=f"{where}, character {place}")
    return condition


def _require_sense(condition: Condition, *, where: str) -> None:
    """Refuse what could never match."""
    field, sign = condition.field, condition.operator
    is_number = field in NUMBERS or field.startswith(("best.", "last."))
    if is_number and sign == "~":
        raise UsageError(where, f"`{field}` is a number, `~` looks for text", expected="> >= < <= = or !=")
    if is_number and condition.number is None:
        if field in QUANTITIES:
            asked(where, QUANTITIES[field], condition.text)
        raise UsageError(where, f"`{field}` is a number", expected="a number", found=f"{condition.text[:80]!r}")
    if field in TEXTS and sign in (">", ">=", "<", "<="):
        raise UsageError(where, f"`{field}` is text, which is not more or less", expected="= != or ~ (contains)")
    if field.startswith("config.") and sign in (">", ">=", "<", "<=") and condition.number is None:
        raise UsageError(where, f"`{sign}` compares numbers", expected="a number", found=f"{condition.text[:80]!r}")


def _number(text: str, field: str) -> float | None:
    if field in QUANTITIES and text != "0":
        with suppress(BadQuantity):
            return QUANTITIES[field](text)
        return None
    match = re.fullmatch(r"[+-]?(?:\d[\d_,]*\.?\d*|\.\d+)(?:e[+-]?\d+)?|[+-]?inf", text.strip().lower())
    if match is None:
        return None
    try:
        return float(match[0].replace(",", "").replace("_", ""))
    except ValueError:
        return None


def _time(text: str) -> str:
    return text.replace(" ", "T")


def _as_text(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _rank(value: Value) -> tuple[int, Any]:
    """Numbers before texts: a config may hold either."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 0, value
    return 1, _as_text(value)
