"""The curves in a folder that MMEngine or OpenPCDet left: its `scalars.json` files, or its event files of TensorBoard.

Neither says from where a session went on, so it is read as TensorBoard does: what an earlier one has from the first
step of a later one on was done again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from unbroken.fields import count_of
from unbroken.journal.file import numbered_lines
from unbroken.report.curves import LARGEST_STEP, StitchedCurves, put
from unbroken.report.sessions import SessionRecord
from unbroken.run.layout import own
from unbroken.storage import open_ordinary

SCALARS = f"{'[0-9]' * 8}_{'[0-9]' * 6}*/vis_data/scalars.json"
EVENTS = "events.out.tfevents.*"
TRAINING, EVALUATION = "tensorboard", "eval/eval_with_train"
TIMES = frozenset(("time", "data_time", "iter", "step", "epoch", "memory"))
LONGEST_RECORD = 64 << 20
RENAMED = {"meta_data/learning_rate": "lr", "learning_rate": "lr", "meta_data/lr": "lr"}
MOST_FILES = 500


def read_foreign_curves(directory: Path) -> tuple[StitchedCurves, list[SessionRecord]]:
    """The curves by session, and the sessions in their order; none where there are no such files."""
    curves = StitchedCurves()
    for path in _scalars_files(directory):
        _read_scalars(path, curves, session=path.parent.parent.name)
    if not curves.sessions:
        for path in sorted((directory / TRAINING).glob(EVENTS))[:MOST_FILES]:
            _read_events(path, curves)
        _read_evaluations(directory, curves)
    return curves, _sessions(curves)


def has_foreign_curves(directory: Path) -> bool:
    """Whether there are such files."""
    return bool(_scalars_files(directory)) or any((directory / TRAINING).glob(EVENTS))


def _sessions(curves: StitchedCurves) -> list[SessionRecord]:
    """Each goes on from just before its first step."""
    found: list[SessionRecord] = []
    for name, session in curves.sessions.items():
        if session.first is None:
            continue
        base = max(session.first - 1, 0)
        parent = found[-1].name if found else None
        found.append(
            SessionRecord(name=name, verdict="Resume" if found else "Fresh", base=base, parent=parent, ended="")
        )
    return found


# -- MMEngine --------------------------------------------------------------------------------------------------------


def _scalars_files(directory: Path) -> list[Path]:
    """One for each session, which is named by its time; the folder of a run of ours is none."""
    found = (path for path in directory.glob(SCALARS) if not own(path.parent.parent).is_dir())
    return sorted(found)[:MOST_FILES]


def _read_scalars(path: Path, curves: StitchedCurves, *, session: str) -> None:
    """One line per logged step; a line without a learning rate and a loss is an evaluation."""
    try:
        for _, record in numbered_lines(path):
            step = count_of(record.get("step")) if record is not None else None
            if record is None or step is None or step > LARGEST_STEP:
                curves.unreadable += record is None
                continue
            _note(curves, session, step, {str(key): value for key, value in record.items() if key not in TIMES})
    except OSError:
        return


def _note(curves: StitchedCurves, name: str, step: int, values: Mapping[str, Any]) -> None:
    session = curves.session(name)
    if "loss" in values or "lr" in values:
        session.spanned(step, step)
        put(session.values, step, values)
    else:
        put(session.evaluations, step, values)


# -- TensorBoard -----------------------------------------------------------------------------------------------------


def _read_events(path: Path, curves: StitchedCurves) -> None:
    session = curves.session(path.name.removeprefix("events.out.tfevents."))
    for step, tag, value in scalars_in(path):
        name = RENAMED.get(tag, RENAMED.get(tag.removeprefix("train/"), tag.removeprefix("train/")))
        session.spanned(step, step)
        column = session.values.get(name)
        if column is None or column.steps[-1] != step:  # OpenPCDet writes the learning rate twice
            put(session.values, step, {name: value})


def _read_evaluations(directory: Path, curves: StitchedCurves) -> None:
    """What was measured at the end of epochs, at the steps of these ends as far as a checkpoint tells them."""
    steps_of_epoch = _steps_of_epoch(directory)
    if not steps_of_epoch or not curves.sessions:
        return
    last = list(curves.sessions.values())[-1]
    for path in sorted((directory / EVALUATION).rglob(EVENTS))[:MOST_FILES]:
        for epoch, tag, value in scalars_in(path):
            put(last.evaluations, round(epoch * steps_of_epoch), {tag: value})


def _steps_of_epoch(directory: Path) -> float:
    """By any checkpoint at the end of an epoch that can be read."""
    from unbroken.checkpoint.structure import read_structure
    from unbroken.errors import UnbrokenError

    for path in sorted((directory / "ckpt").glob("checkpoint_epoch_*.pth"), reverse=True):
        try:
            structure = read_structure(path)
        except UnbrokenError:
            continue
        if structure.step and structure.epoch:
            return structure.step / structure.epoch
    return 0.0


def scalars_in(path: Path) -> Iterator[tuple[int, str, float]]:
    """Step, tag and value of every scalar of an event file; one that is cut off or garbled ends there, quietly."""
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf has no types
    from tensorboard.compat.proto.event_pb2 import Event  # a twelfth of a second, and only wanted here

    try:
        with open_ordinary(path) as file:
            for data in _records(file):
                event = Event.FromString(data)
                if 0 <= event.step <= LARGEST_STEP:
                    yield from ((event.step, *scalar) for scalar in _scalars(event.summary.value))
    except (OSError, ValueError, DecodeError):
        return


def _scalars(values: Iterable[Any]) -> Iterator[tuple[str, float]]:
    """Numbers written by `add_scalar`, in the old form and in the new one."""
    for value in values:
        kind = value.WhichOneof("value")
        if kind == "simple_value":
            yield value.tag, value.simple_value
        elif kind == "tensor" and value.metadata.plugin_data.plugin_name == "scalars" and len(value.tensor.float_val):
            yield value.tag, value.tensor.float_val[0]


def _records(file: BinaryIO) -> Iterator[bytes]:
    """The records of a TFRecord file: length, its checksum, data, its checksum."""
    while len(head := file.read(12)) == 12:
        (length,) = struct.unpack("<Q", head[:8])
        if not 0 < length <= LONGEST_RECORD:  # every event has a time
            return
        data = file.read(length + 4)
        if len(data) < length + 4:
            return
        yield data[:length]
