"""One line per optimizer step and per evaluation: the fingerprints and the curves of a run.

A session that goes on from a step before the last one recorded says so before its first line: `{"session": S,
"rewound": {"to": 80, "from": 129}}`. What was recorded of steps 81 to 129 stays above it and counts no more.
"""

from __future__ import annotations

import math
import zlib
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from unbroken.fields import BadField, Kind, check, count_of, number, number_of, text
from unbroken.journal.file import LineFile, read_lines, read_lines_backwards
from unbroken.jsonlines import encoded, finite
from unbroken.quantities import all_of
from unbroken.storage import Disk
from unbroken.text import as_bytes

WEIGHTS_CRC32 = "weights_crc32"  # of a few elements of the weights after the step
WORDS = {WEIGHTS_CRC32: "a probe of the weights"}
NOT_VALUES = frozenset(("step", "session", "epoch", "samples", "evaluation", "rewound", WEIGHTS_CRC32))  # of a record
MOST_LISTED = 256  # samples of a step; of more, their place in the run's order is written, and a checksum
PLACED = ("first", "count", "crc32")
NUMBERS = frozenset([int])
Samples = list[int] | dict[str, int]


def is_samples(value: object) -> TypeGuard[Samples]:
    """Whether it is what `as_recorded` gives."""
    if isinstance(value, dict):
        return tuple(value) == PLACED and all(type(each) is int and each >= 0 for each in value.values())
    return isinstance(value, list) and NUMBERS.issuperset(map(type, value))


def _samples(value: Any, field: str) -> Any:
    if not is_samples(value):
        raise BadField(field, "sample ids, or first, count and crc32", value)
    return value


FINGERPRINT: Mapping[str, Kind] = {"session": text, "samples": _samples, "loss": number}


def as_recorded(samples: list[int], *, first: int | None) -> Samples:
    """What is written of a step's samples: all, or of many the position of the first, their number and CRC-32.

    `first` is None where they do not follow each other in the order: one that cannot be read was left out.
    """
    if len(samples) <= MOST_LISTED or first is None:
        return samples
    return {"first": first, "count": len(samples), "crc32": zlib.crc32(packed(samples))}


def packed(samples: Sequence[int]) -> bytes:
    """Sample ids in eight bytes each."""
    return array("q", samples).tobytes()


class StepLog:
    """The open step file of one session."""

    def __init__(self, disk: Disk, path: Path, *, session: str) -> None:
        self._session = session
        self._lines = LineFile(disk, path)
        self._heads: dict[str, str] = {}  # of the values of a line, by their names
        self._of_session = f',"session":{encoded(session)},"epoch":'

    def write_step(
        self, step: int, *, epoch: int, samples: Samples, values: Mapping[str, float], weights: int | None = None
    ) -> bytes:
        """Record a finished step; `samples` are as `as_recorded` gives them. Returns the line.

        It is put together here and is the one that `json_line` gives of the same: its form never changes, and its
        numbers are written as JSON writes them.
        """
        said = [f'{{"step":{step}{self._of_session}{epoch}']
        for name, value in values.items():
            if (head := self._heads.get(name)) is None:
                head = self._heads[name] = f",{encoded(name)}:"
            said.append(head)
            said.append(repr(value) if type(value) is float and math.isfinite(value) else encoded(finite(value)))
        if weights is not None:
            said.append(f',"{WEIGHTS_CRC32}":{weights}')
        listed = str(samples).replace(" ", "") if isinstance(samples, list) else encoded(samples)
        said.append(f',"samples":{listed}}}\n')
        line = as_bytes("".join(said))
        self._lines.append_line(line, durable=False)
        return line

    def write_evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Record the evaluation of the weights after `step`."""
        record = {"step": step, "session": self._session, "evaluation": finite(dict(values))}
        self._lines.append(record, durable=False)

    def write_rewound(self, to: int, *, before: int) -> None:
        """Record that the history goes on after step `to`, and that it had come to step `before`."""
        self._lines.append({"session": self._session, "rewound": {"to": to, "from": before}}, durable=False)

    @property
    def lines(self) -> LineFile:
        """The file behind it."""
        return self._lines

    def sync(self) -> None:
        """Wait until all lines are on the medium: a checkpoint is only as good as the record of the way to it."""
        self._lines.sync()

    def close(self) -> None:
        """Close the file."""
        self._lines.close()


def read_steps(path: Path) -> Iterator[Mapping[str, Any]]:
    """Yield all steps and evaluations of a run, oldest first, those of steps that a kill undid included.

    Args:
        path: The file `unbroken/metrics.jsonl` in the run's folder; where there is none, nothing is yielded.
    Yields:
        The line of each: "step", "session", "epoch", "samples", and what was logged; an evaluation has "evaluation".
    """
    return (record for record in read_lines(path) if _step_of(record) is not None)


def values_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What was logged of a step; NaN and infinity stand there as text."""
    return {name: value for name, value in record.items() if name not in NOT_VALUES}


