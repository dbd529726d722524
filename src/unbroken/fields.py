"""Typed values out of records: what a field has to be, and what is said of one that is not.

A record was written by us, by another version of us, in an editor, by a disk that flips bits, or by a stranger. So
nothing of it is believed before it was read as what it should be. A *kind* reads one value, or raises BadField with
the field's name; a frozen dataclass is the schema of a whole record, by the types of its fields.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Hashable, Mapping
from functools import cache, partial
from types import UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

END_OF_COUNTS = 1 << 63  # what a step, an epoch or a size in bytes never reaches
LONGEST_S = 1e10  # 300 years: no session and no save takes longer
NOT_FINITE = ("nan", "inf", "-inf")  # JSON has no such numbers: they are written as text
DIGEST = re.compile("[0-9a-f]{64}")
FILE_DIGEST = re.compile("sha256:[0-9a-f]{64}|xxh3_128:[0-9a-f]{32}")
LONGEST_SHOWN = 40
MISSED = object()  # in place of a value that is not there

Kind = Callable[[Any, str], Any]
Record = TypeVar("Record")


class BadField(ValueError):
    """A field of a record that is not what it should be."""

    def __init__(self, field: str, expected: str, found: object) -> None:
        self.field = field if field.isprintable() and len(field) <= LONGEST_SHOWN else ascii(field[:LONGEST_SHOWN])
        where = f"field {self.field}: " if field else ""
        super().__init__(where + ("missing" if found is MISSED else f"expected {expected}, found {_shown(found)}"))


def typed(record: type[Record], data: object, field: str = "") -> Record:
    """Data as a value of a frozen dataclass, whose fields' types say what may stand there; other keys are left out."""
    known = _mapping(data, field)
    found = {}
    for name, kind, is_required in _schema(cast(Hashable, record)):
        if name in known:
            found[name] = kind(known[name], _below(field, name))
        elif is_required:
            raise BadField(_below(field, name), "", MISSED)
    return record(**found)


def check(
    data: Mapping[str, Any], kinds: Mapping[str, Kind], field: str = "", *, required: Collection[str] = ()
) -> None:
    """Raise BadField unless each of the known fields that are there is of its kind."""
    for name in required:
        if name not in data:
            raise BadField(_below(field, name), "", MISSED)
    above = f"{field}." if field else ""
    for name, value in data.items():
        if (kind := kinds.get(name)) is not None:
            kind(value, above + name)


# -- kinds -----------------------------------------------------------------------------------------------------------


def text(value: Any, field: str) -> str:
    """Text."""
    if isinstance(value, str):
        return value
    raise BadField(field, "text", value)


def digest(value: Any, field: str) -> str:
    """A SHA-256 in hex digits."""
    if isinstance(value, str) and DIGEST.fullmatch(value):
        return value
    raise BadField(field, "64 hex digits", value)


def file_digest(value: Any, field: str) -> str:
    """The digest of a file, with its kind."""
    if isinstance(value, str) and FILE_DIGEST.fullmatch(value):
        return value
    raise BadField(field, "sha256: or xxh3_128: and its hex digits", value)


def flag(value: Any, field: str) -> bool:
    """Yes or no."""
    if isinstance(value, bool):
        return value
    raise BadField(field, "true or false", value)


def count(value: Any, field: str) -> int:
    """A number of things, or of the one at which something was."""
    if type(value) is int and 0 <= value < END_OF_COUNTS:
        return value
    raise BadField(field, "a whole number" + (" from 0 to 2^63" if type(value) is int else ""), value)


def some(value: Any, field: str) -> int:
    """At least one."""
    if count(value, field) > 0:
        return int(value)
    raise BadField(field, "a whole number from 1", value)


def whole(value: Any, field: str) -> int:
    """A whole number of 64 bits, with or without a sign."""
    if type(value) is int and -END_OF_COUNTS <= value < 2 * END_OF_COUNTS:
        return value
    raise BadField(field, "a whole number of 64 bits", value)


def number(value: Any, field: str) -> float:
    """A number, also one that is not finite."""
    found = number_of(value)
    if found is None or (isinstance(value, int) and abs(value) >= END_OF_COUNTS):
        raise BadField(field, "a number", value)
    return found


def seconds(value: Any, field: str) -> float:
    """How long something took."""
    if type(value) in (int, float) and 0 <= value <= LONGEST_S:
        return float(value)
    raise BadField(field, "a number of seconds", value)


def anything(value: Any, _field: str) -> Any:
    """What nothing is decided by."""
    return value


