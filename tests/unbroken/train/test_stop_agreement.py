"""Up to a thousand processes that are signalled, leave their loops and die at random: all end after the same step.

What they send and what they make of it is the library's own; only the wires between them are played here.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from unbroken.train.distributed.agreement import meaning_of, wish_of
from unbroken.train.distributed.world import NAMED, first_reason, row_of

LAST = 400
SIZES = (1, 2, 3, 8, 64, 100, 512, 1_000, 1_024)
SAVE_EVERY = 7
# What may happen to a process, and when: before it says what it wishes at a boundary, or after that, as the answer
# is on its way.
ACCIDENTS = ("signal", "deadline", "finish", "break", "kill")
REASONS = {"signal": "SIGTERM", "deadline": "the end of the session"}


@dataclass
class Process:
    """What one of them knows."""

    rank: int
    reason: str | None = None
    ended: str = ""
    left: bool = False
    dead: bool = False

    def meet(self, accident: str) -> None:
        match accident:
            case "kill":
                self.dead = True
            case "finish":
                self.ended = self.ended or f"what process {self.rank} found"
            case "break":
                self.left = True
            case _:
                self.reason = self.reason or REASONS[accident]

    def row(self) -> bytes:
        return row_of(wish_of(stop=self.reason, ended=self.ended, left=self.rank if self.left else None))

    def hear(self, agreed: str | None) -> tuple[str | None, str]:
        stop, ended = meaning_of(agreed, left=self.left)
        self.reason, self.ended = stop or self.reason, self.ended or ended
        return stop, ended


def session(size: int, step: int, chance: random.Random, seen: Counter[str]) -> tuple[str, int]:
    """Train from a step on until something ends it; how it ended, and after which step."""
    everyone = [Process(rank) for rank in range(size)]
    late = list[tuple[Process, str]]()
    while step < LAST:
        step += 1
        struck = [(chance.choice(everyone), chance.choice(ACCIDENTS)) for _ in range(chance.choice((0,) * 9 + (1, 2)))]
        # A loop is left, and finished, between two steps only: who does has said so when it is asked.
        before = [each for each in struck if each[1] in ("finish", "break") or chance.random() < 0.5]
        waiting, late = late, [each for each in struck if each not in before]
        for process, accident in before:
            process.meet(accident)
        seen.update(
            f"{accident} {when}" for when, some in (("before", before), ("after", late)) for _, accident in some
        )
        if any(process.dead for process in everyone):  # no row comes from it, and every other one notices
            assert any(accident == "kill" for _, accident in [*before, *waiting])
            return "lost", step
        rows = [process.row() for process in everyone]
        for process, accident in late:
            process.meet(accident)
        agreed = first_reason(rows)
        lowest = min((process.rank for process, _ in [*before, *waiting]), default=None)
        assert (agreed is None) == (lowest is None), "who wished at this boundary is heard at it, and nobody else"
        living = [process for process in everyone if not process.dead]
        heard = {process.hear(agreed) for process in living if not process.left}
        assert len(heard) <= 1, heard  # the same for all that are still in their loops
        for process in living:
            if process.left:
                process.hear(agreed)
        if agreed is not None and lowest is not None:
            wisher = everyone[lowest]
            kind, _, words = agreed.partition(":")
            assert words in (wisher.reason, wisher.ended) or (kind == "left" and f"process {lowest}," in words)
            assert heard in (set(), {(words, "") if kind != "end" else (None, words)})
            return "finished" if kind == "end" else "stopped", step
    return "finished", step


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_thousand_processes_that_are_asked_leave_and_die_at_random_end_after_the_same_step(seed: int) -> None:
    print("seed", seed)
    chance, seen, ends = random.Random(seed), Counter[str](), Counter[str]()
    saved = 0
    while saved < LAST:
        how, step = session(chance.choice(SIZES), saved, chance, seen)
        ends[how] += 1
        # The step in which one died is not saved everywhere, and the last save may lie further back.
        kept = step if how != "lost" else chance.choice((step - 1, (step - 1) // SAVE_EVERY * SAVE_EVERY))
        saved = max(saved, kept)
    assert min(ends[how] for how in ("lost", "stopped", "finished")) > 0
    assert {f"{accident} before" for accident in ACCIDENTS} | {f"{each} after" for each in (*REASONS, "kill")} <= set(
        seen
    )


@pytest.mark.parametrize("words", ["SIGTERM", "x" * 200, "路" * 100, "a\N{NO-BREAK SPACE}b", ""])
def test_a_reason_of_any_length_is_the_same_for_all_and_nul_is_none(words: str) -> None:
    rows = [row_of(None), row_of(wish_of(stop=words, ended="", left=None)), row_of("end:later")]
    assert {len(row) for row in rows} == {NAMED}
    stop, ended = meaning_of(first_reason(rows), left=True)
    assert stop is not None and words.startswith(stop) and not ended
    assert first_reason([rows[0]] * 3) is None
