"""Schemas: every leaf says what changing it does, and every key finds its effect."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from unbroken.config import ConfigError, Effect, Section, check_schema, effects


class Resize(Section):
    type: Annotated[Literal["Resize"], Effect.DATA] = "Resize"
    scale: Annotated[tuple[int, int], Effect.DATA] = (1, 1)
    only_here: Annotated[int, Effect.FREE] = 0


class Crop(Section):
    type: Annotated[Literal["Crop"], Effect.DATA] = "Crop"
    scale: Annotated[int, Effect.MEANING] = 1


class Mult(Section):
    lr_mult: float = 1.0


class Head(Section):
    classes: Annotated[int, Effect.SHAPE] = 2
    plain: float = 0.5


class Inert(Section):
    x: Annotated[int, Effect.SHAPE] = 1


class Whole(Section):
    head: Annotated[Head, Effect.MEANING] = Head()
    maybe: Head | None = None
    steps: tuple[Annotated[Resize | Crop, Field(discriminator="type")], ...] = ()
    custom: Annotated[dict[str, Mult], Effect.SCHEDULE] = Field(default_factory=dict)
    inert: Annotated[Inert, Effect.IGNORED] = Inert()
    free: Annotated[dict[str, Any], Effect.FREE] = Field(default_factory=dict)


@pytest.mark.parametrize(
    ("key", "effect"),
    [
        ("head.classes", Effect.SHAPE),
        ("head.classes.0", Effect.SHAPE),  # of an older version, where it was a list
        ("head.plain", Effect.MEANING),
        ("head", Effect.MEANING),
        ("maybe", Effect.SHAPE),
        ("steps.2.type", Effect.DATA),
        ("steps.0.scale", Effect.MEANING),
        ("steps.11.only_here", Effect.FREE),
        ("steps.0.scale.1", Effect.MEANING),
        ("steps", Effect.MEANING),
        ("custom.backbone.lr_mult", Effect.SCHEDULE),
        ("custom.backbone.norm.lr_mult", Effect.SCHEDULE),
        ("inert.x", Effect.IGNORED),
        ("inert", Effect.IGNORED),
        ("free.anything.below", Effect.FREE),
    ],
)
def test_every_key_has_the_effect_that_the_schema_says(key: str, effect: Effect):
    assert effects(Whole).of(key) is effect


@pytest.mark.parametrize("key", ["nothing", "maybe.nothing", "steps.0.nothing"])
def test_a_key_that_is_not_there_is_an_error(key: str):
    assert effects(Whole).find(key) is None
    with pytest.raises(ConfigError):
        effects(Whole).of(key)


def test_a_schema_in_which_a_leaf_has_no_effect_is_refused():
    with pytest.raises(ConfigError, match=r"Whole\.maybe\.plain"):
        check_schema(Whole)
    check_schema(Resize)
