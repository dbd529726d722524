"""What a row of the launch table is."""

from __future__ import annotations

from dataclasses import dataclass

from tests.golden.launch_facts import job
from unbroken.launch import Facts, Job
from unbroken.run import Survey


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row: its place in the contract in words, the question, what is on disk, and runs in folders beside it."""

    title: str
    job: Job
    facts: Facts
    beside: tuple[Survey, ...] = ()


def row(title: str, facts: Facts | Survey, asked: Job | None = None, *, beside: tuple[Survey, ...] = ()) -> Row:
    known = facts if isinstance(facts, Facts) else Facts(survey=facts)
    return Row(title=title, job=asked or job(), facts=known, beside=beside)
