"""`verify`: whether every checkpoint that was named, or lies in a folder that was, is whole byte for byte."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from unbroken.checkpoint.folders import INDEX, checkpoint_names, shards_of
from unbroken.checkpoint.sharded import is_sharded
from unbroken.checkpoint.structure import has_known_head
from unbroken.cli.args import CommandParser, add_json
from unbroken.cli.runs import add_runs, manifests_for, require_there, run_folder
from unbroken.cli.tables import LONGEST_LINE, MOST_ROWS, as_json_text, columns, step_text
from unbroken.errors import DamagedFile
from unbroken.run import Candidate, Layout, MissingFile, RunView, look_at
from unbroken.run.candidates import confirm
from unbroken.run.layout import ARCHIVE_FOLDER, OWN_FOLDER, manifests, own
from unbroken.run.locate import find_runs
from unbroken.run.survey import Damage, Survey, survey_of
from unbroken.storage.moved import Moved, looked_again
from unbroken.text import shown

PART_OF_MANY = ".distcp", ".metadata"
NOT_READ = frozenset({ARCHIVE_FOLDER, OWN_FOLDER})


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What was found under one path: files, and where it is a run, what its records know of besides."""

    files: tuple[Candidate, ...]
    folder: Path = Path()
    missing: tuple[MissingFile, ...] = ()
    losses: tuple[MissingFile, ...] = ()  # of these, what the run is not whole without
    damage: tuple[Damage, ...] = ()  # of its records
    aside: int = 0  # checkpoints in the archive, which are not judged


def verify_options(parser: CommandParser) -> None:
    """Files, runs or folders."""
    add_runs(parser, "PATH", "files, runs (folders or tags), or folders of checkpoints")
    add_json(parser)
    parser.add_examples("unbroken verify RUN", "unbroken verify a.pth downloads")


def verify_command(options: argparse.Namespace) -> int:
    """Whether checkpoints, or all checkpoints in folders, are whole; exit code 12 if one is not.

    Of a folder every .pth, .pt, .ckpt, .bin and .safetensors is judged, and what cannot be judged is named.

    Of a run, what its records know of and its folder has not is listed as missing. Its newest state and its best
    weights are needed for it to be whole; older states that were removed by hand are not.
    """
    paths = options.path
    checked = [looked_again(path, partial(_verified, path)) for path in paths]
    seen = [item for each in checked for item in each.files]
    missing = [(each, item) for each in checked for item in each.missing]
    damaged = [(path, item) for path, each in zip(paths, checked) for item in each.damage]
    lost = sum(item in each.losses for each, item in missing)
    rows = [(str(c.path), c.state, c.step, c.reason) for c in seen]
    rows += [
        (str(each.folder / item.name), "missing", -1 if item.step is None else item.step, item.words)
        for each, item in missing
    ]
    if options.as_json:
        names = ("file", "state", "step", "reason")
        rows += [(f"{path}/{item.file}", "damaged", -1, item.where + item.words) for path, item in damaged]
        print(as_json_text([dict(zip(names, row, strict=True)) for row in rows]))
    else:
        shown_rows = [(state, step_text(step), file, reason) for file, state, step, reason in rows]
        print(columns([("state", "step", "file", "how"), *shown_rows]))
        print(f"\n{_sum(seen, missing=len(missing), lost=lost, aside=sum(each.aside for each in checked))}")
        for path, item in damaged[:MOST_ROWS]:
            print(f"damaged: {shown(f'{path}/{item}', LONGEST_LINE)}")
    bad = any(item.state not in ("good", "foreign") for item in seen)
    nothing_judged = any(each.files and all(c.state == "foreign" for c in each.files) for each in checked)
    return DamagedFile.exit_code if bad or lost or damaged or nothing_judged else 0


