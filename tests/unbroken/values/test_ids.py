from __future__ import annotations

from datetime import datetime

from unbroken.values import SystemClock, free_name, new_id


def test_two_ids_are_never_the_same_and_always_16_hex_digits() -> None:
    ids = {new_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in ids)


def test_a_session_is_named_by_its_moment_and_a_number_when_that_is_taken() -> None:
    moment = datetime(2026, 11, 22, 0, 5, 9)
    taken: set[str] = set()
    names = []
    for _ in range(3):
        names.append(free_name(moment, taken))
        taken.add(names[-1])
    assert names == ["20261122_000509", "20261122_000509_2", "20261122_000509_3"]


def test_names_of_sessions_sort_as_they_happened() -> None:
    moments = [datetime(2026, 1, 2, 3, 4, 5), datetime(2026, 1, 2, 13, 4, 5), datetime(2026, 11, 2, 3, 4, 5)]
    names = [free_name(moment, ()) for moment in moments]
    assert names == sorted(names)


def test_the_clock_of_this_machine_knows_its_offset_and_never_goes_back() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is not None
    assert clock.monotonic_s() <= clock.monotonic_s()
