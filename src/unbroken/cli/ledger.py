"""`ls`: the runs under a folder, filtered, sorted, as a table, as a tree or as data.

It has a parser of its own and loads as little as it can: with the index, most of its time would else be imports.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unbroken.cli.environment import cache_folder
from unbroken.cli.tables import aligned, as_json_text
from unbroken.clock import SystemClock, shown_time
from unbroken.errors import UsageError
from unbroken.quantities import size_text
from unbroken.report.index import RunIndex
from unbroken.report.listing import configs_of, list_runs
from unbroken.report.rows import Row
from unbroken.run.finding import is_backup
from unbroken.storage import Disk, require_local
from unbroken.text import shown

if TYPE_CHECKING:
    from unbroken.option_parser import OptionParser

HEAD = ("tag", "status", "step", "best", "last seen", "sessions", "size", "folder")
LONGEST_LABEL = 60
EPILOG = """
FIELD is tag, status, recipe, folder, id, step, total, sessions, size, trained, seen, began, best, or
best.METRIC, last.METRIC (of the newest evaluation), config.KEY.SUB. Conditions: FIELD, then one of
> >= < <= = != ~ (contains, in any case), then a value: "best.mIoU>40", "size>1.5GB", "seen>=2026-11-20",
"config.optimizer.lr<=1e-3 and status=finished". A run without such a value matches none, and sorts last.

