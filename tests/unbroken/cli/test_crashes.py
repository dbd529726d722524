"""What is decided after a crash, from how the crashes went so far."""

from __future__ import annotations

import pytest

from unbroken.cli.crashes import PASSED_ON, Activity, Again, Crash, GiveUp, after, exit_code, in_words
from unbroken.cli.job import continuing


def crash(step: int, *, further: bool = False, code: int = -11, what: str = "step") -> Crash:
    return Crash(code=code, place=Activity(what=what, step=step), further=further)


def test_the_wait_doubles_up_to_ten_minutes() -> None:
    so_far = [crash(step) for step in range(1, 12)]
    waits = [after(so_far[:n], restarts=20, backoff_s=10.0) for n in range(1, 12)]
    assert [again.wait_s for again in waits if isinstance(again, Again)][:7] == [10, 20, 40, 80, 160, 320, 600]
    assert waits[-1] == Again(number=11, wait_s=600.0)


def test_so_many_restarts_without_a_further_checkpoint_and_no_more() -> None:
    so_far = [crash(step) for step in range(1, 4)]
    assert after(so_far[:2], restarts=2, backoff_s=1.0) == Again(number=2, wait_s=2.0)
    assert after(so_far, restarts=2, backoff_s=1.0) == GiveUp(
        why="it was started again 2 times without a further checkpoint"
    )


def test_a_further_checkpoint_begins_the_count_and_the_wait_anew() -> None:
    so_far = [crash(1), crash(2), crash(9, further=True)]
    assert after(so_far, restarts=2, backoff_s=1.0) == Again(number=1, wait_s=1.0)
    assert after([*so_far, crash(10)], restarts=2, backoff_s=1.0) == Again(number=2, wait_s=2.0)


def test_but_a_step_that_fails_three_times_is_given_up() -> None:
    so_far = [crash(8, further=True), crash(9, further=True), crash(8, further=True), crash(8, further=True)]
    assert isinstance(after(so_far[:3], restarts=9, backoff_s=1.0), Again)
    assert after(so_far, restarts=9, backoff_s=1.0) == GiveUp(why="it failed 3 times in step 8")


def test_the_evaluation_after_a_step_is_another_place_than_the_step() -> None:
    so_far = [crash(8), crash(8, what="evaluation"), crash(8)]
    assert isinstance(after(so_far, restarts=9, backoff_s=1.0), Again)


def test_the_same_crash_before_the_first_step_is_given_up_too() -> None:
    so_far = [Crash(code=1, place=Activity(), further=False)] * 3
    assert after(so_far, restarts=9, backoff_s=1.0) == GiveUp(why="it failed 3 times before its first step")


@pytest.mark.parametrize(
    ("code", "words", "passed"),
    [
        (-9, "was killed by signal 9 (SIGKILL), perhaps because the machine ran out of memory", 137),
        (-11, "was killed by signal 11 (SIGSEGV), a fault in native code", 139),
        (-64, "was killed by signal 64", 192),
        (1, "ended with exit code 1, for the reason printed above", 1),
    ],
)
def test_how_it_ended_in_words_and_as_a_shell_says_it(code: int, words: str, passed: int) -> None:
    assert (in_words(code).replace(" (SIGRTMAX)", ""), exit_code(code)) == (words, passed)


def test_what_means_something_by_itself_is_passed_on() -> None:
    assert {0, 2, 10, 11, 12, 13, 14, 75, 130} == PASSED_ON


def test_a_note_over_a_longer_note_is_read_as_written() -> None:
    long = Activity(what="step", step=1000, samples=tuple((0, n) for n in range(50)))
    short = Activity(what="evaluation", step=7)
    for first, second in ((long, short), (short, long)):
        note = bytearray(first.as_note())
        note[: len(second.as_note())] = second.as_note()
        assert Activity.from_note(bytes(note)) == second
    assert Activity.from_note(b"") == Activity()


@pytest.mark.parametrize(
    "note",
    [
        b"{\n",
        b"[]\n",
        b'{"what": 1, "what": 2}\n',
        b"[" * 100_000 + b"\n",
        b"\xff\n",
        b'{"what": "step", "step": 1, "samples": [3]}\n',
    ],
)
def test_a_note_that_a_crash_garbled_is_none(note: bytes) -> None:
    assert Activity.from_note(note) == Activity()


def test_the_samples_of_a_step_are_named_by_epoch() -> None:
    assert (
        Activity(what="step", step=3, samples=((0, 4), (0, 7), (1, 2))).read()
        == "samples 4, 7 of epoch 0; 2 of epoch 1"
    )
    assert Activity(what="step", step=3, samples=((2, 9),)).read() == "sample 9 of epoch 2"
    assert (
        Activity(what="step", step=3, samples=tuple((0, n) for n in range(40)))
        .read()
        .endswith("31 of epoch 0 and 8 more")
    )


def test_a_command_that_goes_on_keeps_its_supervision() -> None:
    typed = ["python", "train.py", "c.yaml", "--ckpt", "a.pth", "--fresh", "--restarts", "5", "--backoff", "1m"]
    assert continuing(typed) == ["python", "train.py", "c.yaml", "--restarts", "5", "--backoff", "1m"]
