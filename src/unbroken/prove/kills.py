"""Where a training is killed: seeded steps, both signals, any instant of a step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unbroken.quantities import all_of, counted

SIGNALS: tuple[Literal["SIGKILL"], Literal["SIGTERM"]] = ("SIGKILL", "SIGTERM")
SHORT = 5  # steps: every one is saved, else a kill would come before the first save


@dataclass(frozen=True, kw_only=True)
class Kill:
    """A signal that comes once `after` steps of a run are done, `share` of a step's time later."""

    run: str
    after: int
    signal: Literal["SIGKILL", "SIGTERM"]
    share: float

    def __str__(self) -> str:
        return f"{self.signal} at {self.after}"


def save_interval(steps: int) -> int:
    """How often a session of so many steps saves: seldom enough that a SIGKILL loses steps."""
    return max(1 if steps < SHORT else 2, steps // 10)


def choose_kills(lengths: Sequence[tuple[str, int]], number: int, chance: random.Random, *, every: int) -> list[Kill]:
    """So many kills, in the order in which they come; `lengths` are the runs in their order, with their steps.

    None comes before the first save, and none so late that the last step is done before the session stops: there would
    be nothing to resume. In a run that is too short for that they come at once; in one of a single step none does.
    """
    late = [(run, step) for run, steps in lengths for step in range(every + 1, steps - 1)]
    places = late or [(run, step) for run, steps in lengths for step in range(max(1, min(every + 1, steps - 1)), steps)]
    chosen = sorted(chance.sample(range(len(places)), min(number, len(places))))
    return [
        Kill(run=run, after=step, signal=SIGNALS[at % len(SIGNALS)], share=round(chance.random(), 2) if late else 0.0)
        for at, (run, step) in enumerate(places[place] for place in chosen)
    ]


def in_words(kills: Sequence[Kill]) -> str:
    """`3 kills (SIGKILL at 7 and 21, SIGTERM at 13)`."""
    by_signal = {each: [str(kill.after) for kill in kills if kill.signal == each] for each in SIGNALS}
    listed = ", ".join(f"{signal} at {all_of(steps)}" for signal, steps in by_signal.items() if steps)
    return f"{counted(len(kills), 'kill')} ({listed})" if kills else "no kill"
