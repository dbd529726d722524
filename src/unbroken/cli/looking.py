"""Commands that look at one run or file: `show`, `inspect`, `verify`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path

from unbroken.checkpoint.describe import describe
from unbroken.checkpoint.structure import read_structure
from unbroken.cli.lineage import ancestors
from unbroken.cli.named_runs import runs_below
from unbroken.cli.overview import Overview, overview_of
from unbroken.cli.tables import as_json_text, columns, shown, size_text
from unbroken.config import nearest
from unbroken.errors import DamagedFile, UsageError
from unbroken.run import Candidate, MissingFile, layout_seen, look_at
from unbroken.run.candidates import confirm
from unbroken.run.damage import Damage, damage_in_words
from unbroken.run.finding import find_runs
from unbroken.run.layout import manifests, own
from unbroken.run.pins import Pin, read_pins
from unbroken.run.survey import Survey, survey
from unbroken.storage.moved import Moved, looked_again
from unbroken.values import require_local

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


def inspect_command(file: Path, *, as_json: bool, tensors: bool) -> None:
    """Print what a checkpoint file holds."""
    _require_there(file)
    if file.is_dir():
        raise UsageError(file, "this is a folder", expected="a .pth file", do=f"For a run: unbroken show {file}")
    facts = describe(read_structure(file))
    if as_json:
        print(as_json_text(facts))
        return
    print(f"{shown(facts['file'])}: {facts['kind']} ({facts['format']}, {size_text(facts['size_bytes'])})")
    for name in ("step", "epoch"):
        if facts[name] is not None:
            print(f"{name}: {facts[name]}")
    for name, value in facts["metrics"].items():
        print(f"{shown(name)}: {shown(value)}")
    print("\n" + columns([("key", "holds"), *((key, words) for key, words in facts["keys"].items())]))
    model, optimizer = facts["model"], facts["optimizer"]
    if model:
        print(f"\nmodel: {model['tensors']} tensors, {model['parameters_and_buffers']:,} parameters and buffers")
    if optimizer:
        moments = shown(", ".join(optimizer["state_names"]))
        print(f"optimizer: {optimizer['parameters_with_state']} parameters with state ({moments})")
    else:
        print("optimizer: none, training cannot be resumed from this file")
    for foreign in facts["foreign"]:
        print(f"foreign object: {shown(foreign['class'])} x {foreign['count']} ({foreign['note']})")
    if tensors and facts["tensors"]:
        rows = [(t["name"], "x".join(map(str, t["shape"])) or "scalar", t["dtype"]) for t in facts["tensors"]]
        print("\n" + columns([("tensor", "shape", "type"), *rows[:MOST_ROWS]]))
        if len(rows) > MOST_ROWS:
            print(f"... and {len(rows) - MOST_ROWS} more (--json lists all)")


def verify_command(paths: Sequence[Path], *, as_json: bool) -> int:
    """Verify files and runs; 0 when all are whole, the records of the runs too."""
    checked = [looked_again(path, partial(_verified, path)) for path in paths]
    seen = [item for each in checked for item in each.files]
    missing = [(each, item) for each in checked for item in each.missing]
    damaged = [(path, item) for path, each in zip(paths, checked) for item in each.damage]
    lost = sum(item in each.losses for each, item in missing)
    rows = [(str(c.path), c.state, c.step, c.reason) for c in seen]
    rows += [(str(each.folder / item.name), "missing", _number(item.step), item.words) for each, item in missing]
    if as_json:
        names = ("file", "state", "step", "reason")
        rows += [(f"{path}/{item.file}", "damaged", -1, item.where + item.words) for path, item in damaged]
        print(as_json_text([dict(zip(names, row, strict=True)) for row in rows]))
    else:
        shown_rows = [(state, _step(step), file, reason) for file, state, step, reason in rows]
        print(columns([("state", "step", "file", "how"), *shown_rows]))
        print(f"\n{_sum(seen, missing=len(missing), lost=lost)}")
        for path, item in damaged[:MOST_ROWS]:
            print(f"damaged: {shown(f'{path}/{item}', LONGEST_LINE)}")
    return 0 if not (lost or damaged) and all(item.state == "good" for item in seen) else DamagedFile.exit_code


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found under one path: files, and where it is a run, what its records know of besides."""

    files: tuple[Candidate, ...]
    folder: Path = Path()
    missing: tuple[MissingFile, ...] = ()
    losses: tuple[MissingFile, ...] = ()  # of these, what the run is not whole without
    damage: tuple[Damage, ...] = ()  # of its records


