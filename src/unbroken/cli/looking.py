"""`show`: one run; and what all who look at one run or file have in common."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from unbroken.cli.lineage import ancestors
from unbroken.cli.named_runs import runs_below
from unbroken.cli.overview import Overview, overview_of
from unbroken.cli.tables import as_json_text, columns
from unbroken.clock import shown_time
from unbroken.config import nearest
from unbroken.errors import DamagedFile, UsageError
from unbroken.quantities import size_text
from unbroken.run import layout_seen
from unbroken.run.damage import damage_in_words
from unbroken.run.finding import find_runs
from unbroken.run.layout import manifests, own
from unbroken.run.pins import Pin, read_pins
from unbroken.storage import require_local
from unbroken.text import shown

MOST_ROWS = 400
MOST_COLUMNS = 6
LONGEST_LINE = 4000  # a command, a folder and what a run began from may be long


def show_command(run: Path, *, as_json: bool) -> None:
    """Print one run."""
    found = overview_of(run_folder(run))
    lineage = ancestors(found)
    if as_json:
        pins, trouble = _pins_of(found.directory)
        pinned = None if trouble else {name: pin.note for name, pin in pins.items()}
        print(as_json_text(found.as_data() | {"lineage": lineage, "pinned": pinned}))
    else:
        print("\n".join(_story(found, lineage)))


def step_text(step: int | None) -> str:
    """A step, or `?` where it is not known."""
    return str(step) if step is not None and step >= 0 else "?"


def _story(run: Overview, lineage: Sequence[str]) -> list[str]:
    whose = f" ({run.recipe})" if run.recipe else ""
    lines = [f"{run.tag}{whose} - {run.status}", f"folder: {run.directory} ({size_text(run.size_bytes)})"]
    lines += [run.trouble] if run.trouble else []
    total = f" of {run.total}" if run.total else ""
    lines.append(f"step: {run.step}{total}")
    if run.best:
        lines.append(f"best: {run.best}")
    lines += [f"{'began from' if not place else 'which began from'}: {words}" for place, words in enumerate(lineage)]
    lines += [f"accepted: {words}" for words in run.accepted]
    if run.last_seen:
        lines.append(f"last seen: {shown_time(run.last_seen)}")
    if run.config is not None:
        lines.append(f"config: {run.config}")
    if run.command:
        lines.append(f"command: {run.command}")
    if run.programs:
        lines.append(f"program: {run.programs[-1].program.words()}")
    changed = [item for item in run.programs if item.changes]
    lines += [f"program changed in session {item.session}: {', '.join(item.changes)}" for item in changed]
    lines = [shown(line, LONGEST_LINE) for line in lines]
    rows = [(s.name, s.verdict, f"{s.first}-{s.last}" if s.last else "no step", s.ended) for s in run.sessions]
    lines += ["", "sessions", columns([("session", "began", "steps", "ended"), *rows])] if rows else []
    lines += ["", "files"]
    pins, trouble = _pins_of(run.directory)
    files = [(c.name, step_text(c.step), c.kind, c.state, _how(c.reason, pins.get(c.name))) for c in run.candidates]
    files += [(m.name, step_text(m.step), m.kind, "missing", m.words) for m in run.missing]
    lines.append(columns([("file", "step", "kind", "state", "how"), *files]))
    lines += [shown(trouble, LONGEST_LINE)] if trouble else []
    lines += [f"damaged: {shown(words, LONGEST_LINE)}" for words in damage_in_words(run.damage)]
    if any(c.state == "unchecked" for c in run.candidates):
        lines.append(f"unchecked: not needed to go on; to read them all: unbroken verify {shown(run.directory)}")
    if run.status.startswith("left by"):
        lines.append(
            "to go on with it here: make it the folder of a training (the same work dir, or the same config and tag); "
            "`unbroken why` says from which file, and what that file lacks"
        )
    if run.evaluations:
        lines += ["", "evaluations", *_evaluation_table(run)]
    return lines


def _pins_of(run: Path) -> tuple[dict[str, Pin], str]:
    """What is pinned, or why that cannot be known."""
    try:
        return read_pins(run), ""
    except DamagedFile as error:
        return {}, str(error)


def _how(reason: str, pin: Pin | None) -> str:
    """How a file was judged, and that it is pinned."""
    pinned = "" if pin is None else f"pinned: {shown(pin.note)}" if pin.note else "pinned"
    return "; ".join(words for words in (reason, pinned) if words)


def _evaluation_table(run: Overview) -> list[str]:
    """The numbers that stand for an evaluation; those of parts of it, which have a path for a name, come after."""
    names = sorted(run.evaluations[-1][1], key=lambda name: "/" in name)
    chosen = names[:MOST_COLUMNS]
    table: list[tuple[str, ...]] = [("step", *chosen)]
    for step, values in run.evaluations:
        table.append((str(step), *(f"{values[name]:.4g}" if name in values else "" for name in chosen)))
    more = len(names) - len(chosen)
    return [columns(table), *([f"and {more} more numbers of each: --json"] if more else [])]


def require_there(path: Path) -> None:
    """Raise UsageError for a path that leads to nothing, with what is near it."""
    if path.exists():
        return
    require_local(path)
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    names = sorted(item.name for item in folder.iterdir())
    near = get_close_matches(path.name, names, n=3, cutoff=0.5) or [name for name in names if name.endswith(".pth")]
    there = ", ".join(near[:5]) or "nothing like it"
    tag = nearest(path.name, [name for name, _ in runs_below(Path())]) if len(path.parts) == 1 else ""
    do = f"Did you mean the run {tag}?" if tag else ""
    raise UsageError(path, "there is no such file or folder", found=f"in {folder.absolute()}: {there}", do=do)


def run_folder(path: Path) -> Path:
    """The folder itself if a run is in it; else an error that names the runs near it."""
    require_there(path)
    if own(path).is_dir() or (path.is_dir() and any(layout_seen(path)[0].checkpoints(path).glob("*.pth"))):
        return path
    around = path if path.is_dir() else path.parent
    near = [str(folder) for folder in find_runs(around)][:5] if around.is_dir() else []
    raise UsageError(
        path,
        "this is not a run",
        expected="a folder with unbroken/ or with .pth files in it",
        found=f"runs near it: {', '.join(near)}" if near else "none, and no run below it",
        do=f"For a file: unbroken inspect {path}" if path.is_file() else "See `unbroken ls ROOT`.",
    )


def manifests_for(file: Path) -> Path:
    """The folder that may list a file, where it lies or where it is linked from."""
    folders = [file.absolute().parent, file.resolve().parent]  # a link to another disk is listed where it lies
    runs = [run for folder in folders for run in (folder, folder.parent) if own(run).is_dir()]
    return manifests(next(iter(runs), folders[-1]))
