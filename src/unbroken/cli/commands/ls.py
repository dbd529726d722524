"""`ls`: the runs under a folder, filtered, sorted, as a table, as a tree or as data.

It loads as little as it can: with the index, most of its time would else be imports.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from unbroken.cli.tables import aligned, as_json_text
from unbroken.clock import SystemClock, shown_time
from unbroken.errors import UsageError
from unbroken.quantities import size_text
from unbroken.report.index import IndexRow, RunIndex
from unbroken.report.listing import configs_of, list_runs
from unbroken.run.locate import is_backup
from unbroken.storage import Disk
from unbroken.storage.cache import cache_folder
from unbroken.storage.ordinary import require_local
from unbroken.text import shown

if TYPE_CHECKING:
    from unbroken.cli.args import CommandParser

HEAD = ("tag", "status", "step", "best", "last seen", "sessions", "size", "folder")
LONGEST_LABEL = 60
FIELDS = """
FIELD is tag, status, recipe, folder, id, step, total, sessions, size, trained, seen, began, best, or
best.METRIC, last.METRIC (of the newest evaluation), config.KEY.SUB. Conditions: FIELD, then one of
> >= < <= = != ~ (contains, in any case), then a value: "best.mIoU>40", "size>1.5GB", "seen>=2026-11-20",
"config.optimizer.lr<=1e-3 and status=finished". A run without such a value matches none, and sorts last.

