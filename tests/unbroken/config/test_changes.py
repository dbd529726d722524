"""The difference between two configs: every key that differs, once, with what it does."""

from __future__ import annotations

import copy
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unbroken.config import ABSENT, Change, Effect, Effects, Section, Since, changes, effects, worst

LEAF = Effects()


def leaf(effect: Effect) -> Effects:
    return Effects(own=effect)


STEP = Effects(fields={"type": leaf(Effect.DATA), "scale": leaf(Effect.DATA)})
SCHEMA = Effects(
    fields={
        "embed": leaf(Effect.SHAPE),
        "classes": leaf(Effect.MEANING),
        "lr": leaf(Effect.SCHEDULE),
        "workers": leaf(Effect.FREE),
        "note": leaf(Effect.IGNORED),
        "pipeline": Effects(items=STEP),
        "clip": Effects(fields={"norm": leaf(Effect.SCHEDULE), "kind": leaf(Effect.MEANING)}),
        "custom": Effects(own=Effect.SCHEDULE, items=Effects(fields={"mult": LEAF})),
        "inert": Effects(own=Effect.IGNORED, fields={"x": leaf(Effect.SHAPE)}),
    }
)
OLD: dict[str, Any] = {
    "embed": 32,
    "classes": ["a", "b"],
    "lr": 0.1,
    "workers": 4,
    "pipeline": [{"type": "Load"}, {"type": "Resize", "scale": [8, 8]}],
    "clip": None,
    "custom": {"norm": {"mult": 1}},
}


def changed(**values: Any) -> tuple[Change, ...]:
    return changes(OLD, {**OLD, **values}, SCHEMA)


def test_the_golden_table_of_a_change_of_every_kind():
    new = {
        "embed": 64,
        "classes": ["b", "a"],
        "lr": 0.2,
        "workers": 8,
        "pipeline": [{"type": "Load"}, {"type": "Resize", "scale": [16, 8]}],
        "clip": {"norm": 1.0, "kind": 2},
        "custom": {"norm": {"mult": 2}, "head": {"mult": 10}},
        "note": "hello",
        "inert": {"x": 1},
    }
    assert [str(change) for change in changes(OLD, new, SCHEMA)] == [
        "embed: 32 -> 64 (shape)",
        "classes: ['a', 'b'] -> ['b', 'a'] (meaning)",
        "clip: None -> {'norm': 1.0, 'kind': 2} (meaning)",
        "pipeline.1.scale: [8, 8] -> [16, 8] (data)",
        "custom.head: (absent) -> {'mult': 10} (schedule)",
        "custom.norm.mult: 1 -> 2 (schedule)",
        "lr: 0.1 -> 0.2 (schedule)",
        "workers: 4 -> 8 (free)",
    ]


def test_a_list_of_sections_of_another_length_or_kind_is_one_value():
    longer = [{"type": "Load"}, {"type": "Flip"}, {"type": "Resize", "scale": [8, 8]}]
    other = [{"type": "Load"}, {"type": "Crop", "scale": [8, 8]}]
    for pipeline in (longer, other):
        assert changed(pipeline=pipeline) == (Change("pipeline", OLD["pipeline"], pipeline, Effect.DATA),)


def test_a_missing_side_is_shown_as_absent():
    (change,) = changes({"lr": 1}, {}, SCHEMA)
    assert change.new is ABSENT
    assert str(change) == "lr: 1 -> (absent) (schedule)"
    assert change.as_data() == {"key": "lr", "old": 1, "new": "(absent)", "effect": "schedule"}


def test_a_key_that_the_schema_does_not_know_is_a_change_of_meaning():
    (change,) = changes({"gone": 1}, {}, SCHEMA)
    assert change.effect is Effect.MEANING


@pytest.mark.parametrize(("old", "new"), [(1, 1.0), ((1, 2), [1, 2]), ([], ()), ({"a": (1,)}, {"a": [1]})])
def test_other_spellings_of_the_same_value_are_no_change(old: object, new: object):
    assert changes({"lr": old}, {"lr": new}, SCHEMA) == ()


@pytest.mark.parametrize(("old", "new"), [(1, True), (0, False), ("1", 1), (None, 0), ([1], 1), ({}, None)])
def test_values_that_only_look_alike_are_a_change(old: object, new: object):
    assert len(changes({"lr": old}, {"lr": new}, SCHEMA)) == 1


def test_positions_in_lists_sort_as_numbers():
    old = {"pipeline": [{"type": "Resize", "scale": n} for n in range(12)]}
    new = {"pipeline": [{"type": "Resize", "scale": n + 1} for n in range(12)]}
    assert [change.key for change in changes(old, new, SCHEMA)] == [f"pipeline.{n}.scale" for n in range(12)]


def test_the_worst_effect_decides():
    assert worst(changed(lr=1, workers=1)) is Effect.SCHEDULE
    assert worst(changed(lr=1, embed=1)) is Effect.SHAPE
    assert worst(()) is None


def test_the_order_of_severity_is_the_order_of_the_words():
    assert sorted(Effect, key=lambda effect: effect.severity) == list(Effect)


values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["a", "b", "type"]), inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"type": st.sampled_from("XY"), "v": inner}), max_size=3)
    ),
    max_leaves=10,
)
trees = st.dictionaries(st.sampled_from(["embed", "lr", "pipeline", "clip", "other"]), values)


@given(tree=trees)
def test_a_config_does_not_differ_from_itself(tree: dict[str, Any]):
    assert changes(tree, copy.deepcopy(tree), SCHEMA) == ()


@given(old=trees, new=trees)
def test_turning_the_sides_round_turns_every_change_round(old: dict[str, Any], new: dict[str, Any]):
    there, back = changes(old, new, SCHEMA), changes(new, old, SCHEMA)
    assert {(c.key, c.effect) for c in there} == {(c.key, c.effect) for c in back}
    assert len({c.key for c in there}) == len(there)


@given(old=trees, new=trees)
def test_carrying_out_the_changes_makes_the_new_config_of_the_old_one(old: dict[str, Any], new: dict[str, Any]):
    result = copy.deepcopy(old)
    for change in changes(old, new, SCHEMA):
        holder: Any = result
        *above, last = change.key.split(".")
        for part in above:
            holder = holder[int(part)] if isinstance(holder, list) else holder[part]
        if change.new is ABSENT:
            del holder[last]
        else:
            holder[int(last) if isinstance(holder, list) else last] = change.new
    assert changes(result, new, SCHEMA) == ()


class Step(Section):
    size: Annotated[int, Effect.SHAPE]
    how: Annotated[str, Effect.MEANING, Since(before="old")] = "new"


class Grown(Section):
    steps: tuple[Step, ...]
    added: Annotated[bool, Effect.DATA, Since(before=False)] = True


def test_a_key_that_came_later_had_in_earlier_records_the_value_that_the_schema_says() -> None:
    then: dict[str, Any] = {"steps": [{"size": 1}]}
    known = effects(Grown)
    assert changes(then, {"steps": [{"size": 1, "how": "old"}], "added": False}, known) == ()
    assert changes(then, {"steps": [{"size": 1, "how": "new"}], "added": True}, known) == (
        Change("steps.0.how", "old", "new", Effect.MEANING),
        Change("added", False, True, Effect.DATA),
    )
    back = changes({"steps": [{"size": 1, "how": "old"}], "added": False}, then, known)
    assert {change.new for change in back} == {ABSENT}, "what a present config lacks is no earlier record"
