"""The one kind of schema, frozen and closed to unknown keys: its sections, and the effect of every key."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict
from pydantic.fields import FieldInfo

from unbroken.config.effect import Effect, Effects, Instead, Since, combine
from unbroken.errors import ConfigError


@dataclass(frozen=True)
class Misfit:
    """Settings that are right alone and wrong together, as a section's own `misfits` finds them.

    Args:
        key: Dotted, relative to the section that says so.
        what: What is wrong, as the predicate of a sentence on the key.
        expected: What would be right.
        found: What stands there.
        do: What to change.
    """

    key: str
    what: str
    expected: object = ""
    found: object = ""
    do: str = ""


class Section(BaseModel):
    """One typed part of a config, closed to unknown keys; every field says in its annotation what changing it does.

    A field that is itself a section needs no effect of its own; when it has one, it counts for all fields below that
    have none. `advice` says of keys that other programs know here, or knew, what does the same.

    Example:
        from typing import Annotated
        from unbroken.config import Effect, Section, validate


        class Config(Section):
            width: Annotated[int, Effect.SHAPE] = 32
            lr: Annotated[float, Effect.SCHEDULE] = 0.05


        assert validate(Config, {"lr": 0.1}).canonical == {"width": 32, "lr": 0.1}
    """

    advice: ClassVar[Mapping[str, str]] = {}

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, defer_build=True)

    @classmethod
    def not_built(cls, _tree: Mapping[str, Any], /) -> Misfit | None:
        """Name the one reason why a whole config of another program cannot be read; asked first, and then alone.

        Args:
            _tree: The whole config, as it was read.
        Returns:
            None where there is none; a section that needs no such check leaves this as it is.
        """
        return None

    @classmethod
    def completed(cls, tree: Mapping[str, Any]) -> Mapping[str, Any]:
        """Give a whole config the values that follow from others in it; asked before anything is checked.

        Args:
            tree: The whole config, as it was read.
        Returns:
            The same, or one with more keys.
        """
        return tree

    def misfits(self) -> Iterator[Misfit]:
        """Yield what does not fit together in this section; asked once everything has the right type."""
        yield from ()


@cache  # a schema does not change, and a launch asks for the same one many times
def effects(schema: type[Section]) -> Effects:
    """Return the effect of every key of a schema as a tree of plain data.

    Args:
        schema: The section that all others hang from.
    """
    return Effects(fields={name: _of_field(info) for name, info in schema.model_fields.items()})


def check_schema(schema: type[Section]) -> None:
    """Require that every leaf of a schema says what changing it does: a test of each application asks this.

    Args:
        schema: The section that all others hang from.
    Raises:
        ConfigError: Some do not; it names them.
    """
    missing = sorted(set(_without_effect(schema.__name__, effects(schema), inherited=None)))
    if missing:
        raise ConfigError(
            schema.__name__,
            f"these fields do not say what changing them does: {', '.join(missing)}",
            do="Annotate each with an Effect, for example `Annotated[int, Effect.SHAPE]`.",
        )


def effect_of_field(info: FieldInfo) -> Effect | None:
    """Return the effect written at the field itself."""
    return next((item for item in info.metadata if isinstance(item, Effect)), None)


def instead_of(info: FieldInfo) -> str:
    """What is to be set instead of an ignored field, "" where nothing is."""
    return next((item.what for item in info.metadata if isinstance(item, Instead)), "")


def keys_called(name: str, schema: type[Section]) -> list[str]:
    """The dotted keys of a schema whose last word is this name; positions in lists are left out."""
    return [
        key for key in _dotted("", effects(schema)) if key.rpartition(".")[2].lower() == name.lower() and "." in key
    ]


def _dotted(above: str, node: Effects) -> Iterator[str]:
    for name, below in node.fields.items():
        key = f"{above}.{name}" if above else name
        if below.own is not Effect.IGNORED:
            yield key
            yield from _dotted(key, below)


def sections_in(annotation: Any) -> tuple[type[Section], ...]:
    """Return the sections that a type can hold, through unions, lists and mappings, not through sections."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return (annotation,)
    if get_origin(annotation) is Literal:
        return ()
    parts = get_args(annotation)
    inside = parts[:1] if get_origin(annotation) is Annotated else parts
    return tuple(dict.fromkeys(section for part in inside for section in sections_in(part)))


def _of_field(info: FieldInfo) -> Effects:
    node = _of_type(info.annotation)
    since = next((item for item in info.metadata if isinstance(item, Since)), None)
    return Effects(own=effect_of_field(info) or node.own, since=since, fields=node.fields, items=node.items)


def _of_type(annotation: Any) -> Effects:
    """Follow a type down to its sections; what has none below it is a leaf."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return effects(annotation)
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        node = _of_type(parts[0])
        own = next((item for item in parts[1:] if isinstance(item, Effect)), node.own)
        return Effects(own=own, fields=node.fields, items=node.items)
    if origin in (Union, types.UnionType):
        return combine(_of_type(part) for part in parts)
    inside = [_of_type(part) for part in parts if origin is not Literal and sections_in(part)]
    return Effects(items=combine(inside)) if inside else Effects()


def _without_effect(key: str, node: Effects, *, inherited: Effect | None) -> Iterator[str]:
    effect = node.own or inherited
    below = [(f"{key}.{name}", part) for name, part in node.fields.items()]
    if node.items is not None:
        below.append((f"{key}.*", node.items))
    if not below and effect is None:
        yield key
    for name, part in below:
        yield from _without_effect(name, part, inherited=effect)