What the runs' files said is kept in a cache, so that thousands list at once; a run whose files changed is
read again. The cache may be deleted: its place is UNBROKEN_CACHE, or unbroken in the user's cache folder.
"""


def ls_options(parser: CommandParser) -> None:
    """A folder, which of its runs, and how they are shown."""
    from unbroken.cli.args import add_json, whole

    parser.epilog = FIELDS
    parser.add_argument("root", nargs="?", default=".", metavar="ROOT", help="a folder (default: this one)")
    parser.add_argument("--where", action="append", default=[], metavar="EXPR", help="only runs for which this holds")
    parser.add_argument("--sort", default="", metavar="FIELD", help="the smallest first; -FIELD: the largest first")
    parser.add_argument("--limit", type=whole(1, "how many"), metavar="N", help="only the first N")
    parser.add_argument("--tree", action="store_true", help="show which run began with the weights of which")
    parser.add_argument("--anew", action="store_true", help="read the files of every run, whatever the cache says")
    add_json(parser)
    parser.add_examples(
        "unbroken ls work_dirs --sort=-best --limit 10",
        "unbroken ls --where 'status=finished and best.mIoU>40' --json",
    )


def ls_usual(words: Sequence[str]) -> SimpleNamespace | None:
    """The options where no more than a folder was typed: with the index, a parser would be a tenth of all the time."""
    if len(words) > 1 or any(word.startswith("-") for word in words):
        return None
    root = words[0] if words else "."
    return SimpleNamespace(root=root, where=[], sort="", limit=None, tree=False, anew=False, as_json=False)


def ls_command(options: Any) -> None:
    """The runs under a folder: tag, status, step, best metric, last seen, sessions, size."""
    collects = gc.isenabled()
    gc.disable()  # going again and again over ten thousand rows, which stay, would be a fifth of the time
    try:
        _list(options)
    finally:
        if collects:
            gc.enable()


def _list(options: Any) -> None:
    if not Path(options.root).is_dir():
        require_local(options.root, is_folder=True)
        raise UsageError(options.root, "there is no such folder", do="Name the folder that holds the runs.")
    if not os.access(options.root, os.R_OK | os.X_OK):
        raise UsageError(options.root, "this folder may not be read (permission denied)", do="See who may read it.")
    root = os.path.abspath(options.root)  # noqa: PTH100 - a Path keeps `..`, and folders are compared as text
    index, processes = RunIndex(cache_folder(os.environ), Disk()), os.cpu_count() or 1
    now_s = SystemClock().now().timestamp()
    rows = list_runs(root, index, now_s=now_s, anew=options.anew, processes=processes)
    chosen, reasons = _chosen(rows, options, lambda: configs_of(rows, root, index, processes=processes))
    place = _place_of(root, options.root)
    if options.as_json:
        print(as_json_text([_as_data(row, place(row.folder)) for row in chosen]))
    elif chosen:
        print(_table(chosen, rows, place, tree=options.tree))
        for row in chosen:
            if row.status == "not reachable":
                print(f"{shown(row.label, LONGEST_LABEL)}: {shown(_trouble(row.folder))}")
        if len(chosen) == options.limit:
            print(f"the first {options.limit} of {len(rows)} runs (--limit)")
    else:
        print("\n".join(_nothing(options.root, rows, reasons)))


def _chosen(
    rows: list[IndexRow], options: Any, configs: Callable[[], Callable[[IndexRow], Any]]
) -> tuple[list[IndexRow], list[str]]:
    """The rows that are wanted, in their order; if there are none, why."""
    if not options.where and not options.sort:
        return rows[: options.limit], []
    from unbroken.report import query

    conditions = query.conditions_of(options.where)
    names = [*(condition.field for condition in conditions), options.sort.removeprefix("-")]
    config_of = configs() if query.needs_configs(names) else lambda _row: {}
    found = query.matching(rows, conditions, config_of)
    found = query.sorted_by(found, options.sort, config_of) if options.sort else found
    return found[: options.limit], [] if found else query.why_none(rows, conditions, config_of)


def _nothing(root: str, rows: Sequence[IndexRow], reasons: Iterable[str]) -> list[str]:
    if not rows:
        return [f"no runs below {shown(root)}: a run is a folder with unbroken/run.json in it, or with checkpoints"]
    many = f"none of the {len(rows)} runs" if len(rows) > 1 else "the one run"
    return [
        f"{many} below {shown(root)} {'matches' if len(rows) > 1 else 'does not match'}",
        *(f"  {shown(line)}" for line in reasons),
    ]


def _place_of(root: str, typed: str) -> Callable[[str], str]:
    """How a folder is shown: below the root as it was typed."""
    head = os.path.normpath(typed)
    if head == root:
        return str
    start = len(root.rstrip("/\\"))
    if head == ".":
        return lambda folder: folder[start + 1 :] or "."
    return lambda folder: head + folder[start:]


def _trouble(folder: str) -> str:
    from unbroken.run import RunView

    return RunView(Path(folder)).unreachable


def _table(chosen: Sequence[IndexRow], rows: Sequence[IndexRow], place: Callable[[str], str], *, tree: bool) -> str:
    labels = _labels(rows, place)
    named = [labels.get(row.folder, row.label) for row in chosen] if labels else [row.label for row in chosen]
    if tree:
        families = list(_families(chosen))
        chosen = [row for row, _ in families]
        named = [
            _branch(row, depth) + labels.get(row.folder, row.label) + _since(row, depth) for row, depth in families
        ]
    parts = (
        [name if len(name) <= LONGEST_LABEL else shown(name, LONGEST_LABEL) for name in named],
        [row.status for row in chosen],
        [f"{row.step}/{row.total}" if row.total else str(row.step) for row in chosen],
        list(map(_best, chosen)),
        [shown_time(row.last_seen) for row in chosen],
        [str(row.sessions) for row in chosen],
        [size_text(row.size_bytes) for row in chosen],
        [place(row.folder) for row in chosen],
    )
    return aligned([[head, *cells] for head, cells in zip(HEAD, parts)])


def _best(row: IndexRow) -> str:
    if row.best_metric is None:
        return ""
    text = f"{row.best_metric} {row.best:.4g} @ {row.best_step}"
    return text if len(text) <= LONGEST_LABEL else shown(text, LONGEST_LABEL)


def _labels(rows: Sequence[IndexRow], place: Callable[[str], str]) -> dict[str, str]:
    """What to call the runs whose folder is a copy, or has another name than the tag."""
    found = {row.folder: f"{row.label} (tag {shown(row.tag, LONGEST_LABEL)})" for row in rows if row.label != row.tag}
    ids = [row.id for row in rows if row.id]
    if len(set(ids)) == len(ids):
        return found
    by_id: dict[str, list[IndexRow]] = {}
    for row in rows:
        by_id.setdefault(row.id or row.folder, []).append(row)
    for same in (same for same in by_id.values() if len(same) > 1):
        kind = {row.folder: "backup of" if is_backup(row.folder) else "copy of" for row in same}
        onward = [row for row in same if row.parent_facts and row.parent_facts.get("run") == row.id]
        first = max(
            same,
            key=lambda row: (
                row not in onward, kind[row.folder] == "copy of", row.label == row.tag, row.step, -len(row.folder)
            ),
        )  # fmt: skip
        # Under a tag of its own, from a file of the other: no copy.
        kind |= {row.folder: "goes on from" for row in onward if row.parent_facts != first.parent_facts}
        others = [row for row in same if row is not first]
        for row in others:
            of = shown(first.label if first.label != row.label else place(first.folder), LONGEST_LABEL)
            found[row.folder] = f"{row.label} ({kind[row.folder]} {of})"
    return found


def _branch(row: IndexRow, depth: int) -> str:
    return f"{'   ' * (depth - 1)}└─ " if depth and row.parent_facts else ""


def _since(row: IndexRow, depth: int) -> str:
    parent = row.parent_facts
    step = parent.get("step") if depth and parent else None
    return f" (from step {step})" if isinstance(step, int) else ""


def _as_data(row: IndexRow, folder: str) -> dict[str, Any]:
    from unbroken.jsonlines import finite

    best = {"metric": row.best_metric, "value": row.best, "step": row.best_step}
    data = {
        "tag": row.tag,
        "label": row.label,
        "recipe": row.recipe,
        "status": row.status,
        "step": row.step,
        "total": row.total,
        "best": best if row.best_metric is not None else None,
        "last": {"step": row.last_step, **row.metrics} if row.last_step is not None else None,
        "began": row.began,
        "last_seen": row.last_seen,
        "sessions": row.sessions,
        "trained_s": row.trained_s,
        "size_bytes": row.size_bytes,
        "folder": folder,
        "id": row.id,
        "parent": row.parent_facts,
    }
    found: dict[str, Any] = finite(data)
    return found


def _families(runs: Sequence[IndexRow]) -> Iterator[tuple[IndexRow, int]]:
    """The runs in the order of their families, each with its depth; a run whose parent is not here is a root."""
    here = {run.id for run in runs if run.id}
    children: dict[str, list[IndexRow]] = {}
    for run in runs:
        parent = str((run.parent_facts or {}).get("run") or "")
        children.setdefault(parent if parent in here and parent != run.id else "", []).append(run)
    shown: set[str] = set()

    def below(run: IndexRow, depth: int) -> Iterator[tuple[IndexRow, int]]:
        waiting = [(run, depth)]  # a chain of children may be longer than calls can be nested
        while waiting:
            run, depth = waiting.pop()
            if run.folder not in shown:
                shown.add(run.folder)
                yield run, depth
                waiting += [(child, depth + 1) for child in reversed(children.get(run.id, []) if run.id else [])]

    for run in (*children.get("", []), *runs):  # the second time round: those in a circle
        yield from below(run, 0)
