"""A config checked against a schema, with all that is wrong in it said at once."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar, get_args, get_origin

from pydantic import TypeAdapter, ValidationError

from unbroken.config.config_file import ConfigFile
from unbroken.config.effect import Effect
from unbroken.config.nearest import suggestion
from unbroken.config.overrides import literal
from unbroken.config.schema import Misfit, Section, effect_of_field, effects, instead_of, keys_called, sections_in
from unbroken.config.validated import Validated
from unbroken.errors import ConfigError
from unbroken.quantities import counted

S = TypeVar("S", bound=Section)


def validate(schema: type[S], source: ConfigFile | Mapping[str, Any], *, where: str = "config") -> Validated[S]:
    """Check a config against its schema.

    Args:
        schema: The section that all others hang from.
        source: What was read, or a bare tree.
        where: What errors call a bare tree.
    Returns:
        The config, typed and canonical.
    Raises:
        ConfigError: Something is wrong: all of it is listed, each with its place and the nearest known name.
    """
    file = source if isinstance(source, ConfigFile) else ConfigFile(path=Path(where), tree=dict(source))
    value = typed(schema, file)
    misfits = [Complaint.of_misfit(key, misfit) for key, misfit in _misfits(value, "")]
    if misfits:
        raise_together(misfits, file)
    return Validated(
        typed=lambda: value, canonical=canonical(value), ignored=dict(_ignored(value, "")), effects=effects(schema)
    )


def readable_parts(schema: type[Section], tree: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Check the parts of another program's config one by one; how they fit together is no matter here.

    Args:
        schema: The section that all others hang from; a part is a key of its first level.
        tree: The config; keys that the schema does not know are passed over.
    Returns:
        The parts that fit, canonical, and the names of the others.
    """
    fitting, others = dict[str, Any](), list[str]()
    for name, info in schema.model_fields.items():
        if name not in tree or effect_of_field(info) is Effect.IGNORED:
            continue
        try:
            part: Any = TypeAdapter(info.rebuild_annotation()).validate_json(json.dumps(tree[name]), strict=True)
            fitting[name] = canonical(part)
        except (ValidationError, TypeError, ValueError):
            others.append(name)
    return fitting, tuple(others)


def typed(schema: type[S], file: ConfigFile) -> S:
    """Make the section; go through JSON: there a list may fill a tuple while every other type stays strict."""
    if (reason := schema.not_built(file.tree)) is not None:
        raise_together([Complaint.of_misfit(reason.key, reason)], file)
    try:
        text = json.dumps(schema.completed(file.tree))
    except (TypeError, ValueError) as error:
        raise ConfigError(file.path, f"the config is not plain data: {error}") from error
    try:
        return schema.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise_together(complaints_of(error.errors(include_url=False), schema, file.tree), file)


def canonical(value: Any) -> Any:
    """Return a section as JSON-able data with every default and without its ignored fields.

    Args:
        value: A section, or anything in one.
    """
    if isinstance(value, Section):
        return {name: canonical(getattr(value, name)) for name in _fields(value, ignored=False)}
    if isinstance(value, Mapping):
        return {str(name): canonical(below) for name, below in value.items()}
    if isinstance(value, list | tuple):
        return [canonical(below) for below in value]
    return value if isinstance(value, bool | int | float | None) else str(value)


def _fields(section: Section, *, ignored: bool) -> list[str]:
    fields = type(section).model_fields.items()
    return [name for name, info in fields if (effect_of_field(info) is Effect.IGNORED) == ignored]


def _below(section: Section, key: str) -> Iterator[tuple[str, Section]]:
    for name in _fields(section, ignored=False):
        yield from _sections(getattr(section, name), f"{key}.{name}" if key else name)


def _sections(value: Any, key: str) -> Iterator[tuple[str, Section]]:
    if isinstance(value, Section):
        yield key, value
    elif isinstance(value, Mapping | list | tuple):
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, below in pairs:
            yield from _sections(below, f"{key}.{name}")


def _misfits(section: Section, key: str) -> Iterator[tuple[str, Any]]:
    for misfit in section.misfits():
        yield f"{key}.{misfit.key}" if key else misfit.key, misfit
    for name, below in _below(section, key):
        yield from _misfits(below, name)


def _ignored(section: Section, key: str) -> Iterator[tuple[str, str]]:
    for name in _fields(section, ignored=True):
        if name in section.model_fields_set:
            yield (f"{key}.{name}" if key else name), instead_of(type(section).model_fields[name])
    for name, below in _below(section, key):
        yield from _ignored(below, name)


NUMBERS = ("a whole number", "a number")
# What pydantic says, in words that are no types.
IN_WORDS = {
    "a valid integer": "a whole number",
    "a valid number": "a number",
    "a valid boolean": "True or False",
    "a valid string": "text in quotes",
}
TOO_FEW = "has too few values"
MOST_MEANT = 2  # keys of one name
SHOWN = 8  # more than this at once is not read
MOST_COMPLAINTS = 1000  # more than this at once is another kind of file, and each takes a search for the name meant


@dataclass(frozen=True, kw_only=True)
class Complaint:
    """One thing that is wrong with one key."""

    key: str
    what: str
    expected: str = ""
    found: str = ""
    do: str = ""

    @classmethod
    def of_misfit(cls, key: str, misfit: Misfit) -> Complaint:
        """Take over a misfit under its full key."""
        return cls(key=key, what=misfit.what, expected=str(misfit.expected), found=str(misfit.found), do=misfit.do)


