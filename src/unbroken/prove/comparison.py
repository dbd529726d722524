"""Two twins side by side: every logged value of every step, every evaluation, every tensor of the last state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from unbroken.journal import compare_steps, values_of
from unbroken.prove.twin import RunSeen, Twin
from unbroken.train import count_tensors, differences, read_checkpoint

COUNTERS = "the run's own counters"

TENSORS = "the tensors differ"
MISSING = "not done"


@dataclass(frozen=True, kw_only=True)
class First:
    """The first step of which something differs, and what: samples before values, values before the weights."""

    step: int
    what: str
    after_resume: int | None  # counted from where its session went on; None in a first session

    @property
    def is_order(self) -> bool:
        """Whether already the samples are others."""
        return self.what == "other samples"

    def __str__(self) -> str:
        place = f" (step {self.after_resume} after a resume)" if self.after_resume is not None else ""
        return f"step {self.step}{place}: {self.what}"


@dataclass(frozen=True, kw_only=True)
class TwinComparison:
    """How much was compared, and what of it differs."""

    steps: int
    tensors: int
    values: int
    values_differ: int
    first: First | None
    state: tuple[str, ...]  # what differs in the last states, a line each
    parts: Mapping[str, int]  # the same by tracked part

    @property
    def equal(self) -> bool:
        """Whether every bit is the same."""
        return self.first is None and not self.state

    @property
    def tensors_differ(self) -> int:
        """How many tensors of the last state differ."""
        return sum(line.endswith(TENSORS) for line in self.state)

    def in_words(self) -> str:
        """What was compared, and how it came out."""
        if self.equal:
            return f"{self.tensors} tensors and {self.values} logged values equal bit for bit"
        numbers = (
            f"{self.tensors_differ} of {self.tensors} tensors and {self.values_differ} of {self.values} logged values"
        )
        return f"{numbers} differ"


def compare(one: Twin, other: Twin) -> TwinComparison:
    """Compare all runs of two twins."""
    found = [_of_run(run, _named(other, run.name)) for run in one.runs]
    return TwinComparison(
        steps=sum(each.steps for each in found),
        tensors=sum(each.tensors for each in found),
        values=sum(each.values for each in found),
        values_differ=sum(each.values_differ for each in found),
        first=next((each.first for each in found if each.first is not None), None),
        state=tuple(line for each in found for line in each.state),
        parts=sum((Counter(each.parts) for each in found), Counter[str]()),
    )


def _named(twin: Twin, name: str) -> RunSeen:
    nothing = RunSeen(name=name, steps={}, evaluations={}, reached=0, resumed=(), checkpoint=None, keys={})
    return next((run for run in twin.runs if run.name == name), nothing)


def _of_run(one: RunSeen, other: RunSeen) -> TwinComparison:
    trees = [read_checkpoint(run.checkpoint) if run.checkpoint is not None else {} for run in (one, other)]
    state = tuple(differences(*trees))
    names = {key: part for part, key in one.keys.items()}
    pairs = list(_values(one, other))
    return TwinComparison(
        steps=len(one.steps),
        tensors=count_tensors(trees[0]),
        values=len(pairs),
        values_differ=sum(before != now for before, now in pairs),
        first=_first(one, other),
        state=state,
        parts=Counter(_part(line, names) for line in state),
    )


def _values(one: RunSeen, other: RunSeen) -> Iterator[tuple[str, str]]:
    """Each logged value of the first, beside that of the second, as text that tells every bit."""
    for step, record in one.steps.items():
        now = values_of(other.steps.get(step, {}))
        yield from ((repr(value), repr(now.get(name, MISSING))) for name, value in values_of(record).items())
    for step, record in one.evaluations.items():
        now = other.evaluations.get(step, {}).get("evaluation", {})
        yield from ((repr(value), repr(now.get(name, MISSING))) for name, value in record["evaluation"].items())


def _first(one: RunSeen, other: RunSeen) -> First | None:
    for step in sorted(one.steps.keys() | other.steps.keys() | one.evaluations.keys() | other.evaluations.keys()):
        if what := _differs_at(step, one, other):
            begun = [base for base in other.resumed if base < step]
            return First(step=step, what=what, after_resume=step - begun[-1] if begun else None)
    return None


def _differs_at(step: int, one: RunSeen, other: RunSeen) -> str:
    before, now = one.steps.get(step), other.steps.get(step)
    if before is None or now is None:
        if before is not now:
            return f"only the {'first' if now is None else 'second'} has it"
    elif what := compare_steps(before, now).difference:
        return what.replace(", recorded ", " instead of ")
    for name in sorted(values_of(before or {}).keys() ^ values_of(now or {}).keys()):
        return f"{name} is logged in one of them only"
    judged, again = (run.evaluations.get(step, {}).get("evaluation", {}) for run in (one, other))
    for name in [*judged, *(name for name in again if name not in judged)]:
        if repr(judged.get(name, MISSING)) != repr(again.get(name, MISSING)):
            return f"evaluation, {name} {again.get(name, MISSING)!r} instead of {judged.get(name, MISSING)!r}"
    return ""


def _part(line: str, names: Mapping[str, str]) -> str:
    """Of which tracked part a line about the state tells."""
    words = line.split(":")[0].lstrip(".").split(".")
    if words[:2] == ["unbroken", "parts"] and len(words) > 2:
        return words[2].split("[")[0]
    if words[0] == "unbroken":
        return COUNTERS
    key = words[0].split("[")[0]
    return names.get(key, key)


def state_in_words(comparison: TwinComparison, most: int = 3) -> list[str]:
    """The parts that differ, and the first lines of them."""
    if not comparison.state:
        return []
    parts = ", ".join(f"{part} ({number})" for part, number in comparison.parts.items())
    return [f"in the last state: {parts}", *(f"  {line.lstrip('.')}" for line in comparison.state[:most])]


def plain(comparison: TwinComparison) -> dict[str, Any]:
    """As JSON-able data."""
    first = comparison.first
    return {
        "equal": comparison.equal,
        "steps": comparison.steps,
        "tensors": comparison.tensors,
        "tensors_differ": comparison.tensors_differ,
        "values": comparison.values,
        "values_differ": comparison.values_differ,
        "first": None
        if first is None
        else {"step": first.step, "what": first.what, "after_resume": first.after_resume},
        "state": list(comparison.state),
        "parts": dict(comparison.parts),
    }
