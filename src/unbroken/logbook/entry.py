"""What there is to say of runs in `experiments_log.txt`, from their records: of one run, or of all of a folder."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unbroken.clock import Clock, shown_time
from unbroken.errors import UnbrokenError
from unbroken.journal.events import SessionBegan
from unbroken.logbook.file import Memory, Written, book_for, memory_of, place_of, remembered, results_before, write_book
from unbroken.logbook.render import ResultFacts, clean, config_words, ours, result_words
from unbroken.logbook.table import RESULT, Entry
from unbroken.run.folder import entries
from unbroken.run.history import seconds_of
from unbroken.run.layout import OWN_FOLDER
from unbroken.run.locate import find_runs, is_backup
from unbroken.run.record import layout_seen
from unbroken.run.summary import NOT_REACHABLE, Summary, summary_of
from unbroken.run.view import RunView
from unbroken.storage import Disk

PATIENCE_S = 5.0  # of a session, which has better things to do
LONGER_PATIENCE_S = 30.0  # of a person's command
BY_EPOCH = re.compile(r"_epoch_(\d+)\.pth$")


@dataclass(frozen=True, kw_only=True)
class Known:
    """One run, and what its row is called and was made of."""

    summary: Summary
    label: str
    memory: Memory
    baseline: Path | None  # None for one that is itself what others are compared with


def note_run(disk: Disk, clock: Clock, directory: Path, say: Callable[[str], None], *, ended: str = "") -> None:
    """Bring the row of one run up to date, as its session begins or ends (`ended` says how); a warning if it cannot.

    Nothing else of the project is looked at but the run's neighbours: what it differs from is one of them.
    """
    try:
        path = book_for(directory, Path.cwd())
        view = RunView(directory)
        summary = summary_of(view)
        summary = replace(summary, status=ended) if ended else summary
        memory = memory_of(directory, path)
        label = _label_before(memory, summary) or _free_label(directory, summary, path)
        baseline = _baseline(directory, summary.recipe, _neighbours(directory))
        known = Known(summary=summary, label=label, memory=memory, baseline=baseline)
        write_book(
            disk,
            clock,
            path,
            lambda language: [(directory, entry_of(known, language, view, lambda run: RunView(run).config))],
            language="",
            usual=usual_language(),
            wait_s=PATIENCE_S,
        )
    except (UnbrokenError, OSError, ValueError, TypeError, LookupError, ArithmeticError, RecursionError) as error:
        say(f"warning: this run is not noted in the record of experiments: {error}")


def write_log(disk: Disk, clock: Clock, root: Path, path: Path, *, language: str) -> Written:
    """Bring the rows of all runs below a folder up to date."""
    summaries = [summary_of(directory) for directory in find_runs(root)]
    # Of a run on a disk that is not there, whose records cannot be read, the row stays as it is.
    kept = _without_copies(
        [item for item in summaries if item.status != "never started" and (item.status != NOT_REACHABLE or item.id)],
        path,
    )
    memories = [memory_of(item.directory, path) for item in kept]
    labels = _labels([_label_before(memory, item) or clean(item.label) for item, memory in zip(kept, memories)], kept)
    kept_in = [item.directory for item in kept]
    runs = [(directory, RunView(directory).stated) for directory in kept_in]
    configs: dict[Path, Mapping[str, Any]] = {}

    def config(directory: Path) -> Mapping[str, Any]:
        if directory not in configs:
            configs[directory] = RunView(directory).config
        return configs[directory]

    known = [
        Known(summary=item, label=label, memory=memory, baseline=_baseline(item.directory, item.recipe, runs))
        for item, label, memory in zip(kept, labels, memories)
    ]
    return write_book(
        disk,
        clock,
        path,
        lambda spoken: [(run, entry_of(item, spoken, RunView(run), config)) for run, item in zip(kept_in, known)],
        language=language,
        usual=usual_language(),
        wait_s=LONGER_PATIENCE_S,
    )


def _without_copies(summaries: Sequence[Summary], path: Path) -> list[Summary]:
    """One row for each run, by its id: that of a backup or a copy is its run's, unless it was trained on by itself."""
    alike: dict[str, list[Summary]] = {}
    for item in summaries:
        alike.setdefault(item.id or str(item.directory), []).append(item)

    def rank(item: Summary) -> tuple[bool, bool, bool, int, int]:
        is_noted = remembered(item.directory).place == place_of(item.directory, path)
        is_named = item.label == item.tag
        return not is_backup(str(item.directory)), is_noted, is_named, item.step, -len(item.directory.parts)

    copies: set[Path] = set()
    for same in (same for same in alike.values() if len(same) > 1):
        first = max(same, key=rank)
        known = _sessions(first.directory)
        copies |= {item.directory for item in same if item is not first and _sessions(item.directory) <= known}
        copies |= {item.directory for item in same if item is not first and is_backup(str(item.directory))}
    return [item for item in summaries if item.directory not in copies]


def _sessions(directory: Path) -> frozenset[str]:
    return frozenset(RunView(directory).history.times)


def usual_language() -> str:
    """The language of a new file: Chinese where this machine speaks it."""
    import locale

    spoken = locale.getlocale(locale.LC_CTYPE)[0] or ""
    return "zh" if spoken.lower().startswith(("zh", "chinese")) else "en"