def maybe(kind: Kind) -> Kind:
    """The same, or null."""
    return lambda value, field: None if value is None else kind(value, field)


def one_of(choices: Collection[str]) -> Kind:
    """One of a few words."""

    def read(value: Any, field: str) -> str:
        if isinstance(value, str) and value in choices:
            return value
        raise BadField(field, " or ".join(choices), value)

    return read


def list_of(kind: Kind) -> Kind:
    """A list of such values."""

    def read(value: Any, field: str) -> tuple[Any, ...]:
        if not isinstance(value, list | tuple):
            raise BadField(field, "a list", value)
        return tuple(kind(item, f"{field}[{place}]") for place, item in enumerate(value))

    return read


def mapping_of(kind: Kind) -> Kind:
    """An object whose values are all of a kind."""

    def read(value: Any, field: str) -> dict[str, Any]:
        return {name: kind(item, _below(field, name)) for name, item in _mapping(value, field).items()}

    return read


def mapping(kinds: Mapping[str, Kind], *, required: Collection[str] = ()) -> Kind:
    """An object with these fields, and perhaps others."""

    def read(value: Any, field: str) -> Mapping[str, Any]:
        found = _mapping(value, field)
        check(found, kinds, field, required=required)
        return found

    return read


# -- single numbers, where one that is none is only left out ---------------------------------------------------------


def count_of(value: Any) -> int | None:
    """A number of steps, epochs, samples or bytes, or None for what is none; beyond 63 bits it is none of ours."""
    return value if type(value) is int and 0 <= value < END_OF_COUNTS else None


def number_of(value: Any) -> float | None:
    """A recorded number, or None for what is none."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:  # a whole number of an edited file
            return math.inf if value > 0 else -math.inf
    return float(value) if isinstance(value, str) and value in NOT_FINITE else None


def numbers_of(values: Any) -> dict[str, float]:
    """The values that are numbers."""
    if not isinstance(values, Mapping):
        return {}
    found = {str(name): number_of(value) for name, value in values.items()}
    return {name: number for name, number in found.items() if number is not None}


# -- schemas ---------------------------------------------------------------------------------------------------------

PLAIN: Mapping[Any, Kind] = {str: text, bool: flag, int: count, float: number, Any: anything}


@cache
def _schema(record: Hashable) -> tuple[tuple[str, Kind, bool], ...]:
    """Name, kind and whether it has to be there, of each field of a dataclass."""
    from dataclasses import MISSING, fields  # `ls` reads rows alone, and is quick because it loads no more

    if not isinstance(record, type) or not _is_dataclass(record):
        raise TypeError(f"{record!r} is no dataclass")
    hints = get_type_hints(record, include_extras=True)
    return tuple(
        (item.name, _kind(hints[item.name]), item.default is MISSING and item.default_factory is MISSING)
        for item in fields(record)
    )


def _kind(hint: Any) -> Kind:
    if hint in PLAIN:
        return PLAIN[hint]
    if isinstance(hint, type) and _is_dataclass(hint):
        return partial(typed, hint)
    if metadata := getattr(hint, "__metadata__", ()):  # Annotated: the kind itself
        kind: Kind = metadata[0]
        return kind
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType) and arguments[1:] == (type(None),):
        return maybe(_kind(arguments[0]))
    if origin is tuple and arguments[1:] == (...,):
        return list_of(_kind(arguments[0]))
    if origin is Literal:
        return one_of(arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return mapping_of(_kind(arguments[1]))
    raise TypeError(f"no record can hold a {hint}")


def _is_dataclass(kind: type) -> bool:
    return hasattr(kind, "__dataclass_fields__")


def _mapping(value: Any, field: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping) and all(isinstance(name, str) for name in value):
        return value
    raise BadField(field, "an object", value)


def _below(field: str, name: str) -> str:
    return f"{field}.{name}" if field else name


def _shown(found: object) -> str:
    """A wrong value in a few words; a nested one could be too deep, or too long, to be written out."""
    if found is None or isinstance(found, bool):
        return {None: "null", True: "true", False: "false"}[found]
    if isinstance(found, Mapping):
        return "an object"
    if isinstance(found, list | tuple):
        return "a list"
    if isinstance(found, int) and abs(found) >= 2 * END_OF_COUNTS:
        return "a number of more than 64 bits"
    if isinstance(found, str | int | float):
        words = repr(found[: LONGEST_SHOWN + 1]) if isinstance(found, str) else repr(found)
        return words if len(words) <= LONGEST_SHOWN else f"{words[:LONGEST_SHOWN]}..."
    return type(found).__name__
