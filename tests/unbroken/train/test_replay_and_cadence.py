from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken.journal import as_event
from unbroken.train.cadence import Every, due
from unbroken.train.progress import Progress
from unbroken.train.record.recorder import Replay, comparable_sessions, with_other_processes


def recorded(*steps: int) -> dict[int, dict]:
    return {step: {"samples": [step], "loss": step / 3} for step in steps}


def test_repeated_steps_that_are_the_same_are_said_to_be_bit_identical_once_they_are_all_done() -> None:
    replay = Replay(recorded(11, 12, 13))
    assert replay.compare(11, {"samples": [11], "loss": 11 / 3}) is None
    assert replay.compare(12, {"samples": [12], "loss": 12 / 3}) is None
    assert replay.compare(13, {"samples": [13], "loss": 13 / 3}) == "steps 11-13 replayed: bit-identical (loss)"
    assert replay.compare(14, {"samples": [14], "loss": 0.0}) is None
    assert replay.cut_short() is None


def test_one_bit_of_a_loss_is_a_difference_and_the_first_one_is_named() -> None:
    replay = Replay(recorded(11, 12))
    words = replay.compare(11, {"samples": [11], "loss": math.nextafter(11 / 3, 9.0)})
    assert words is not None and words.startswith("step 11 differs from what the interrupted session recorded: loss ")
    assert replay.compare(12, {"samples": [0], "loss": 0.0}) is None, "only the first is news"
    assert replay.cut_short() is None


def test_a_difference_that_another_number_of_processes_makes_is_said_to_be_one() -> None:
    counts = {"a": 4, "b": 2, "c": 2}
    begun = [{"event": "session", "session": name, "plan": {"processes": each}} for name, each in counts.items()]
    others = with_other_processes([event for line in begun if (event := as_event(line)) is not None])
    assert others == {"a": 4}
    for session, said in (("a", " (as it may: 4 processes had done it, which add up in another order)"), ("b", "")):
        replay = Replay({11: {"samples": [11], "loss": 0.25, "session": session}}, others=others)
        words = "step 11 differs from what the interrupted session recorded: loss 0.5, recorded 0.25"
        assert replay.compare(11, {"samples": [11], "loss": 0.5}) == words + said


def test_other_samples_are_a_difference_even_with_the_same_loss() -> None:
    assert "other samples" in (Replay(recorded(11)).compare(11, {"samples": [12], "loss": 11 / 3}) or "")


def test_nan_equals_nan_and_zero_is_not_minus_zero() -> None:
    assert "bit-identical" in (
        Replay({1: {"samples": [], "loss": "nan"}}).compare(1, {"samples": [], "loss": math.nan}) or ""
    )
    assert "differs" in (Replay({1: {"samples": [], "loss": 0.0}}).compare(1, {"samples": [], "loss": -0.0}) or "")


def test_the_verdict_names_what_was_compared_and_claims_nothing_else() -> None:
    one = {"samples": [1], "loss_d": 0.5, "loss_g": 0.25, "weights_crc32": 7}
    assert Replay({1: one}).compare(1, one) == (
        "steps 1-1 replayed: bit-identical (loss_d, loss_g and a probe of the weights)"
    )
    assert Replay({1: {"samples": [1], "note": "x"}}).compare(1, one) == (
        "steps 1-1 replayed: the same samples; nothing else was recorded that can be compared"
    )
    replay = Replay({1: one, 2: {"samples": [1], "loss_d": 0.5}})
    replay.compare(1, one)
    assert replay.compare(2, one) == "steps 1-2 replayed: bit-identical (loss_d)", "what every step had"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"loss_g": 0.2501}, "loss_g 0.2501, recorded 0.25"),
        ({"weights_crc32": 8}, "a probe of the weights"),
        ({"loss_d": math.inf}, "loss_d inf, recorded 0.5"),
    ],
)
def test_any_value_that_differs_is_a_difference(other: dict, words: str) -> None:
    one = {"samples": [1], "loss_d": 0.5, "loss_g": 0.25, "weights_crc32": 7}
    said = Replay({1: one}).compare(1, {**one, **other})
    assert said == f"step 1 differs from what the interrupted session recorded: {words}"


def test_a_repetition_that_is_cut_short_says_how_far_it_came() -> None:
    replay = Replay(recorded(11, 12, 13))
    assert replay.cut_short() is None
    replay.compare(11, {"samples": [11], "loss": 11 / 3})
    assert replay.cut_short() == "steps 11-11 replayed so far: bit-identical (loss)"


def test_without_a_record_there_is_nothing_to_say() -> None:
    replay = Replay({})
    assert replay.compare(1, {"samples": [1], "loss": 1.0}) is None
    assert replay.cut_short() is None


@pytest.mark.parametrize(
    ("step", "every", "total", "expected"),
    [(0, 10, 100, False), (10, 10, 100, True), (15, 10, 100, False), (100, 30, 100, True), (7, None, 7, True)],
)
def test_a_thing_is_due_every_so_many_steps_and_at_the_end(
    step: int, every: int | None, total: int, expected: bool
) -> None:
    assert due(step, every=every, total=total) is expected
    assert due(step, every=0, total=None) is False


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    step=st.integers(1, 60),
    size=st.integers(1, 9),
    every=st.integers(1, 5),
    epochs=st.integers(1, 4),
)
def test_what_is_due_by_epochs_is_due_where_an_epoch_ends_and_nowhere_else(
    step: int, size: int, every: int, epochs: int
) -> None:
    """Every step uses one sample here, so that step n is at position n."""
    progress = Progress(step=step, position=step, dataset_size=size)
    ends = step % size == 0
    assert progress.ends_epoch is ends
    assert Every(epochs=epochs).due(progress, total=None) is (ends and step // size % epochs == 0)
    assert Every(steps=every).due(progress, total=None) is (step % every == 0)
    assert Every().due(progress, total=None) is False
    assert Every().due(progress, total=step) is True


def session(name: str, *effects: str) -> dict[str, Any]:
    changes = [{"key": "lr", "effect": effect} for effect in effects]
    return {"event": "session", "session": name, "plan": {"verdict": "Resume", "changes": changes}}


@pytest.mark.parametrize(
    ("events", "comparable"),
    [
        ([session("a")], set()),
        ([session("a"), session("b")], {"a"}),
        ([session("a"), session("b", "free"), session("c")], {"a", "b"}),
        ([session("a"), session("b", "schedule")], set()),
        ([session("a"), session("b", "schedule"), session("c")], {"b"}),
        ([session("a"), session("b"), session("c", "free", "data")], set()),
    ],
)
def test_only_sessions_that_computed_the_same_are_compared_with(
    events: list[dict[str, Any]], comparable: set[str]
) -> None:
    assert comparable_sessions(events) == comparable
