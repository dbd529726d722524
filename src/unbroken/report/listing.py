"""All runs below a folder: those whose files are as they were from the index, the others read anew."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from unbroken.jsonlines import parsed_json
from unbroken.report.index import IndexRow, RunIndex, row_of
from unbroken.run.locate import DEPTH, holds_run
from unbroken.run.names import CHECKPOINT_FOLDER, OWN_FOLDER
from unbroken.text import as_bytes

YOUNG_NS = 2_000_000_000  # a file that changed this recently may change again and keep its time
MANY = 500  # from here on several processes read them
AT_ONCE = 50
RUNNING, FINISHED = "running", "finished"

Found = TypeVar("Found")


def list_runs(root: str, index: RunIndex, *, now_s: float, anew: bool = False, processes: int = 1) -> list[IndexRow]:
    """The runs at and below an absolute folder, in the order of their folders.

    `now_s` is seconds since 1970; `anew` reads every run again; `processes` is how many may read at once.
    """
    known = index.rows(root)
    seen = list(_scan(root, {} if anew else known))
    unknown = [folder for folder, row in seen if row is None]
    if unknown or len(seen) != len(known):
        task = partial(_read, young_ns=int(now_s * 1e9) - YOUNG_NS)
        read = dict(zip(unknown, _spread(task, unknown, processes)))
        there = {folder for folder, _ in seen}
        gone = [folder for folder in known if folder not in there and holds_run(folder) is not None]
        index.replace([row for row in read.values() if row != known.get(row.folder)], gone=gone)
        seen = [(folder, row or read[folder]) for folder, row in seen]
    return [row for _, row in seen if row is not None]


def configs_of(
    rows: Sequence[IndexRow], root: str, index: RunIndex, *, processes: int = 1
) -> Callable[[IndexRow], Any]:
    """A function that gives a run's config; those that the index does not have yet are read now."""
    known = index.configs(root)
    missing = [row for row in rows if not row.signature or known.get(row.folder, (0,))[0] != row.signature]
    texts = _spread(_config, [row.folder for row in missing], processes)
    fresh = {row.folder: (row.signature, text) for row, text in zip(missing, texts)}
    index.replace_configs({folder: found for folder, found in fresh.items() if found[0]})
    return lambda row: _parsed((fresh.get(row.folder) or known[row.folder])[1])


def _parsed(text: str) -> Any:
    """A config out of the index; one that was damaged there is none."""
    try:
        return parsed_json(as_bytes(text))
    except ValueError:
        return {}


State = tuple[int, int, int, int, int]  # size, node and time of the journal, times of two folders


def state_of(folder: str, part: str, *, ended: bool) -> State:
    """What tells whether a run's files are as they were: no two states of a run that matter have the same.

    Every event is a line of the journal; retention and people add and remove checkpoints in their folder. A launch
    writes beside the journal before its first event; of a run that has ended that is not asked.
    """
    stat = os.stat  # a Path for each of 10,000 runs would cost as much again
    own = f"{folder}/{OWN_FOLDER}"
    try:
        journal = stat(f"{own}/journal.jsonl")
        checkpoints = stat(f"{folder}/{part}" if part else folder)
        beside_ns = 0 if ended else stat(own).st_mtime_ns
        return journal.st_size, journal.st_ino, journal.st_mtime_ns, checkpoints.st_mtime_ns, beside_ns
    except OSError:  # what another program left, or what has just begun
        return 0, 0, _changed_ns(own), _changed_ns(f"{folder}/{part}"), _changed_ns(folder)


def signature_of(state: State) -> int:
    """The state as one number, which is never 0."""
    return hash(state) or 1


def _still_holds(row: IndexRow) -> bool:
    return row.signature == signature_of(state_of(row.folder, row.part, ended=row.status == FINISHED))


def _changed_ns(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116
    except OSError:
        return 0


def _scan(root: str, known: Mapping[str, IndexRow]) -> Iterator[tuple[str, IndexRow | None]]:
    """Every folder with a run, sorted, with its row if that still holds."""
    waiting = [(root, 0)]
    while waiting:
        folder, depth = waiting.pop()
        row = known.get(folder)
        if row is not None and row.signature and _still_holds(row):
            yield folder, row
        elif (inside := holds_run(folder)) is None:
            yield folder, None
        elif depth < DEPTH:
            waiting += [(path, depth + 1) for path in reversed(inside)]


def _read(folder: str, *, young_ns: int) -> IndexRow:
    from unbroken.run.summary import summary_of
    from unbroken.run.view import RunView

    part = CHECKPOINT_FOLDER if os.path.isdir(f"{folder}/{CHECKPOINT_FOLDER}") else ""  # noqa: PTH112
    state = state_of(folder, part, ended=False)  # taken before what it tells of is read
    view = RunView(Path(folder))
    if view.layout.checkpoint_folder != part:  # names of someone's own
        part = view.layout.checkpoint_folder
        state = state_of(folder, part, ended=False)
        view = RunView(Path(folder))
    summary = summary_of(view)
    # A run changes without a trace here while it is training, and within the same tick of a clock.
    trusted = summary.status != RUNNING and max(state[2:]) <= young_ns
    if summary.status == FINISHED and state[0]:
        state = (*state[:-1], 0)
    signature = signature_of(state) if trusted else 0
    return row_of(summary, folder=folder, signature=signature, part=part)


def _config(folder: str) -> str:
    from unbroken.run.view import RunView

    return json.dumps(RunView(Path(folder)).config, default=str)


def _spread(task: Callable[[str], Found], folders: Sequence[str], processes: int) -> Iterable[Found]:
    """Do the task for each folder, in several processes where that is worth their start."""
    if len(folders) < MANY or processes < 2:
        return list(map(task, folders))
    from unbroken.report.pool import spread

    return spread(task, folders, processes=processes, at_once=AT_ONCE)