def _verified(path: Path) -> Verified:
    if path.is_file() or is_sharded(path):
        return Verified(files=(_judged(path),))
    require_there(path)
    is_run = own(path).is_dir()
    if not is_run and next(find_runs(path), None) is None and (found := _in_folder(path)) is not None:
        return found
    view = RunView(run_folder(path))
    facts = survey_of(view)
    confirmed = tuple(_all_confirmed(facts, view.layout))
    known = {item.path for item in (*facts.candidates, *confirmed)}
    others = [file for file in checkpoint_names(path, skip=NOT_READ) if file not in known]
    facts = replace(facts, candidates=confirmed)
    return Verified(
        files=(*confirmed, *map(_judged, others)),
        folder=view.checkpoints,
        missing=facts.missing,
        losses=facts.losses,
        damage=facts.damage,
        aside=sum(1 for _ in checkpoint_names(path / ARCHIVE_FOLDER)) if (path / ARCHIVE_FOLDER).is_dir() else 0,
    )


def _in_folder(folder: Path) -> Verified | None:
    """The checkpoints in a folder that is no run, and the shards that an index names and are not there."""
    files = list(checkpoint_names(folder))
    indexes = sorted(folder.glob(f"*{INDEX}"))
    if not files and not indexes:
        return None
    missing = tuple(
        MissingFile(name=name, kind="weights", step=None, known_by=index.name, reason="not here")
        for index in indexes
        for name in shards_of(index)
        if not (folder / name).is_file()
    )
    return Verified(files=tuple(map(_judged, files)), folder=folder, missing=missing, losses=missing)


def _judged(file: Path) -> Candidate:
    """One file of any kind; of one that is no checkpoint, or a part of many, it is said that it was not judged."""
    if file.name.endswith(PART_OF_MANY):
        what = "not judged: a part of a distributed checkpoint, which has no checksums"
        return Candidate(path=file, step=-1, kind="unknown", state="foreign", reason=what)
    item = look_at(file, manifests_for(file))
    if item.state == "damaged" and file.suffix == ".bin" and not item.listed and not has_known_head(file):
        return replace(item, state="foreign", reason="not judged: it is no checkpoint; a .bin may hold anything")
    return item


def _sum(seen: Sequence[Candidate], *, missing: int, lost: int, aside: int) -> str:
    """The last line: what cannot be used, what was not judged, what is missing, and whether that matters."""
    foreign = [item for item in seen if item.state == "foreign"]
    judged = len(seen) - len(foreign)
    bad = sum(item.state not in ("good", "foreign") for item in seen)
    if bad:
        words = [f"{bad} of {judged} cannot be used"]
    elif judged:
        words = [f"all {judged} are whole" if not foreign else f"{judged} of {len(seen)} are whole"]
    else:
        words = ["nothing could be judged"]
    if foreign:
        named = ", ".join(item.name for item in foreign[:5]) + (" ..." if len(foreign) > 5 else "")
        were = "was" if len(foreign) == 1 else "were"
        words.append(f"{len(foreign)} of other kinds {were} not judged: {named}")
    if lost:
        words.append(f"{lost} that the run needs to be whole {'is' if lost == 1 else 'are'} missing")
    if missing > lost:
        words.append(f"{missing - lost} of earlier steps {'is' if missing - lost == 1 else 'are'} not here any more")
    if aside:
        words.append(f"{aside} in {ARCHIVE_FOLDER}/, moved aside, {'was' if aside == 1 else 'were'} not read")
    return "; ".join(words)


def _all_confirmed(facts: Survey, layout: Layout) -> Iterator[Candidate]:
    """Each file verified; what a live training removes meanwhile is left out, what it replaces is looked at again."""
    gone = 0
    for item in facts.candidates:
        try:
            yield confirm(item, layout)
        except Moved:
            if item.path.exists():
                yield looked_again(item.path, partial(look_at, item.path, manifests(facts.directory)))
            else:
                gone += 1
    if gone and gone == len(facts.candidates):
        raise Moved(facts.directory)
