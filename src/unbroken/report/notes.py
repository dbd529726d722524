"""What a reader of a comparison must not overlook, as data: kinds of notes with what they are about."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from unbroken.report.run_facts import RunFacts

LONGEST = 500  # characters of a fact
LISTED = 6  # runs named in one note


@dataclass(frozen=True, kw_only=True)
class Note:
    """One note; its words are chosen by `kind` and filled in with `facts`."""

    kind: str
    facts: Mapping[str, str] = field(default_factory=dict)

    def as_data(self) -> dict[str, Any]:
        """The same for `--json`, with the words."""
        return {"kind": self.kind, "facts": dict(self.facts), "words": self.words("en")}

    def words(self, language: str) -> str:
        """The note as one sentence."""
        facts = {key: fact if len(fact) <= LONGEST else f"{fact[:LONGEST]}…" for key, fact in self.facts.items()}
        return WORDS[self.kind][language == "zh"].format_map(facts)


# English, Chinese
WORDS: dict[str, tuple[str, str]] = {
    "running": (
        "{run} is still running (step {step}): its numbers may change.",
        "{run} 仍在运行（第 {step} 步），数值还会变化。",
    ),
    "unfinished": (
        "{run} did not reach its end ({status} at step {step}).",
        "{run} 没有跑完（{status}，第 {step} 步）。",
    ),
    "totals": ("The runs are not equally long: {each}.", "各次训练的总步数不同：{each}。"),
    "copy": ("{run} is a copy of {other}: the same run ({id}).", "{run} 是 {other} 的副本：同一次训练（{id}）。"),
    "onward": ("{run} goes on from {other}: the same run ({id}).", "{run} 接着 {other} 继续：同一次训练（{id}）。"),
    "parent": ("{run} began with the weights of {other}.", "{run} 从 {other} 的权重开始训练。"),
    "seeds": (
        "The seeds differ ({each}): part of any difference is chance.",
        "随机种子不同（{each}）：差异中有一部分来自偶然。",
    ),
    "data": ("The runs were not trained on the same data: {each}.", "训练数据不同：{each}。"),
    "conditions": (
        "Computed under other conditions: {each}. Small differences may come from there.",
        "计算条件不同：{each}。细小的差异可能由此而来。",
    ),
    "bests": (
        "The runs recorded their best by different metrics ({each}); {metric} decides here.",
        "各次训练以不同指标记录最佳结果（{each}）；此处以 {metric} 为准。",
    ),
    "chosen": (
        "No run recorded by which metric it is to be judged: {metric} was taken, `--metric` takes another one.",
        "没有记录以哪个指标为准：此处采用 {metric}，可用 `--metric` 另选。",
    ),
    "no metric": ("The runs have no metric in common.", "这些训练没有共同的指标。"),
    "not evaluated": ("{run} has no evaluation by {metric} yet.", "{run} 还没有 {metric} 的评估结果。"),
    "ends": (
        "They were last evaluated at different steps ({each}); all of them were at step {common}.",
        "最后一次评估的步数不同（{each}）；第 {common} 步时都有评估。",
    ),
    "changed": ("{run} changed its settings on the way: {changes}.", "{run} 中途更改过设置：{changes}。"),
    "not finite": (
        "{run} has {count} values that are not finite (NaN or infinite), first {name} at step {step}.",
        "{run} 有 {count} 个非有限数值（NaN 或无穷大），最早是第 {step} 步的 {name}。",
    ),
    "unreadable": (
        "Lines of the records of {run} that cannot be read and were left out: {count}.",
        "{run} 的记录中有 {count} 行无法读取，已略过。",
    ),
    "no config": ("The settings of {run} are not known.", "{run} 的设置未知。"),
}


def notes_on(
    facts: Sequence[RunFacts], labels: Sequence[str], *, metric: str, asked: bool, common: int | None
) -> Iterator[Note]:
    """Everything that matters for reading these runs side by side, the weightiest first."""
    named = list(zip(facts, labels))
    yield from _how_far(named)
    yield from _relations(named)
    yield from _differing("seeds", [(label, str(run.seed)) for run, label in named if run.seed is not None])
    yield from _data(named)
    yield from _metrics(named, metric=metric, asked=asked, common=common)
    for run, label in named:
        yield from _about_one(run, label)
    yield from _conditions(named)


Named = Sequence[tuple[RunFacts, str]]


def _how_far(named: Named) -> Iterator[Note]:
    for run, label in named:
        now = run.summary
        step = f"{now.step}/{now.total}" if now.total else str(now.step)
        if now.status == "running":
            yield Note(kind="running", facts={"run": label, "step": step})
        elif now.status in ("stopped", "killed", "lost", "not reachable"):
            yield Note(kind="unfinished", facts={"run": label, "step": step, "status": now.status})
    yield from _differing("totals", [(label, str(run.summary.total)) for run, label in named if run.summary.total])


def _relations(named: Named) -> Iterator[Note]:
    first: dict[str, str] = {}
    for run, label in sorted(named, key=lambda one: _parent_run(one[0]) == one[0].summary.id):
        if run.summary.id and run.summary.id in first:
            kind = "onward" if _parent_run(run) == run.summary.id else "copy"
            yield Note(kind=kind, facts={"run": label, "other": first[run.summary.id], "id": run.summary.id})
        elif run.summary.id:
            first[run.summary.id] = label
    for run, label in named:
        parent = _parent_run(run)
        if parent in first and parent != run.summary.id:
            yield Note(kind="parent", facts={"run": label, "other": first[parent]})


def _parent_run(run: RunFacts) -> str:
    return str((run.summary.parent or {}).get("run") or "")


def _data(named: Named) -> Iterator[Note]:
    prints = {run.fingerprint for run, _ in named if run.fingerprint}
    sizes = {run.dataset_size for run, _ in named if run.dataset_size}
    if len(prints) > 1 or len(sizes) > 1:
        known = [(label, _data_words(run)) for run, label in named if run.fingerprint or run.dataset_size]
        yield Note(kind="data", facts={"each": _each(known)})


def _data_words(run: RunFacts) -> str:
    size = f"{run.dataset_size:,} samples" if run.dataset_size else "?"
    return f"{size} ({run.fingerprint[:8]})" if run.fingerprint else size


def _metrics(named: Named, *, metric: str, asked: bool, common: int | None) -> Iterator[Note]:
    recorded = [(label, run.best.metric) for run, label in named if run.best is not None]
    evaluated = [(label, run.curves.evaluated()) for run, label in named]
    if not metric:
        yield Note(kind="no metric")
        return
    if not recorded and not asked:
        yield Note(kind="chosen", facts={"metric": metric})
    if len({name for _, name in recorded}) > 1:
        yield Note(kind="bests", facts={"each": _each(recorded), "metric": metric})
    ends: list[tuple[str, str]] = []
    for label, steps in evaluated:
        measured = [step for step, values in steps.items() if metric in values]
        if measured:
            ends.append((label, str(max(measured))))
        else:
            yield Note(kind="not evaluated", facts={"run": label, "metric": metric})
    if common is not None and len({end for _, end in ends}) > 1:
        yield Note(kind="ends", facts={"each": _each(ends), "common": str(common)})


def _about_one(run: RunFacts, label: str) -> Iterator[Note]:
    changes = [change for session in run.curves.sessions for change in session.changes]
    if changes:
        shown = "; ".join(changes[:3]) + ("; ..." if len(changes) > 3 else "")
        yield Note(kind="changed", facts={"run": label, "changes": shown})
    if found := _not_finite(run):
        yield Note(kind="not finite", facts={"run": label, **found})
    if run.curves.unreadable:
        yield Note(kind="unreadable", facts={"run": label, "count": str(run.curves.unreadable)})
    if not run.config:
        yield Note(kind="no config", facts={"run": label})


def _not_finite(run: RunFacts) -> dict[str, str]:
    count, first = 0, (1 << 62, "")
    for curves in (run.curves.values, run.curves.evaluations):
        for name, segments in curves.items():
            for segment in segments:
                if not segment.kept or math.isfinite(sum(segment.points.values)):
                    continue
                pairs = zip(segment.points.steps, segment.points.values)
                bad = [step for step, value in pairs if not math.isfinite(value)]
                count += len(bad)
                first = min(first, (min(bad, default=1 << 62), name))
    return {"count": f"{count:,}", "step": str(first[0]), "name": first[1]} if count else {}


def _conditions(named: Named) -> Iterator[Note]:
    keys = ("device", "torch", "threads", "cpu_capability")
    for key in keys:
        known = [(label, f"{key} {run.conditions[key]}") for run, label in named if key in run.conditions]
        yield from _differing("conditions", known)


def _differing(kind: str, known: Sequence[tuple[str, str]]) -> Iterator[Note]:
    if len({value for _, value in known}) > 1:
        yield Note(kind=kind, facts={"each": _each(known)})


def _each(known: Sequence[tuple[str, str]]) -> str:
    words = [f"{label} {value}" for label, value in known[:LISTED]]
    return ", ".join(words) + (f", ... ({len(known)})" if len(known) > LISTED else "")
