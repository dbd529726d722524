"""The hand-made facts of a row as real files below the current folder, written by the project's own writers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from tests.golden.launch_facts import CONFIG, CUT_OFF, DATA_SIZE, EMPTY, RECORD, THEN, inside, job
from tests.golden.row import Row
from tests.golden.tiny_training import states_after
from unbroken.checkpoint import FORMAT
from unbroken.checkpoint.manifest import Manifest, SaveFacts, write_manifest
from unbroken.journal import Journal
from unbroken.launch import Facts, LaunchOptions
from unbroken.launch.extension import Extension
from unbroken.launch.job import ProcessOptions
from unbroken.run import ITERATIONS, Candidate, RunRecord, Survey
from unbroken.run.layout import manifests, own
from unbroken.run.record import RESTORING, write_record
from unbroken.storage import Disk, write_json
from unbroken.storage.digest import DigestingFile
from unbroken.train.data.rng import preserved
from unbroken.train.progress import Progress
from unbroken.train.state.contents import compose, compose_weights, stamp
from unbroken.train.state.serialise import write_tree

DISK = Disk()
POINTER = ITERATIONS.pointer


class Then:
    """The evening on which everything here was written."""

    def now(self) -> datetime:
        return THEN

    def monotonic_s(self) -> float:
        return 0.0


def lay_out(row: Row) -> None:
    """Write everything that a row says is there, and nothing else."""
    with preserved():
        for survey in (row.facts.survey, *row.facts.elsewhere, *row.beside):
            if survey.exists:
                _lay_out_run(survey, row.job.config if survey in row.beside else CONFIG)
        for item in _named(row.facts):
            if not item.path.exists():  # else it is one of the run's own files
                _write_candidate(item, manifests(ITERATIONS.run_of(item.path)))


@contextmanager
def held_as_said(survey: Survey) -> Iterator[None]:
    """Hold the lock as long as this lasts, through a file description of its own, if the survey says somebody does."""
    if not survey.held:
        yield
        return
    import fcntl

    with (own(survey.directory) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _named(facts: Facts) -> list[Candidate]:
    return [item for item in (facts.exact, facts.origin, facts.weights) if item is not None]


# -- one run ---------------------------------------------------------------------------------------------------------


def _lay_out_run(survey: Survey, config: Mapping[str, Any]) -> None:
    survey.directory.mkdir(parents=True, exist_ok=True)  # two runs may lie in one folder
    for item in survey.candidates:
        _write_candidate(item, manifests(survey.directory))
    for name in survey.partials:
        (survey.directory / name).write_bytes(b"PK\x03\x04 the first bytes of a checkpoint")
    if survey.record is not None:
        own(survey.directory).mkdir(exist_ok=True)
        write_record(DISK, survey.directory, survey.record)
    _write_journal(survey)
    for session in survey.sessions:
        DISK.make_folder(own(survey.directory) / "configs")
        write_json(DISK, own(survey.directory) / "configs" / f"{session}.json", config)
    if survey.holder is not None:
        write_json(DISK, own(survey.directory) / "holder.json", asdict(survey.holder))
    for item in survey.missing:
        if item.reason.startswith("is a link to "):
            target = item.reason.removeprefix("is a link to ").partition(",")[0]
            DISK.link(survey.directory / item.name, target)
    if survey.restoring is not None:
        write_json(DISK, own(survey.directory) / RESTORING, survey.restoring.as_plain())
    _write_pointer(survey)


def _write_journal(survey: Survey) -> None:
    """Sessions, the saves of the first of them, how the last one ended; no session: the journal is lost."""
    if not survey.sessions:
        return
    own(survey.directory).mkdir(exist_ok=True)
    first, *others = survey.sessions
    _write_event(survey, first, "session", plan={"verdict": "Fresh"})
    for name, kind, step in _saved(survey):
        _write_event(survey, first, "saved", file=name, kind=kind, step=step)
    for session in others:
        _write_event(survey, session, "session", plan={"verdict": "Resume"})
    if survey.finished_at is not None:
        _write_event(survey, survey.sessions[-1], "finished", step=survey.finished_at)
    if survey.archiving:
        _write_event(survey, survey.sessions[-1], "archiving", to="archive/20261120_230000")


def _write_event(survey: Survey, session: str, event: str, **facts: Any) -> None:
    journal = Journal(DISK, own(survey.directory) / "journal.jsonl", clock=Then(), session=session)
    journal.write(event, **facts)
    journal.close()


def _saved(survey: Survey) -> list[tuple[str, str, int | None]]:
    """The saves that the journal knows of: of files that somebody took away, and of those that are here."""
    taken = [(item.name, item.kind, item.step) for item in survey.missing if item.known_by == "the journal"]
    here = [(item.name, item.kind, item.step) for item in reversed(_own_checkpoints(survey))]
    return [*taken, *here]


def _own_checkpoints(survey: Survey) -> list[Candidate]:
    ours = survey.record.id if survey.record else RECORD.id
    return [item for item in survey.candidates if item.resumable and item.run == ours and item.name != POINTER]


def _write_pointer(survey: Survey) -> None:
    """The link for people, to the furthest save, unless the row has a file of that name."""
    pointer, saves = survey.directory / POINTER, _own_checkpoints(survey)
    if saves and not pointer.exists():
        pointer.symlink_to(saves[0].name)


# -- one file --------------------------------------------------------------------------------------------------------


def _write_candidate(item: Candidate, listed_in: Path) -> None:
    """Write the file whole, with a manifest if it is listed, and then damage it as its reason says."""
    DISK.make_folder(item.path.parent)
    facts = SaveFacts(
        file=item.name,
        kind=item.kind,
        run=item.run,
        save=str(item.inside.get("save", f"{item.step % 10**16:016}")),
        session=str(item.inside.get("session", "20261120_200000")),
        step=item.step,
        epoch=_progress(item).epoch,
        time=RECORD.created,
    )
    file = DISK.create(item.path)
    digest = DigestingFile(file)
    write_tree(digest, _contents(item, facts))
    DISK.close(file)
    if item.listed:
        DISK.make_folder(listed_in)
        manifest = Manifest(**asdict(facts), format=FORMAT, size_bytes=digest.size_bytes, digest=digest.digest)
        write_manifest(DISK, listed_in, manifest)
    if item.state == "damaged":
        damage = DAMAGE[item.reason]
        item.path.write_bytes(damage(item.path.read_bytes()))


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    CUT_OFF: lambda whole: whole[: len(whole) // 2],
    EMPTY: lambda _whole: b"",
}


def _contents(item: Candidate, facts: SaveFacts) -> dict[str, Any]:
    if item.kind == "unknown":
        return {"predictions": [torch.zeros(3)], "of": "three pictures"}
    if item.kind.startswith("foreign") or not item.run:
        return _of_mmengine(item)
    said, progress = _said(item), _progress(item)
    record = RunRecord(id=item.run, recipe=RECORD.recipe, tag=RECORD.tag, created=RECORD.created, seed=RECORD.seed)
    together = LaunchOptions(processes=ProcessOptions(count=said.get("processes", 1)))
    asked = replace(job(said["config"], total=said["total"]), options=together)
    stamped = stamp(asked, record, facts, progress, lr=said["lr"], total=said["total"])
    if item.state == "newer":
        stamped["format"] = FORMAT + 1
    states = _states(item)
    if item.kind == "weights":
        return compose_weights(ITERATIONS, states["model"], stamped, meta={})
    return compose(ITERATIONS, states, stamped, meta={}, regroupings={})


def _of_mmengine(item: Candidate) -> dict[str, Any]:
    """A file under MMEngine's names, with a training state or without."""
    states = _states(item)
    meta = {"iter": item.step, "epoch": 0, "mmengine_version": "0.10.7"}
    tree = {"meta": meta, "state_dict": states["model"], "message_hub": {"runtime_info": {}}}
    if item.resumable:
        tree |= {"optimizer": states["optimizer"], "param_schedulers": states["scheduler"]}
    return tree


def _said(item: Candidate) -> Mapping[str, Any]:
    """What the file says of itself, also where the row's survey has not opened it."""
    return item.inside or inside(item.step)


def _states(item: Candidate) -> dict[str, Any]:
    said = _said(item)
    extension = Extension.from_plain(said.get("extension"))
    return states_after(item.step, said["config"], lr=said["lr"], extension=extension)


def _progress(item: Candidate) -> Progress:
    """The counters after so many steps of one sample each."""
    step = max(item.step, 0)
    extension = _said(item).get("extension")
    return Progress(step=step, position=step, dataset_size=DATA_SIZE, evaluated_step=step, extension=extension)


def image_of(folder: Path) -> dict[str, bytes]:
    """Every file of a tree with its bytes, every link with where it points, by relative path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}".encode()
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def json_lines(content: bytes) -> list[dict[str, Any]]:
    """The records of a journal."""
    return [json.loads(line) for line in content.splitlines()]