def _verified(path: Path) -> Verified:
    if path.is_file():
        return Verified(files=(look_at(path, _manifests_for(path)),))
    _require_there(path)
    layout = layout_seen(run_folder(path))[0]
    facts = survey(path, layout)
    if not (facts.candidates or facts.missing):
        raise UsageError(path, "there is no checkpoint here", expected="*.pth files")
    files = tuple(_all_confirmed(facts))
    facts = replace(facts, candidates=files)
    return Verified(
        files=files,
        folder=layout.checkpoints(path),
        missing=facts.missing,
        losses=facts.losses,
        damage=facts.damage,
    )


def _sum(seen: Sequence[Candidate], *, missing: int, lost: int) -> str:
    """The last line: what cannot be used, what is missing, and whether that matters."""
    bad = sum(item.state != "good" for item in seen)
    words = [f"{bad} of {len(seen)} cannot be used" if bad else f"all {len(seen)} are whole"]
    if lost:
        words.append(f"{lost} that the run needs to be whole {'is' if lost == 1 else 'are'} missing")
    if missing > lost:
        words.append(f"{missing - lost} of earlier steps {'is' if missing - lost == 1 else 'are'} not here any more")
    return "; ".join(words)


def _number(step: int | None) -> int:
    return -1 if step is None else step


def _all_confirmed(facts: Survey) -> Iterator[Candidate]:
    """Each file verified; what a live training removes meanwhile is left out, what it replaces is looked at again."""
    gone = 0
    for item in facts.candidates:
        try:
            yield confirm(item, manifests(facts.directory))
        except Moved:
            if item.path.exists():
                yield looked_again(item.path, partial(look_at, item.path, manifests(facts.directory)))
            else:
                gone += 1
    if gone and gone == len(facts.candidates):
        raise Moved(facts.directory)


def _step(step: int) -> str:
    return str(step) if step >= 0 else "?"


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
        lines.append(f"last seen: {run.last_seen}")
    if run.config is not None:
        lines.append(f"config: {run.config}")
    if run.command:
        lines.append(f"command: {run.command}")
    lines = [shown(line, LONGEST_LINE) for line in lines]
    rows = [(s.name, s.verdict, f"{s.first}-{s.last}" if s.last else "no step", s.ended) for s in run.sessions]
    lines += ["", "sessions", columns([("session", "began", "steps", "ended"), *rows])] if rows else []
    lines += ["", "files"]
    pins, trouble = _pins_of(run.directory)
    files = [(c.name, _step(c.step), c.kind, c.state, _how(c.reason, pins.get(c.name))) for c in run.candidates]
    files += [(m.name, _step(_number(m.step)), m.kind, "missing", m.words) for m in run.missing]
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


def _require_there(path: Path) -> None:
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
    _require_there(path)
    if own(path).is_dir() or (path.is_dir() and any(layout_seen(path)[0].checkpoints(path).glob("*.pth"))):
        return path
    around = path if path.is_dir() else path.parent
    near = [str(folder) for folder in find_runs(around)][:5] if around.is_dir() else []
    raise UsageError(
        path,
        "this is not a run",
        expected="a folder with unbroken/ or with .pth files in it",
        found=f"runs near it: {', '.join(near)}" if near else "none, and no run below it",
        do="See `unbroken ls ROOT`.",
    )


def _manifests_for(file: Path) -> Path:
    folders = [file.absolute().parent, file.resolve().parent]  # a link to another disk is listed where it lies
    runs = [run for folder in folders for run in (folder, folder.parent) if own(run).is_dir()]
    return manifests(next(iter(runs), folders[-1]))
