"""Which settings of a config become columns of TensorBoard's HParams tab, and in which order."""

from __future__ import annotations

import math

from unbroken.config import Effect, Effects
from unbroken.train.record.hparams import MOST_CHARACTERS, MOST_SETTINGS, settings_of

ANY = Effects(own=Effect.DATA, items=Effects(own=Effect.DATA))


def leaf(effect: Effect) -> Effects:
    return Effects(own=effect)


def test_single_values_keep_their_kind_and_lists_become_text() -> None:
    config = {"lr": 1, "on": True, "name": "x", "none": None, "sizes": [1, 2], "deep": {"a": {"b": 0.5}}}
    assert settings_of(config, ANY) == {
        "lr": 1.0,
        "on": True,
        "name": "x",
        "none": "None",
        "sizes": "[1, 2]",
        "deep.a.b": 0.5,
    }


def test_sections_in_a_list_are_named_by_their_place() -> None:
    assert settings_of({"steps": [{"size": 3}, {"size": 4}]}, ANY) == {"steps.0.size": 3.0, "steps.1.size": 4.0}


def test_what_is_changed_between_experiments_comes_first() -> None:
    effects = Effects(
        fields={
            "a_free": leaf(Effect.FREE),
            "b_shape": leaf(Effect.SHAPE),
            "c_lr": leaf(Effect.SCHEDULE),
            "d_batch": leaf(Effect.DATA),
            "type": leaf(Effect.SCHEDULE),
        }
    )
    config = {"type": "t", "a_free": 1, "b_shape": 1, "c_lr": 1, "d_batch": 1, "strange": 1}
    assert list(settings_of(config, effects)) == ["c_lr", "d_batch", "b_shape", "a_free", "strange", "type"]
    assert next(iter(settings_of(config, effects, chosen={"a_free": "f"}))) == "a_free"


def test_there_are_never_more_than_sixty() -> None:
    config = {f"key_{number:03}": number for number in range(1000)}
    assert list(settings_of(config, ANY)) == [f"key_{number:03}" for number in range(MOST_SETTINGS)]


def test_hostile_values_are_harmless() -> None:
    config = {
        "long": "x" * 100_000,
        "k" * 100_000: 1,
        "escape": "\x1b[31m\u202e<script>",
        "half": "\ud800",
        "nan": math.nan,
        "huge": 10**400,
        "": 3,
    }
    found = settings_of(config, ANY)
    assert all(len(key) <= MOST_CHARACTERS for key in found)
    assert all(len(value) <= MOST_CHARACTERS for value in found.values() if isinstance(value, str))
    assert found["escape"] == "\N{REPLACEMENT CHARACTER}[31m\N{REPLACEMENT CHARACTER}<script>"
    assert found["half"] == "\N{REPLACEMENT CHARACTER}" and found["nan"] == "nan"
    assert str(found["huge"]).startswith("1000")
