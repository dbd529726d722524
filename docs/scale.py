"""The arithmetic of saves from 1 to 100 billion parameters: the tables of `saving-at-scale.md`, in both languages.

Pure: `with_tables` puts each into its place on a page, `<!-- table NAME -->` to `<!-- end -->`. How often to save is
asked of the library itself (`unbroken.launch.forecast`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unbroken.launch.forecast import best_interval_s
from unbroken.quantities import duration_text, size_text

BILLION = 10**9
SIZES = tuple(number * BILLION for number in (1, 3, 7, 13, 30, 70, 100))  # parameters
RANKS = (1, 8, 64, 256, 1024)
RATES = (200e6, 1e9, 5e9, 50e9)  # bytes a second, of all that write together
COSTS_S = (1.0, 10.0, 60.0, 300.0)  # what a save takes from the training
HOUR_S = 3_600.0
BETWEEN_S = tuple(hours * HOUR_S for hours in (1, 3, 12, 24, 168))  # from one interruption to the next
PLACE = re.compile(r"(<!-- table (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class Training:
    """What a checkpoint holds of each parameter, in bytes."""

    english: str
    chinese: str
    weights: int
    master: int
    optimizer: int

    @property
    def bytes_each(self) -> int:
        """All of it together."""
        return self.weights + self.master + self.optimizer


TRAININGS = (
    Training(english="fp32, SGD with momentum", chinese="fp32，带动量的 SGD", weights=4, master=0, optimizer=4),
    Training(english="fp32, AdamW", chinese="fp32，AdamW", weights=4, master=0, optimizer=8),
    Training(
        english="bf16 with fp32 master weights, AdamW",
        chinese="bf16，另有 fp32 主权重，AdamW",
        weights=2,
        master=4,
        optimizer=8,
    ),
    Training(english="bf16 alone, AdamW", chinese="只有 bf16，AdamW", weights=2, master=0, optimizer=4),
)
MIXED = TRAININGS[2]


def lost_share(cost_s: float, interval_s: float, between_s: float) -> float:
    """The share of the time that goes to saves, and to what interruptions undo: each half an interval, on average."""
    cycle_s = interval_s + cost_s
    return cost_s / cycle_s + cycle_s / (2 * between_s)


# -- tables ------------------------------------------------------------------------------------------------------------


def per_parameter(chinese: bool) -> list[list[str]]:
    """What each parameter takes, by the kind of training."""
    head = (
        ["训练方式", "权重", "主权重", "优化器", "合计"]
        if chinese
        else ["training", "weights", "master", "optimizer", "all"]
    )
    rows = [
        [
            each.chinese if chinese else each.english,
            *map(str, (each.weights, each.master, each.optimizer, each.bytes_each)),
        ]
        for each in TRAININGS
    ]
    return [head, *rows]


def per_rank(chinese: bool) -> list[list[str]]:
    """The bytes of a checkpoint, and of the share of each of so many processes."""
    head = ["参数" if chinese else "parameters", *(f"{ranks} {'个进程' if chinese else 'ranks'}" for ranks in RANKS)]
    head[1] = "整个检查点" if chinese else "whole checkpoint"
    return [head, *([_count(size), *(size_text(size * MIXED.bytes_each / ranks) for ranks in RANKS)] for size in SIZES)]


def write_time(chinese: bool) -> list[list[str]]:
    """How long a checkpoint takes to write, at so many bytes a second."""
    head = ["参数" if chinese else "parameters", *(f"{size_text(rate)}/s" for rate in RATES)]
    rows = [[_count(size), *(duration_text(size * MIXED.bytes_each / rate) for rate in RATES)] for size in SIZES]
    return [head, *rows]


def interval(chinese: bool) -> list[list[str]]:
    """How often to save, and the share of the time that is lost then."""
    head = ["一次保存的代价" if chinese else "a save costs", *(_every(between_s, chinese) for between_s in BETWEEN_S)]
    rows = list[list[str]]()
    for cost_s in COSTS_S:
        best = [(best_interval_s(cost_s, between_s), between_s) for between_s in BETWEEN_S]
        cells = [f"{duration_text(each)}, {lost_share(cost_s, each, between_s):.1%}" for each, between_s in best]
        rows.append([duration_text(cost_s), *cells])
    return [head, *rows]


TABLES: dict[str, Callable[[bool], list[list[str]]]] = {
    each.__name__: each for each in (per_parameter, per_rank, write_time, interval)
}


def with_tables(text: str, *, chinese: bool) -> str:
    """A page with its tables as they are computed now."""
    return PLACE.sub(lambda found: f"{found[1]}{_written(TABLES[found[2]](chinese))}\n{found[3]}", text)


def _written(rows: Sequence[Sequence[str]]) -> str:
    head, *others = rows
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *others))


def _count(parameters: int) -> str:
    return f"{parameters // BILLION} B"


def _every(between_s: float, chinese: bool) -> str:
    days, hours = divmod(int(between_s // HOUR_S), 24)
    if chinese:
        return f"每 {days} 天" if days else f"每 {hours} 小时"
    return f"every {days} d" if days else f"every {hours} h"
