"""A comparison in words: its headline and the rows of its tables, in English or Chinese, for every way to show it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unbroken.config import ABSENT, Difference
from unbroken.quantities import clock_time
from unbroken.report.compare import RunComparison, Standing

LANGUAGES = ("en", "zh")
WORDS: dict[str, tuple[str, str]] = {
    "best": ("best {metric}", "最佳 {metric}"),
    "last": ("last {metric}", "最后 {metric}"),
    "common": ("{metric} at step {step}", "第 {step} 步 {metric}"),
    "loss": ("loss at the end", "末段损失"),
    "status": ("status", "状态"),
    "steps": ("steps", "步数"),
    "time": ("time spent", "训练用时"),
    "samples": ("samples seen", "已用样本"),
    "sessions": ("sessions", "会话数"),
    "again": ("steps done again", "重做步数"),
    "parent": ("began with", "起始权重"),
    "leads": (
        "{run} is best: {metric} {value} at step {step}, {margin} {ahead} {second}",
        "{run} 最佳：{metric} {value}（第 {step} 步），比 {second} {ahead} {margin}",
    ),
    "level": ("The best are level: {metric} {value}", "并列最佳：{metric} {value}"),
    "only": ("Only {run} has been evaluated: {metric} {value}", "只有 {run} 有评估结果：{metric} {value}"),
    "side by side": ("{count} runs side by side", "{count} 次训练对比"),
    "above": ("above", "高"),
    "below": ("below", "低"),
    "absent": ("(absent)", "（无）"),
}
STATUS_ZH = {
    "running": "运行中",
    "finished": "已完成",
    "stopped": "已停止",
    "killed": "被中断",
    "lost": "丢失",
    "not reachable": "无法访问",
    "never started": "未开始",
}


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """One fact about every run."""

    label: str
    cells: tuple[str, ...]
    leader: int | None = None  # whose cell is the best


def said(key: str, language: str, **facts: object) -> str:
    """One of the words above, filled in."""
    return WORDS[key][language == "zh"].format_map(facts)


def headline(found: RunComparison, language: str) -> str:
    """Which run is best, by how much."""
    scored = [run for run in found.runs if run.best is not None]
    first = None if found.leader is None else found.runs[found.leader]
    if first is None or first.best is None or found.second is None:
        best = scored[0].best if scored else None
        if best is None or (len(scored) > 1 and found.margin is None):
            return said("side by side", language, count=len(found.runs))
        value = number(best.value)
        if len(scored) == 1:
            return said("only", language, run=scored[0].label, metric=found.metric, value=value)
        top = (max if found.larger else min)(run.best.value for run in scored if run.best is not None)
        return said("level", language, metric=found.metric, value=number(top))
    return said(
        "leads",
        language,
        run=first.label,
        metric=found.metric,
        value=number(first.best.value),
        step=f"{first.best.step:,}",
        margin=f"{found.margin:.3g}",
        ahead=said("above" if found.larger else "below", language),
        second=found.runs[found.second].label,
    )


def rows(found: RunComparison, language: str) -> Iterator[TableRow]:
    """What the runs came to and what it took; facts that no run has are left out."""
    for label, cells in _rows(found, language):
        if any(cells):
            leads = found.metric and label == said("best", language, metric=found.metric)
            yield TableRow(label=label, cells=tuple(cells), leader=found.leader if leads else None)


def _rows(found: RunComparison, language: str) -> Iterator[tuple[str, list[str]]]:
    runs, metric = found.runs, found.metric
    if metric:
        yield said("best", language, metric=metric), [best_of(run) for run in runs]
        yield said("last", language, metric=metric), [_at(run.at_last.get(metric), run.last_step) for run in runs]
        if found.common_step is not None and len({run.last_step for run in runs}) > 1:
            label = said("common", language, metric=metric, step=found.common_step)
            yield label, [number(run.at_common.get(metric)) for run in runs]
    yield said("loss", language), [number(run.loss) for run in runs]
    yield said("status", language), [status_of(run, language) for run in runs]
    yield said("steps", language), [steps_of(run) for run in runs]
    yield said("time", language), [time_of(run) for run in runs]
    yield said("samples", language), [f"{run.samples:,}" if run.samples else "" for run in runs]
    yield said("sessions", language), [str(run.sessions) if run.sessions else "" for run in runs]
    yield said("again", language), [f"{run.discarded:,}" if run.discarded else "" for run in runs]
    yield said("parent", language), [run.parent for run in runs]


def metric_rows(found: RunComparison) -> Iterator[tuple[str, tuple[str, ...], tuple[str, ...]]]:
    """Every metric of the evaluations: at the best step of each run, and at its last."""
    names = dict.fromkeys(name for run in found.runs for name in (*run.at_best, *run.at_last))
    for name in sorted(names, key=lambda name: name != found.metric):
        yield (
            name,
            tuple(number(run.at_best.get(name)) for run in found.runs),
            tuple(number(run.at_last.get(name)) for run in found.runs),
        )


def best_of(run: Standing) -> str:
    """The best value and its step."""
    return _at(run.best.value, run.best.step) if run.best else ""


def status_of(run: Standing, language: str) -> str:
    """The status in words."""
    status = run.summary.status
    return STATUS_ZH.get(status, status.replace("left by", "来自")) if language == "zh" else status


def steps_of(run: Standing) -> str:
    """How far a run is."""
    return f"{run.summary.step:,}/{run.summary.total:,}" if run.summary.total else f"{run.summary.step:,}"


def time_of(run: Standing) -> str:
    """How long it was trained, over all sessions."""
    seconds = run.summary.trained_s
    return clock_time(seconds) if seconds is not None and math.isfinite(seconds) and seconds >= 0 else ""


def number(value: float | None) -> str:
    """A value as it is read: four significant digits, all of them for whole numbers."""
    if value is None:
        return ""
    return f"{value:.0f}" if value == round_or_nan(value) and abs(value) < 1e6 else f"{value:.4g}"


def round_or_nan(value: float) -> float:
    """The nearest whole number; NaN for what has none."""
    return float(round(value)) if math.isfinite(value) else math.nan


def cells_of(difference: Difference, language: str) -> list[str]:
    """The values of a key that differs, as they would be typed."""
    return [said("absent", language) if value is ABSENT else setting(value) for value in difference.values]


def setting(value: Any) -> str:
    """A setting as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) or (isinstance(value, Sequence) and not isinstance(value, bytes)):
        try:
            return json.dumps(value, ensure_ascii=False, default=str)
        except (ValueError, RecursionError):
            return "..."
    return "null" if value is None else repr(value).lower() if isinstance(value, bool) else str(value)


def _at(value: float | None, step: int | None) -> str:
    return f"{number(value)} @ {step:,}" if value is not None and step is not None else ""
