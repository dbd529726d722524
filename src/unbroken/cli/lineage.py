"""Which run came from which: a run fine-tuned from another has it as its parent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from unbroken.cli.overview import Overview
from unbroken.report.rows import Row
from unbroken.run import RunRecord, read_record
from unbroken.run.finding import find_runs


def as_tree(runs: Sequence[Row]) -> Iterator[tuple[Row, int]]:
    """The runs in the order of their families, each with its depth; a run whose parent is not here is a root."""
    here = {run.id for run in runs if run.id}
    children: dict[str, list[Row]] = {}
    for run in runs:
        parent = _run_of(run.parent_facts)
        children.setdefault(parent if parent in here and parent != run.id else "", []).append(run)
    shown: set[str] = set()

    def below(run: Row, depth: int) -> Iterator[tuple[Row, int]]:
        waiting = [(run, depth)]  # a chain of children may be longer than calls can be nested
        while waiting:
            run, depth = waiting.pop()
            if run.folder not in shown:
                shown.add(run.folder)
                yield run, depth
                waiting += [(child, depth + 1) for child in reversed(children.get(run.id, []) if run.id else [])]

    for run in (*children.get("", []), *runs):  # the second time round: those in a circle
        yield from below(run, 0)


def ancestors(run: Overview) -> list[str]:
    """Where a run came from, in words, the nearest first; as far as the runs are found beside this one."""
    known = _records_near(run)
    words: list[str] = []
    parent = run.parent
    while parent:
        words.append(_words(parent))
        record = known.pop(
            (_run_of(parent), str(parent.get("tag") or "")), None
        )  # once: an edited record may lead back
        parent = record.parent if record is not None else None
    return words


def _records_near(run: Overview) -> dict[tuple[str, str], RunRecord]:
    """The records of the runs in the folder that holds this one, and in the one that holds its parent's file.

    By id and tag: a run that goes on under another tag keeps its id. What began with the same file is no ancestor.
    """
    roots = {run.directory.absolute().parent}
    if run.parent and run.parent.get("file"):
        roots |= set(list(Path(str(run.parent["file"])).absolute().parents)[1:3])
    found = (read_record(folder) for root in sorted(roots) if root.is_dir() for folder in find_runs(root))
    return {(record.id, record.tag): record for record in found if record is not None and record.parent != run.parent}


def _words(parent: Mapping[str, Any]) -> str:
    where = f"step {parent['step']}" if isinstance(parent.get("step"), int) and parent["step"] >= 0 else ""
    whose = f"of `{parent['tag']}`" if parent.get("tag") else f"of run {parent['run']}" if parent.get("run") else ""
    digest = f"sha256 {str(parent['sha256'])[:12]}" if parent.get("sha256") else ""
    facts = ", ".join(part for part in (f"{where} {whose}".strip(), digest) if part)
    return f"{parent.get('file')}" + (f" ({facts})" if facts else "")


def _run_of(parent: Mapping[str, Any] | None) -> str:
    return str(parent.get("run") or "") if parent else ""
