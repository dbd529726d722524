"""Running out of memory: how it is recognised, what a run has learned from it, and how much is free.

A *division* says that from a step on no forward pass gets more than so many samples. What a run learned is in its
checkpoints and, from the moment it is learned, in its journal: a step that is done again after a kill is divided as it
was the first time, whether or not the memory would run out again.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from unbroken.quantities import counted
from unbroken.storage import read_whole

EVENT = "oom"
# What allocators say that have no exception of their own: the CPU's, the driver's, the BLAS library's, oneDNN's.
SAYINGS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "alloc_failed",
    "could not create a primitive",
)


@dataclass(frozen=True, kw_only=True)
class Division:
    """From `step` on at most `micro_batch` samples at once, and with `recompute` fewer activations are kept."""

    step: int
    micro_batch: int
    recompute: bool = False

    def as_plain(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether this is an allocator's complaint."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in SAYINGS)


def learned(plain: Iterable[Mapping[str, Any]], events: Iterable[Mapping[str, Any]], *, after: int) -> list[Division]:
    """The divisions of a checkpoint, and those that were learned in steps after it, which are done again."""
    found = [
        Division(step=int(each["step"]), micro_batch=int(each["micro_batch"]), recompute=bool(each["recompute"]))
        for each in plain
    ]
    return found + [
        Division(step=event["step"], micro_batch=event["after"], recompute=bool(event.get("recompute")))
        for event in events
        if event.get("event") == EVENT and isinstance(event.get("after"), int) and event.get("step", 0) > after
    ]


def division_at(divisions: Sequence[Division], step: int) -> Division | None:
    """What holds in a step: the strictest of what was learned up to it."""
    known = [each for each in divisions if each.step <= step]
    if not known:
        return None
    return Division(
        step=min(each.step for each in known),
        micro_batch=min(each.micro_batch for each in known),
        recompute=any(each.recompute for each in known),
    )


def parts_of(samples: int, division: Division | None) -> int:
    """In how many parts a micro-batch is done."""
    return -(-samples // division.micro_batch) if division is not None and samples else 1


def largest_part(samples: int, division: Division | None) -> int:
    """How many samples its largest part has."""
    return -(-samples // parts_of(samples, division))


def smaller(largest: int, present: Division | None, *, step: int, can_recompute: bool) -> Division | None:
    """What to try after a step failed whose largest forward pass had `largest` samples; None if nothing is left."""
    recomputes = present is not None and present.recompute
    if largest > 1:
        return Division(step=step, micro_batch=-(-largest // 2), recompute=recomputes)
    if can_recompute and not recomputes:
        return Division(step=step, micro_batch=1, recompute=True)
    return None


def in_words(division: Division) -> str:
    """`at most 2 samples at once, with gradient checkpointing`."""
    checkpointing = ", with gradient checkpointing" if division.recompute else ""
    return f"at most {counted(division.micro_batch, 'sample')} at once{checkpointing}"


def let_go() -> None:
    """Give back what the failed attempt held: its trace may be part of a circle, its blocks are in the cache."""
    gc.collect()
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch has no type for it
        torch.cuda.empty_cache()


def free_bytes(root: Path = Path("/")) -> int | None:
    """How much memory this process may still take on its host and in its container; None where that is not told.

    What the system keeps of files counts as free: it gives that away first.
    """
    free = _numbers(root / "proc/meminfo").get("MemAvailable:")
    host = None if free is None else 1024 * free
    group = root / "sys/fs/cgroup"
    for limit, used, idle in (
        ("memory.max", "memory.current", "file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_cache"),
    ):
        most, now = (_numbers(group / name).get("") for name in (limit, used))
        if most is not None and now is not None:
            left = most - now + _numbers((group / limit).with_name("memory.stat")).get(idle, 0)
            return max(left, 0) if host is None else min(host, max(left, 0))
    return host


def _numbers(path: Path) -> dict[str, int]:
    """The numbers of a file of the system, by the word before each; a lone one has none."""
    try:
        rows = [line.split() for line in read_whole(path).decode().splitlines()]
    except OSError:
        return {}
    named = [("", *row) if len(row) == 1 else row for row in rows if row]
    return {str(row[0]): int(row[1]) for row in named if str(row[1]).isdecimal()}
