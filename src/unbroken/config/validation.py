"""A config checked against a schema, with all that is wrong in it said at once."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from unbroken.config.complaints import Complaint, complaints_of, raise_together
from unbroken.config.config_file import ConfigFile
from unbroken.config.effect import Effect
from unbroken.config.schema import effect_of_field, instead_of
from unbroken.config.section import Section
from unbroken.errors import ConfigError

S = TypeVar("S", bound=Section)


@dataclass(frozen=True, kw_only=True)
class Validated(Generic[S]):
    """A config that fits its schema.

    `canonical` is JSON-able, has every default filled in and no ignored key; `ignored` are the ignored keys
    that the user gave, so that the command line can say that they do nothing.
    """

    value: S
    canonical: dict[str, Any]
    ignored: Mapping[str, str] = field(default_factory=dict)

    @property
    def ignored_in_words(self) -> tuple[str, ...]:
        """Each ignored key with what to set instead, where there is such a thing."""
        return tuple(f"{key} (set {instead})" if instead else key for key, instead in self.ignored.items())


def validate(schema: type[S], source: ConfigFile | Mapping[str, Any], *, where: str = "config") -> Validated[S]:
    """Check a config against its schema; raise one ConfigError that lists everything wrong with it.

    `where` names the source in messages when `source` is a bare tree.
    """
    file = source if isinstance(source, ConfigFile) else ConfigFile(path=Path(where), tree=dict(source))
    value = _typed(schema, file)
    misfits = [Complaint.of_misfit(key, misfit) for key, misfit in _misfits(value, "")]
    if misfits:
        raise_together(misfits, file)
    return Validated(value=value, canonical=canonical(value), ignored=dict(_ignored(value, "")))


def readable_parts(schema: type[Section], tree: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Check the parts of another program's config one by one: canonical those that fit, and the names of the others.

    A part is a key of the schema's first level. What does not fit together is no matter here, nor is a key that the
    schema does not know.
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


def _typed(schema: type[S], file: ConfigFile) -> S:
    """Go through JSON: there a list may fill a tuple while every other type stays strict."""
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
    """Return a section as JSON-able data without its ignored fields."""
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
