"""An audit of one run: the files against their manifests, the journal against the steps, and one verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from unbroken.checkpoint.manifest import Manifest
from unbroken.checkpoint.sharded import size_of
from unbroken.checkpoint.structure import Structure, open_checkpoint, structure_in
from unbroken.checkpoint.verify import verify_open
from unbroken.errors import UnbrokenError
from unbroken.fields import count_of
from unbroken.journal import Event
from unbroken.journal.events import EpochCut, Evaluated, FileSaved, Skipped, TrainingFinished, saved_digest
from unbroken.quantities import counted
from unbroken.report.epochs import Epoch, EpochFold
from unbroken.report.findings import Finding, Findings, span
from unbroken.report.sessions import SessionRecord, sessions_of, surviving
from unbroken.report.steps import Repeats, StepFold
from unbroken.run.candidates import Candidate
from unbroken.run.record import RECORD
from unbroken.run.survey import damaged_records, known_saves, missing_files, that_matter
from unbroken.run.view import JOURNAL, METRICS, RunView, looked_at
from unbroken.storage import is_ordinary
from unbroken.storage.moved import undisturbed


@dataclass(frozen=True, kw_only=True)
class SavedFile:
    """One checkpoint or weights file that is here, and what it says about itself."""

    name: str
    step: int | None
    session: str
    position: int | None
    size: int | None  # of the data set


def check_files(view: RunView, findings: Findings, *, verify: bool) -> list[SavedFile]:
    """Hold every file against its manifest and the journal; with `verify`, read every byte of it."""
    known = known_saves(view.events)
    # What a copy brought back, or a person, was saved all the same: of a file with a manifest the last save counts.
    last = {event.file: event for event in view.events if isinstance(event, FileSaved)}
    found = []
    for item in sorted(view.candidates, key=lambda item: item.path):
        event = known.get(item.name) or (last.get(item.name) if item.manifest is not None else None)
        found.append(undisturbed(item.path, partial(_check, item, event, findings, verify=verify)))
    names = {item.name for item in view.candidates}
    ours = [item for item in view.candidates if view.record is None or item.run == view.record.id]
    missing = missing_files(view, ours)
    losses = that_matter(missing, ours)
    for lost in losses:
        findings.add(lost.name, lost.words, step=lost.step)
    if gone := sorted(item.name for item in missing if item not in losses):
        findings.note(f"no longer here, though the journal has not seen it go: {', '.join(gone[:8])}")
    for name in view.manifest_names:
        if name not in names and name not in {item.name for item in missing}:
            findings.note(f"manifests/{name}.json is about a file that is not here")
    return found


def _check(item: Candidate, event: Mapping[str, Any] | None, findings: Findings, *, verify: bool) -> SavedFile:
    path, manifest = item.path, item.manifest
    try:
        with open_checkpoint(path) as file:
            inside = structure_in(file, path)
            if manifest is None:
                _without_manifest(item, event, findings)
            else:
                _with_manifest(path, inside, manifest, event, findings)
            if verify:
                digest, size_bytes = (manifest.digest, manifest.size_bytes) if manifest is not None else (None, None)
                verdict = verify_open(file, path, expected_digest=digest, expected_bytes=size_bytes)
                if verdict.state != "good":
                    findings.add(path.name, verdict.reason)
    except UnbrokenError as error:
        findings.add(path.name, f"the file cannot be read: {error.what}")
        return SavedFile(name=path.name, step=None, session="", position=None, size=None)
    stamp = inside.stamp
    return SavedFile(
        name=path.name,
        step=inside.step,
        session=str(stamp.get("session", "")),
        position=count_of(stamp.get("position")),
        size=count_of(stamp.get("dataset_size")),
    )


def _without_manifest(item: Candidate, event: Mapping[str, Any] | None, findings: Findings) -> None:
    if event is not None:
        words = f"missing or unreadable, though {item.name} was saved after step {event.get('step')}"
        findings.add(f"manifests/{item.name}.json", words)
    else:
        findings.note(f"{item.name} has no manifest and no line in the journal: a save that a kill cut off, or foreign")


def _with_manifest(
    path: Path, inside: Structure, manifest: Manifest, event: Mapping[str, Any] | None, findings: Findings
) -> None:
    save = inside.stamp.get("save")
    if save is not None and save != manifest.save:
        # The next save was renamed into place and killed before its manifest; its bytes are judged by themselves.
        findings.note(f"{path.name} holds save {save}, its manifest is of {manifest.save}: a save that a kill cut off")
        return
    if inside.step is not None and inside.step != manifest.step:
        words = f"the manifest says step {manifest.step}, the file says step {inside.step}"
        findings.add(path.name, words, step=inside.step)
    if (found_bytes := size_of(path)) != manifest.size_bytes:
        words = f"{found_bytes} bytes, the manifest says {manifest.size_bytes}"
        findings.add(path.name, words, step=manifest.step)
    if event is None:
        findings.note(f"{path.name} is not in the journal: the session was killed before it could say so")
    elif saved_digest(event) != manifest.digest:
        words = "is not the save that the journal knows: a session was killed before it could say so"
        findings.note(f"{path.name} {words}")


# -- the whole of it ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class AuditedSession:
    """One session, the steps it recorded, and how many of these are in the final history."""

    name: str
    verdict: str
    base: int
    first: int
    last: int
    kept: int
    ended: str


@dataclass(frozen=True, kw_only=True)
class RepeatCount:
    """The steps that were lost and what came of them."""

    lost: int  # records that are not part of the final history
    repeated: int  # steps that were done again
    compared: int
    identical: int
    changed: int  # not compared: something that is computed had changed in between
    resized: int  # not compared: the data set had grown or shrunk in between
    other_order: int | None  # of the changed ones, the first step that brought other samples than were expected there


@dataclass(frozen=True, kw_only=True)
class Audit:
    """What was found; `findings` is empty when the run is what it should be."""

    run: Path
    first: int  # the step before the first that is recorded: 0, or where another program had come to
    steps: int
    last: int
    missing: int
    sessions: tuple[AuditedSession, ...]
    repeats: RepeatCount
    samples: int  # used in all
    size: int  # of the data set; 0: the loop draws its own samples
    whole_epochs: int
    epochs: tuple[Epoch, ...]  # those of which there is something to say
    excused: int
    evaluations: int
    saves: int
    changes: tuple[str, ...]
    findings: tuple[Finding, ...]
    more_findings: int
    notes: tuple[str, ...]
    running: bool

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def verdict(self) -> str:
        """The whole audit in one line."""
        if not self.good:
            number = len(self.findings) + self.more_findings
            return f"audit: {counted(number, 'thing')} wrong in {counted(self.steps, 'step')}"
        said = f"audit: {counted(self.steps, 'step')}, each once"
        if not self.size:
            return said + ("; its loop draws its own samples" if self.steps else "")
        begun = [epoch for epoch in self.epochs if not epoch.whole]
        part = " and a part of one" if begun else ""
        return f"{said}; {counted(self.whole_epochs, 'epoch')}{part}, each sample once"

    def as_data(self) -> dict[str, Any]:
        """The same as JSON-able data."""
        return {"verdict": self.verdict, "good": self.good, **asdict(self), "run": str(self.run)}


def audit(run: Path, *, verify: bool = False) -> Audit:
    """Read the records of a run and judge them; changes nothing, needs no torch."""
    return looked_at(run, partial(_audit, verify=verify))


def _audit(view: RunView, *, verify: bool) -> Audit:
    findings = Findings()
    if not is_ordinary(view.own / JOURNAL):
        findings.add(JOURNAL, "missing: nothing says which sessions there were")
    for line in view.told.torn:
        findings.note(f"{JOURNAL} line {line} is not an event (a kill can leave half a line)")
    for damaged in view.told.damaged:
        findings.add(JOURNAL, damaged.words, line=damaged.line)
    files = check_files(view, findings, verify=verify)
    _require_metrics(view, findings)
    _damaged_records(view, findings)
    fold = _fold(view, files, findings)
    _counterparts(view.events, fold, findings)
    return _summary(view, fold, findings)


def _damaged_records(view: RunView, findings: Findings) -> None:
    """Without its record a run is not known; what else is damaged is made anew, or missed by nobody."""
    for item in damaged_records(view, with_lines=False):
        if item.file.endswith(f"/{RECORD}"):
            findings.add(RECORD, item.words)
        else:
            findings.note(str(item))


def _require_metrics(view: RunView, findings: Findings) -> None:
    if is_ordinary(view.own / METRICS):
        return
    if any(isinstance(event, FileSaved | Evaluated | TrainingFinished) for event in view.events):
        findings.add(METRICS, "missing: not one step that was done is recorded")
    elif not view.events:
        findings.add(METRICS, "missing: no session of unbroken worked here")


# -- the fold, again with what it needed to know -----------------------------------------------------------------------


def _fold(view: RunView, files: Sequence[SavedFile], findings: Findings) -> StepFold:
    """Fold once; a second time where only the records say which sessions or how many samples there are."""
    known = sessions_of(view)
    for _ in range(3):
        attempt = Findings(wrong=list(findings.wrong), notes=list(findings.notes))
        fold, missing_facts = _attempt(view, known, files, attempt)
        if fold.unknown:
            known = _with_unknown(known, fold)
        elif missing_facts:
            if missing_facts.size:
                count = missing_facts.size
                findings.note(f"no save says how many samples the data set has: {count} by their largest number")
            files = [*files, missing_facts]
        else:
            break
    unlisted = [session for session in known if not session.listed]
    for session in unlisted:
        attempt.add(METRICS, f"session {session.name} is not in the journal", step=session.base + 1)
    findings.wrong, findings.notes, findings.more = attempt.wrong, attempt.notes, attempt.more
    return fold


def _attempt(
    view: RunView, sessions: Sequence[SessionRecord], files: Sequence[SavedFile], findings: Findings
) -> tuple[StepFold, SavedFile | None]:
    """One reading; also the fact that it turned out to need, if it did."""
    chain = [session for session in sessions if session.name in surviving(sessions)]
    sizes = _sizes(sessions, chain, files)
    epochs = EpochFold(findings, _excused(view.events), _cut(view.events))
    position, asked = _beginning(chain, files)
    first_size = sizes.get(chain[0].name, 0) if chain else 0
    epochs.begin(size=first_size, position=position)
    conditions = view.record.conditions if view.record is not None else {}
    exact = conditions.get("device", "cpu") == "cpu" or bool(conditions.get("deterministic"))
    repeats = Repeats(findings, exact=exact, sizes=sizes)
    fold = StepFold(sessions, findings, epochs, repeats, sizes)
    fold.used_after = dict.fromkeys(asked, 0)
    if is_ordinary(view.own / METRICS):
        fold.read(view.own / METRICS)
    if fold.unknown:
        return fold, None
    if not first_size and epochs.largest >= 0:
        last = chain[-1].name if chain else ""
        return fold, SavedFile(name="", step=None, session=last, position=None, size=epochs.largest + 1)
    at = next((step for step, used in fold.used_after.items() if used), None)
    if position is None and at is not None and chain:
        began = asked[at] - fold.used_after[at]
        return fold, SavedFile(name="", step=chain[0].base, session="", position=began, size=None)
    return fold, None


def _with_unknown(sessions: list[SessionRecord], fold: StepFold) -> list[SessionRecord]:
    """Sessions that only the steps know, each after the last one that can have led to it."""
    known = list(sessions)
    for name, base in fold.unknown.items():
        place = next((at for at, session in enumerate(known) if session.name > name), len(known))
        parent = known[place - 1].name if place and base else None
        known.insert(place, SessionRecord(name=name, verdict="?", base=base, parent=parent, ended="?", listed=False))
        if place + 1 < len(known) and known[place + 1].parent == parent and known[place + 1].base > base:
            known[place + 1] = replace(known[place + 1], parent=name)
    return known


def _sizes(
    sessions: Sequence[SessionRecord], chain: Sequence[SessionRecord], files: Sequence[SavedFile]
) -> dict[str, int]:
    """How many samples the data set of each session has: as its saves say, or the next one that went on from them."""
    said = {file.session: file.size for file in files if file.size}
    for session in sessions:
        if session.parent is not None and session.size:
            said[session.parent] = session.size
    sizes: dict[str, int] = {}
    near = next((said[session.name] for session in chain if session.name in said), 0)
    for session in chain:
        near = said.get(session.name) or near
        sizes[session.name] = near
    return sizes


def _beginning(chain: Sequence[SessionRecord], files: Sequence[SavedFile]) -> tuple[int | None, dict[int, int]]:
    """The position at which the history begins, or the steps whose position is known, from which it follows."""
    if not chain or not chain[0].base:
        return 0, {}
    base = chain[0].base
    if chain[0].position is not None:
        return chain[0].position, {}
    known = {file.step: file.position for file in files if file.step and file.position is not None}
    known |= {session.base: session.position for session in chain[1:] if session.position is not None}
    if base in known:
        return known[base], {}
    return None, {step: position for step, position in known.items() if step > base and position}


def _excused(events: Iterable[Event]) -> dict[int, set[int]]:
    """Samples that were left out because they cannot be read, by epoch."""
    found: dict[int, set[int]] = {}
    for event in events:
        match event:
            case Skipped(epoch=int(epoch), sample=int(sample)):
                found.setdefault(epoch, set()).add(sample)
    return found


def _cut(events: Iterable[Event]) -> set[int]:
    """Epochs that the loop itself ended before their end."""
    return {event.epoch for event in events if isinstance(event, EpochCut) and event.epoch is not None}


# -- what else must agree ----------------------------------------------------------------------------------------------


def _counterparts(events: Sequence[Event], fold: StepFold, findings: Findings) -> None:
    """Saves and evaluations of the journal against the steps, and the other way round."""
    told: set[tuple[str, int]] = set()
    for event in events:
        session = event.session
        match event:
            case Evaluated(step=int(step)):
                told.add((session, step))
                if (session, step) not in fold.evaluated and fold.spans:
                    words = f"the evaluation after step {step} is in the journal only, session {session}"
                    findings.add(METRICS, words, step=step)
            case FileSaved(step=int(step)) | TrainingFinished(step=step) if not _reached(fold, session, step):
                what = f"{event.file} was saved" if isinstance(event, FileSaved) else "the run was finished"
                words = f"{what} after step {step}, but session {session} has no record up to there"
                findings.add(METRICS, words, step=step)
    for session, step in sorted(fold.evaluated - told):
        findings.note(f"the evaluation after step {step} is not in the journal: session {session} was killed after it")


def _reached(fold: StepFold, name: str, step: int) -> bool:
    if not fold.spans:
        return True  # that the whole record is missing was said
    known = fold.spans.get(name)
    base = next((session.base for session in fold.sessions if session.name == name), None)
    return base is None or step <= max(base, known.last if known else 0)


def _changes(fold: StepFold) -> Iterable[str]:
    finished = {(session.name, fold.spans[session.name].last) for session in fold.sessions if _is_done(session, fold)}
    for session in fold.sessions:
        for change in session.changes:
            key = change.partition(":")[0]
            yield f"after step {session.base}: {change}" + (", accepted" if key in session.accepted else "")
        if (session.parent, session.base) in finished and session.name in fold.spans:  # one that added steps
            yield f"after step {session.base}: the run was finished and is made longer"


def _is_done(session: SessionRecord, fold: StepFold) -> bool:
    return session.ended == "finished" and session.name in fold.spans


def _summary(view: RunView, fold: StepFold, findings: Findings) -> Audit:
    epochs, repeats = fold.epochs, fold.repeats
    chain = surviving(fold.sessions)
    if fold.first:
        programs = [session.written_by for session in fold.sessions if session.name in chain and session.written_by]
        by = f" by {programs[0]}" if programs else ""
        findings.note(f"{span(1, fold.first)} were done{by} before these records begin")
    whole = [epoch for epoch in epochs.closed if epoch.whole and not epoch.begun_before]
    sizes = [fold.sizes[name] for name in chain if name in fold.sizes]
    return Audit(
        run=view.directory,
        first=fold.first,
        steps=fold.steps,
        last=fold.last,
        missing=sum(last - first + 1 for first, last in fold.missing),
        sessions=tuple(_spans(fold)),
        repeats=RepeatCount(
            lost=repeats.lost,
            repeated=repeats.repeated,
            compared=repeats.compared,
            identical=repeats.identical,
            changed=repeats.changed,
            resized=repeats.resized,
            other_order=repeats.other_order,
        ),
        samples=epochs.used,
        size=sizes[0] if sizes else 0,
        whole_epochs=epochs.exact + len(whole),
        epochs=tuple(epochs.closed),
        excused=sum(epoch.excused for epoch in epochs.closed),
        evaluations=len(fold.evaluations),
        saves=sum(isinstance(event, FileSaved) and event.kind == "checkpoint" for event in view.events),
        changes=tuple(_changes(fold)),
        findings=tuple(findings.wrong),
        more_findings=findings.more,
        notes=tuple(findings.notes),
        running=view.held,
    )


def _spans(fold: StepFold) -> Iterable[AuditedSession]:
    for session in fold.sessions:
        known = fold.spans.get(session.name)
        yield AuditedSession(
            name=session.name,
            verdict=session.verdict.lower(),
            base=session.base,
            first=known.first if known else 0,
            last=known.last if known else 0,
            kept=known.kept if known else 0,
            ended=session.ended,
        )
