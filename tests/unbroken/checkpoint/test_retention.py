from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from unbroken.checkpoint.retention import NEVER_FEWER_THAN, Policy, StoredFile, retain


def stored(*steps: int, bad: tuple[int, ...] = ()) -> list[StoredFile]:
    return [StoredFile(name=f"iter_{step}.pth", step=step, verified=step not in bad) for step in steps]


def kept(decisions: object) -> list[str]:
    return [item.name for item in decisions if item.keep]  # type: ignore[attr-defined]


def test_without_a_limit_everything_is_kept() -> None:
    assert len(kept(retain(stored(10, 20, 30), Policy(keep_last=None)))) == 3


def test_the_last_ones_are_kept_newest_first_and_each_decision_has_a_reason() -> None:
    decisions = retain(stored(10, 40, 20, 30), Policy(keep_last=2))
    assert [item.name for item in decisions] == ["iter_40.pth", "iter_30.pth", "iter_20.pth", "iter_10.pth"]
    assert kept(decisions) == ["iter_40.pth", "iter_30.pth"]
    assert decisions[0].reason == "among the last 2"
    assert decisions[3].reason == "older than the last 2, 2 newer ones are verified"


def test_keeping_one_still_keeps_two() -> None:
    assert kept(retain(stored(10, 20, 30), Policy(keep_last=1))) == ["iter_30.pth", "iter_20.pth"]
    assert kept(retain(stored(10, 20, 30), Policy(keep_last=0))) == ["iter_30.pth", "iter_20.pth"]


def test_a_damaged_newer_one_does_not_count() -> None:
    decisions = retain(stored(10, 20, 30, bad=(30,)), Policy(keep_last=1))
    assert kept(decisions) == ["iter_30.pth", "iter_20.pth", "iter_10.pth"]
    assert "only 1 newer verified" in decisions[2].reason


def test_pinned_files_stay() -> None:
    assert "iter_10.pth" in kept(retain(stored(10, 20, 30, 40), Policy(keep_last=2), pinned={"iter_10.pth"}))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    files=st.lists(st.tuples(st.integers(1, 500), st.booleans()), unique_by=lambda item: item[0], max_size=8),
    keep_last=st.integers(-1, 5),
)
def test_whatever_goes_has_two_newer_verified_ones(files: list[tuple[int, bool]], keep_last: int) -> None:
    given_files = [StoredFile(name=str(step), step=step, verified=good) for step, good in files]
    for decision in retain(given_files, Policy(keep_last=keep_last)):
        if not decision.keep:
            newer = [item for item in given_files if item.step > int(decision.name) and item.verified]
            assert len(newer) >= NEVER_FEWER_THAN