def is_comparable(record: Mapping[str, Any]) -> bool:
    """Whether a step's record holds what a repetition is compared with: whose it is, the samples, the loss."""
    try:
        check(record, FINGERPRINT, required=("session", "samples"))
    except BadField:
        return False
    return True


def reached(path: Path) -> int:
    """The step at which the recorded history stands: its last one, or the one that it was rewound to."""
    for record in read_lines_backwards(path):
        step = _rewound_to(record) if "rewound" in record else _step_of(record)
        if step is not None:
            return step
    return 0


def steps_after(path: Path, step: int) -> dict[int, dict[str, Any]]:
    """The newest record of every step later than `step`, as an interrupted session left them."""
    found: dict[int, dict[str, Any]] = {}
    for record in read_lines_backwards(path):
        number = _step_of(record)
        if number is None or "evaluation" in record:  # a session may begin with one, of the step it goes on from
            continue
        if number <= step:
            break
        found.setdefault(number, record)
    return found


def evaluated_step(path: Path, step: int) -> dict[str, Any] | None:
    """The newest record of `step`, if an evaluation of it was recorded as well."""
    evaluated = False
    for record in read_lines_backwards(path):
        number = _step_of(record)
        if number == step and "evaluation" not in record:
            return record if evaluated else None
        if number is not None and number < step:
            return None
        evaluated = evaluated or number == step
    return None


def _step_of(record: Mapping[str, Any]) -> int | None:
    return count_of(record.get("step"))


def _rewound_to(record: Mapping[str, Any]) -> int | None:
    to = record["rewound"]
    return count_of(to.get("to")) if isinstance(to, Mapping) else None


# -- whether a step that was done again is the same: only what both records hold is compared, and it is named ----------


@dataclass(frozen=True, kw_only=True)
class StepComparison:
    """Two records of one step: the names of the values that both hold, and what differs first ("": nothing)."""

    names: tuple[str, ...]
    difference: str

    @property
    def samples_differ(self) -> bool:
        """Whether it is not even the same data."""
        return self.difference == "other samples"


def compare_steps(before: Mapping[str, Any], now: Mapping[str, Any]) -> StepComparison:
    """Compare samples first, then the values bit for bit (a NaN is a NaN), the probe of the weights last."""
    one, other = _numbers(before), _numbers(now)
    names = tuple(name for name in one if name in other)
    if not _same_samples(before.get("samples"), now.get("samples")):
        return StepComparison(names=names, difference="other samples")
    for name in names:
        if one[name].hex() != other[name].hex() and not (math.isnan(one[name]) and math.isnan(other[name])):
            found = f" {other[name]!r}, recorded {one[name]!r}" if name not in WORDS else ""
            return StepComparison(names=names, difference=f"{WORDS.get(name, name)}{found}")
    return StepComparison(names=names, difference="")


def listed(names: Sequence[str]) -> str:
    """`loss, lr and a probe of the weights`."""
    return all_of([WORDS.get(name, name) for name in names])


def _same_samples(one: Any, other: Any) -> bool:
    """Whether two steps had the same samples, also where only one record lists them."""
    if isinstance(one, Mapping) == isinstance(other, Mapping):
        return bool(one == other)
    placed, listed = (one, other) if isinstance(one, Mapping) else (other, one)
    whole = listed if isinstance(listed, bytes) else packed(listed or ())
    return placed.get("count") == len(whole) // 8 and placed.get("crc32") == zlib.crc32(whole)


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    found = {name: number_of(value) for name, value in values_of(record).items()}
    found[WEIGHTS_CRC32] = number_of(record.get(WEIGHTS_CRC32))
    return {name: number for name, number in found.items() if number is not None}