What the runs' files said is kept in a cache, so that thousands list at once; a run whose files changed is
read again. The cache may be deleted: its place is UNBROKEN_CACHE, or unbroken in the user's cache folder.
"""


class Wish(NamedTuple):
    """What is to be listed, and how."""

    root: str  # as it was typed
    where: tuple[str, ...] = ()
    sort: str = ""
    limit: int | None = None
    tree: bool = False
    as_json: bool = False
    anew: bool = False


def list_command(words: Sequence[str]) -> int:
    """Print the runs below a folder."""
    wish = _wish(words)
    collects = gc.isenabled()
    gc.disable()  # going again and again over ten thousand rows, which stay, would be a fifth of the time
    try:
        _list(wish)
    finally:
        if collects:
            gc.enable()
    return 0


def _list(wish: Wish) -> None:
    if not Path(wish.root).is_dir():
        require_local(wish.root, is_folder=True)
        raise UsageError(wish.root, "there is no such folder", do="Name the folder that holds the runs.")
    if not os.access(wish.root, os.R_OK | os.X_OK):
        raise UsageError(wish.root, "this folder may not be read (permission denied)", do="See who may read it.")
    root = os.path.abspath(wish.root)  # noqa: PTH100 - a Path keeps `..`, and folders are compared as text
    index, processes = RunIndex(cache_folder(), Disk()), os.cpu_count() or 1
    now_s = SystemClock().now().timestamp()
    rows = list_runs(root, index, now_s=now_s, anew=wish.anew, processes=processes)
    chosen, reasons = _chosen(rows, wish, lambda: configs_of(rows, root, index, processes=processes))
    place = _place_of(root, wish.root)
    if wish.as_json:
        print(as_json_text([_as_data(row, place(row.folder)) for row in chosen]))
    elif chosen:
        print(_table(chosen, rows, place, tree=wish.tree))
        for row in chosen:
            if row.status == "not reachable":
                print(f"{shown(row.label, LONGEST_LABEL)}: {shown(_trouble(row.folder))}")
        if len(chosen) == wish.limit:
            print(f"the first {wish.limit} of {len(rows)} runs (--limit)")
    else:
        print("\n".join(_nothing(wish.root, rows, reasons)))


def option_parser() -> OptionParser:
    """The options of `ls`."""
    from argparse import RawDescriptionHelpFormatter

    from unbroken.option_parser import OptionParser

    parser = OptionParser(
        prog="unbroken ls",
        allow_abbrev=False,
        formatter_class=RawDescriptionHelpFormatter,
        description="The runs under a folder: tag, status, step, best metric, last seen, sessions, size.",
        epilog=EPILOG,
    )
    parser.add_argument("root", type=str, nargs="?", default=".", metavar="ROOT", help="a folder (default: this one)")
    parser.add_argument("--where", action="append", default=[], metavar="EXPR", help="only runs for which this holds")
    parser.add_argument("--sort", default="", metavar="FIELD", help="the smallest first; -FIELD: the largest first")
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N")
    parser.add_argument("--tree", action="store_true", help="show which run began with the weights of which")
    parser.add_argument("--anew", action="store_true", help="read the files of every run, whatever the cache says")
    parser.add_argument("--json", action="store_true", dest="as_json", help="print data instead of text")
    return parser


def _wish(words: Sequence[str]) -> Wish:
    if len(words) < 2 and all(word.strip() and not word.startswith("-") for word in words):
        return Wish(root=words[0] if words else ".")  # the usual case does without a parser
    joined: list[str] = []
    for word in words:  # `--sort -step`: its value is not an option
        if joined[-1:] in (["--sort"], ["--where"]):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    found = vars(option_parser().parse_args(joined))
    return Wish(**{**found, "where": tuple(found["where"])})


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 9 or not int(text):
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"expected how many, 1 or more, found {text[:40]!r}")
    return int(text)


def _chosen(rows: list[Row], wish: Wish, configs: Callable[[], Callable[[Row], Any]]) -> tuple[list[Row], list[str]]:
    """The rows that are wanted, in their order; if there are none, why."""
    if not wish.where and not wish.sort:
        return rows[: wish.limit], []
    from unbroken.report import query

    conditions = query.conditions_of(wish.where)
    names = [*(condition.field for condition in conditions), wish.sort.removeprefix("-")]
    config_of = configs() if query.needs_configs(names) else lambda _row: {}
    found = query.matching(rows, conditions, config_of)
    found = query.sorted_by(found, wish.sort, config_of) if wish.sort else found
    return found[: wish.limit], [] if found else query.why_none(rows, conditions, config_of)


def _nothing(root: str, rows: Sequence[Row], reasons: Iterable[str]) -> list[str]:
    if not rows:
        return [f"no runs below {shown(root)}: a run is a folder with unbroken/run.json in it, or with checkpoints"]
    many = f"none of the {len(rows)} runs" if len(rows) > 1 else "the one run"
    return [f"{many} below {shown(root)} {'matches' if len(rows) > 1 else 'does not match'}", *map(_indented, reasons)]


def _indented(line: str) -> str:
    return f"  {shown(line)}"


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
    from unbroken.run.links import unreachable
    from unbroken.run.record import layout_seen

    return unreachable(Path(folder), layout_seen(Path(folder))[0])


def _table(chosen: Sequence[Row], rows: Sequence[Row], place: Callable[[str], str], *, tree: bool) -> str:
    labels = _labels(rows, place)
    named = [labels.get(row.folder, row.label) for row in chosen] if labels else [row.label for row in chosen]
    if tree:
        from unbroken.cli.lineage import as_tree

        families = list(as_tree(chosen))
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


def _best(row: Row) -> str:
    if row.best_metric is None:
        return ""
    text = f"{row.best_metric} {row.best:.4g} @ {row.best_step}"
    return text if len(text) <= LONGEST_LABEL else shown(text, LONGEST_LABEL)


def _labels(rows: Sequence[Row], place: Callable[[str], str]) -> dict[str, str]:
    """What to call the runs whose folder is a copy, or has another name than the tag."""
    found = {row.folder: f"{row.label} (tag {shown(row.tag, LONGEST_LABEL)})" for row in rows if row.label != row.tag}
    ids = [row.id for row in rows if row.id]
    if len(set(ids)) == len(ids):
        return found
    by_id: dict[str, list[Row]] = {}
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
        found |= {row.folder: f"{row.label} ({kind[row.folder]} {_told_apart(first, row, place)})" for row in others}
    return found


def _told_apart(first: Row, copy: Row, place: Callable[[str], str]) -> str:
    return shown(first.label if first.label != copy.label else place(first.folder), LONGEST_LABEL)


def _branch(row: Row, depth: int) -> str:
    return f"{'   ' * (depth - 1)}└─ " if depth and row.parent_facts else ""


def _since(row: Row, depth: int) -> str:
    parent = row.parent_facts
    step = parent.get("step") if depth and parent else None
    return f" (from step {step})" if isinstance(step, int) else ""


def _as_data(row: Row, folder: str) -> dict[str, Any]:
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
