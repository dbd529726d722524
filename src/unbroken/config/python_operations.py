"""The operations a Python config may use, each safe for any plain data: none can fill time or memory."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from unbroken.config.meter import BITS, LENGTH, TooMuch

Operation = Callable[..., Any]


def _multiplied(left: Any, right: Any) -> Any:
    for sequence, times in ((left, right), (right, left)):
        if isinstance(sequence, str | list | tuple) and isinstance(times, int) and len(sequence) * times > LENGTH:
            raise TooMuch(f"a list or text would be longer than {LENGTH}")
    return left * right


def _to_the_power(left: Any, right: Any) -> Any:
    if isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > BITS:
        raise TooMuch(f"a number would have more than {BITS} bits")
    result = left**right
    if isinstance(result, complex):
        raise ValueError("the result is not a real number")
    return result


def _remainder(left: Any, right: Any) -> Any:
    if isinstance(left, str):
        raise TypeError("text is put together with f-strings here, not with `%`")
    return left % right


def _either(left: Any, right: Any) -> Any:
    if not (isinstance(left, dict) and isinstance(right, dict)):
        raise TypeError("`|` joins two dicts here, nothing else")
    return left | right


def _listed_range(*bounds: int) -> list[int]:
    numbers = range(*bounds)
    if len(numbers) > LENGTH:
        raise TooMuch(f"a range would be longer than {LENGTH}")
    return list(numbers)


def _sum(values: Any, start: Any = 0) -> Any:
    if not all(isinstance(value, int | float) for value in (start, *values)):
        raise TypeError("sum() adds numbers here, nothing else")
    return sum(values, start)


def _rounded(number: Any, ndigits: int | None = None) -> Any:
    if ndigits is not None and abs(ndigits) > 100:
        raise TooMuch("round() goes to 100 digits at most")
    return round(number, ndigits)


FUNCTIONS: Mapping[str, Operation] = {
    "dict": dict,
    "list": list,
    "tuple": tuple,
    "len": len,
    "min": min,
    "max": max,
    "int": int,
    "float": float,
    "str": str,
    "bool": bool,
    "range": _listed_range,
    "sum": _sum,
    "round": _rounded,
    "abs": abs,
    "sorted": sorted,
}

METHODS: Mapping[type, Mapping[str, Operation]] = {
    list: {
        "append": list.append,
        "extend": list.extend,
        "insert": list.insert,
        "pop": list.pop,
        "copy": list.copy,
    },
    dict: {
        "update": dict.update,
        "copy": dict.copy,
        "get": dict.get,
        "pop": dict.pop,
        "keys": lambda held: list(held),
        "values": lambda held: list(held.values()),
        "items": lambda held: list(held.items()),
    },
}

UNARY: Mapping[type[ast.unaryop], Operation] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}

BINARY: Mapping[type[ast.operator], Operation] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: _multiplied,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: _remainder,
    ast.Pow: _to_the_power,
    ast.BitOr: _either,
}

COMPARISONS: Mapping[type[ast.cmpop], Operation] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda left, right: left in right,
    ast.NotIn: lambda left, right: left not in right,
    ast.Is: lambda left, right: left is right,
    ast.IsNot: lambda left, right: left is not right,
}