def entry_of(known: Known, language: str, view: RunView, config: Callable[[Path], Mapping[str, Any]]) -> Entry:
    """What there is to say of a run, in a language; `config` gives that of another one."""
    summary, memory = known.summary, known.memory
    own_config = view.config
    compared = config(known.baseline) if known.baseline is not None else None
    words = ""
    if own_config and compared != {}:
        parent = summary.parent or {}
        words = config_words(
            own_config,
            compared,
            language,
            parent=str(parent.get("tag") or Path(str(parent.get("file") or "")).name),
            workers=_workers(view) if compared is None else "",
        )
    return Entry(
        label=known.label,
        names=tuple(dict.fromkeys(filter(None, (memory.label, known.label)))),
        date=shown_time(summary.began or summary.last_seen)[:10],
        config=words,
        result=result_words(summary, _facts(summary, view), language),
        written=memory.written,
        others=tuple(text for text in results_before(summary.directory) if text not in memory.written.get(RESULT, ())),
        ours=ours(language) if summary.id else None,
    )


def _facts(summary: Summary, view: RunView) -> ResultFacts:
    holder = view.holder if summary.status == "running" else None
    step = summary.best.step if summary.best is not None else summary.last_step
    # The epoch that ended with a step, as the manifests of a run by epochs say; `best_` comes first.
    told = (view.manifest(name) for name in view.manifest_names if step is not None and BY_EPOCH.search(name))
    return ResultFacts(
        since=holder.since if holder is not None else "",
        epoch=next((manifest.epoch for manifest in told if manifest is not None and manifest.step == step), None),
    )


def _workers(view: RunView) -> str:
    """How many workers the last session was asked for, if it was said: no run's config has them all."""
    with suppress(OSError):
        commands = (event.command or "" for event in reversed(view.events) if isinstance(event, SessionBegan))
        if found := re.search(r"--(?:num_)?workers[= ](\d{1,6})\b", next(commands, "")):
            return found[1]
    return ""


def _neighbours(directory: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    """The runs of the same folder, and what is called a baseline in the folders beside it."""
    beside = entries(str(directory.parent.parent))
    named = (item for folder in beside if folder.is_dir() for item in entries(folder.path) if _is_named(item.name))
    folders = dict.fromkeys(
        Path(item.path) for item in (*entries(str(directory.parent)), *named) if item.is_dir(follow_symlinks=False)
    )
    records = ((folder, RunView(folder).stated) for folder in folders)
    return [(folder, record) for folder, record in records if record or folder.name == directory.name]


def _is_named(tag: str) -> bool:
    return tag.lower().startswith(("baseline", "基线"))


def _baseline(directory: Path, recipe: str, runs: Sequence[tuple[Path, Mapping[str, Any]]]) -> Path | None:
    """What a run is compared with: the oldest of its folder that is called a baseline, else the oldest at all.

    Where each config has a folder of its own for its runs, one of another config that is called a baseline comes
    before those of its folder that are not: an ablation is told by what it leaves out.
    """
    place = directory.parent
    by_config = layout_seen(directory)[0].checkpoint_folder != ""

    def counts(folder: Path, record: Mapping[str, Any]) -> bool:
        beside = by_config and folder.parent.parent == place.parent and _is_named(_tag(folder, record))
        return str(record.get("recipe") or "") == recipe and (folder.parent == place or beside)

    def rank(run: tuple[Path, Mapping[str, Any]]) -> tuple[bool, bool, bool, float, str]:
        folder, record = run
        tag = _tag(folder, record)
        created_s = seconds_of(str(record.get("created") or "")) or 0.0
        # A copy has its own name.
        return not _is_named(tag), folder.parent != place, tag != folder.name, created_s, folder.name

    alike = [run for run in runs if counts(*run)]
    chosen = min(alike, key=rank)[0] if alike else directory
    return None if chosen == directory else chosen


def _tag(folder: Path, record: Mapping[str, Any]) -> str:
    return str(record.get("tag") or folder.name)


def _label_before(memory: Memory, summary: Summary) -> str:
    """What the run's row is called, unless the run was renamed since; its group may stand before the name."""
    label = clean(summary.label)
    return memory.label if memory.label == label or memory.label.endswith(f"/{label}") else ""


def _free_label(directory: Path, summary: Summary, path: Path) -> str:
    """What the row of a run that has none is called: its group says more where another run has the name already."""
    label = clean(summary.label)
    known = [(other, memory_of(other, path)) for other in _namesakes(directory)]
    claimed = {memory.label for other, memory in known if memory.place == place_of(other, path)}
    group = directory.resolve().parent
    while label in claimed and group != group.parent:
        label, group = clean(f"{group.name}/{label}"), group.parent
    return label


def _namesakes(directory: Path) -> Iterator[Path]:
    """Runs of the same name in the folders beside this one's, and beside those."""
    run = directory.resolve()
    name = re.sub(r"([*?[])", r"[\1]", run.name)  # to the letter
    for pattern, above in zip(("*", "*/*"), run.parents[1:3]):
        with suppress(OSError):
            for record in above.glob(f"{pattern}/{name}/{OWN_FOLDER}/run.json"):
                if record.parent.parent != run:
                    yield record.parent.parent


def _labels(labels: Sequence[str], summaries: Sequence[Summary]) -> list[str]:
    """The labels, with as much of the group before them as it takes to tell them apart."""
    found = list(labels)
    groups = [item.directory.resolve().parents for item in summaries]
    for depth in range(max(map(len, groups), default=0)):
        again = {label for label, times in Counter(found).items() if times > 1}
        if not again:
            break
        for place, label in enumerate(found):
            if label in again and depth < len(groups[place]):
                found[place] = clean(f"{groups[place][depth].name}/{label}")
    return found