def raise_together(complaints: Sequence[Complaint], file: ConfigFile) -> NoReturn:
    """Raise one error that lists the complaints in the order of the files and lines they come from."""
    ordered = sorted(complaints, key=lambda complaint: _reading_order(complaint, file))
    errors = [_error(complaint, file) for complaint in ordered]
    if len(errors) == 1:
        raise errors[0]
    listed = "".join(f"\n  {error}" for error in errors[:SHOWN])
    more = f"\n  ... and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
    raise ConfigError(file.path, f"{len(errors)} settings are wrong", do=f"{listed}{more}")


def complaints_of(errors: Iterable[Any], schema: type[Section], tree: Mapping[str, Any]) -> list[Complaint]:
    """Translate pydantic's findings; union members that fail at the same key become one complaint."""
    by_key: dict[str, list[Complaint]] = {}
    for error in islice(errors, MOST_COMPLAINTS):
        complaint = _translate(error, schema, tree)
        found = by_key.setdefault(complaint.key, [])
        if found and found[-1].what == complaint.what == TOO_FEW:  # each value that is not there is one of pydantic's
            found.pop()
        found.append(complaint)
    return [
        replace(found[0], expected=" or ".join(dict.fromkeys(each.expected for each in found if each.expected)))
        for found in by_key.values()
    ]


def _error(complaint: Complaint, file: ConfigFile) -> ConfigError:
    return ConfigError(
        file.place_of(complaint.key),
        f"`{complaint.key}` {complaint.what}" if complaint.key else complaint.what,
        expected=complaint.expected,
        found=complaint.found,
        do=complaint.do,
    )


def _reading_order(complaint: Complaint, file: ConfigFile) -> tuple[int, int]:
    place = file.place_of(complaint.key)
    known = place.file in file.sources
    return (file.sources.index(place.file) if known else len(file.sources)), place.line


def _translate(error: Any, schema: type[Section], tree: Mapping[str, Any]) -> Complaint:
    loc, context = error["loc"], error.get("ctx", {})
    key = dotted(loc, tree, missing=error["type"] in ("missing", "extra_forbidden"))
    match error["type"]:
        case "extra_forbidden":
            sections = sections_at(loc[:-1], schema)
            names = [name for section in sections for name in section.model_fields]
            told = next((section.advice[loc[-1]] for section in sections if loc[-1] in section.advice), "")
            below = keys_called(str(loc[-1]), schema)
            meant = f"Did you mean {' or '.join(f'`{each}`' for each in below[:MOST_MEANT])}?" if below else ""
            do = told or meant or suggestion(str(loc[-1]), names)
            return Complaint(key=key, what="is not a known key", do=do)
        case "missing" if loc and isinstance(loc[-1], int):
            values = f"{loc[-1] + 1} values"
            return Complaint(
                key=dotted(loc[:-1], tree, missing=False), what=TOO_FEW, expected=values, found=_short(error["input"])
            )
        case "missing":
            return Complaint(key=key, what="is missing", do="Add it.")
        case "union_tag_invalid":
            tags = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
            found = context["tag"]
            return Complaint(
                key=f"{key}.{_tag_of(context)}", what="names nothing that is known",
                expected=_alternatives(tags), found=repr(found), do=suggestion(found, tags),
            )  # fmt: skip
        case "union_tag_not_found":
            return Complaint(key=key, what=f"has no `{_tag_of(context)}`", found=_short(error["input"]))
        case _:
            expected, found = _expectation(error), error["input"]
            quoted = isinstance(found, str) and found.strip() and expected in (*NUMBERS, "True or False")
            do = "Write it without quotes." if quoted and literal(found) is not found else ""
            return Complaint(key=key, what="has a wrong value", expected=expected, found=_short(found), do=do)


def _tag_of(context: Any) -> str:
    """Return the field that tells the sections of a union apart: `type`, or OpenPCDet's `NAME`."""
    return str(context["discriminator"]).strip("'")


def _alternatives(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def _expectation(error: Any) -> str:
    if error["type"] in ("too_long", "too_short"):
        context = error["ctx"]
        bound = "at most" if "max_length" in context else "at least"
        length = context.get("max_length", context.get("min_length"))
        return f"{bound} {counted(length, 'value')}"
    message = str(error["msg"]).removeprefix("Value error, ")
    found = message.removeprefix("Input should be ").removeprefix("Input should ")
    return IN_WORDS.get(found, found)


def _short(value: Any, *, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def dotted(loc: Sequence[str | int], tree: Any, *, missing: bool) -> str:
    """Return pydantic's path as a key: the names of union members in it are not part of the config."""
    parts: list[str] = []
    for place, part in enumerate(loc):
        inside = isinstance(tree, Mapping) and part in tree
        listed = isinstance(tree, list | tuple) and isinstance(part, int) and part < len(tree)
        if inside or listed:
            tree = tree[part]
            parts.append(str(part))
        elif missing and place == len(loc) - 1:
            parts.append(str(part))
    return ".".join(parts)


def sections_at(loc: Sequence[str | int], schema: type[Section]) -> tuple[type[Section], ...]:
    """Return the sections that can stand at pydantic's path; a name that is no field picks among them."""
    here: tuple[type[Section], ...] = (schema,)
    for part in loc:
        fields = [section.model_fields[part] for section in here if part in section.model_fields]
        if fields:
            here = tuple(section for info in fields for section in sections_in(info.annotation))
        elif isinstance(part, str):
            here = tuple(section for section in here if _answers_to(section, part)) or here
    return here


def _answers_to(section: type[Section], tag: str) -> bool:
    literals = [info.annotation for info in section.model_fields.values() if get_origin(info.annotation) is Literal]
    return section.__name__ == tag or any(tag in get_args(literal) for literal in literals)
