"""Learning rates by replay, as a training uses them."""

from __future__ import annotations

from collections.abc import Sequence

from mapsage.schedule import Phase, rates_at


def learning_rates(base_lr: float, phases: Sequence[Phase], steps: int) -> list[float]:
    """The rates of the first `steps` optimizer steps: entry t is used after t steps were taken."""
    rates: list[float] = []
    rate = [base_lr]
    for step in range(steps):
        rate = rates_at(rate, phases, step)
        rates += rate
    return rates
