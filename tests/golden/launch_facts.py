"""What can be on a disk and what can be asked, made by hand: the material of the launch table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from unbroken.clock import utc_text
from unbroken.config import Effect, Effects
from unbroken.launch import Job, Start
from unbroken.launch.extension import Extension
from unbroken.launch.job import SCRIPT
from unbroken.run import Candidate, MissingFile, RunRecord, Survey
from unbroken.run.candidates import furthest_first
from unbroken.storage.lock import Holder

RUN, OTHER = "1f0e4c2a9b7d5836", "77aa00bb11cc22dd"
FOLDER = Path("work_dirs/baseline")
CONFIG: dict[str, Any] = {
    "model": {"width": 64, "classes": ["road", "roof"]},
    "train": {"lr": 0.01, "max_iters": 400},
    "data": {"crop": 512},
    "workers": 4,
}
EFFECTS = Effects(
    fields={
        "model": Effects(
            fields={
                "width": Effects(own=Effect.SHAPE),
                "classes": Effects(own=Effect.MEANING),
                "depth": Effects(own=Effect.SHAPE),
            }
        ),
        "train": Effects(own=Effect.SCHEDULE),
        "data": Effects(own=Effect.DATA),
        "workers": Effects(own=Effect.FREE),
    }
)
DATA_SIZE = 50
THEN = datetime(2026, 11, 20, 22, tzinfo=UTC)  # the evening on which everything here was written
CUT_OFF = "the file is cut off: the zip directory at its end is missing"
EMPTY = "the file is empty"
HOLDER = Holder(host="node7", pid=4711, since="2026-11-20T22:01:05+00:00", session="20261120_220105", released=False)
RECORD = RunRecord(id=RUN, recipe="mapsage", tag="baseline", created="2026-11-20T20:00:00+00:00", seed=0)


def falling_rate(config: Mapping[str, Any], total: int) -> Callable[[int], float]:
    """Falls in each step of the training, and stays where it is when that is over."""
    rate: float = config["train"]["lr"]
    return lambda step: rate * (1 - min(step, total - 1) / total)


def ended_rate(config: Mapping[str, Any], _total: int) -> Callable[[int], float]:
    rate: float = config["train"]["lr"]
    return lambda step: rate * max(0.0, 1 - step / 399)


def rate_to_zero(config: Mapping[str, Any], total: int) -> Callable[[int], float]:
    """The last step is at 0, as PolyLR has it."""
    rate: float = config["train"]["lr"]
    return lambda step: rate * max(0.0, 1 - step / (total - 1))


def job(
    config: dict[str, Any] | None = None,
    *,
    total: int | None = 400,
    recipe: str = "mapsage",
    rate: Callable[[Mapping[str, Any], int], Callable[[int], float]] = falling_rate,
    **start: Any,
) -> Job:
    """A launch; a script's own loop knows its length and its schedule, the launch does not."""
    is_script = recipe == SCRIPT
    return Job(
        recipe=recipe,
        tag="baseline",
        directory=FOLDER,
        config=config or CONFIG,
        effects=EFFECTS,
        seed=0,
        total_steps=None if is_script else total,
        start=Start(**start),
        command="python scripts/train.py configs/base.py",
        lr_at=None if is_script else rate(config or CONFIG, total or 400),
    )


def changed(**keys: Any) -> dict[str, Any]:
    """The config with some keys replaced: `model__width=128`."""
    result = {name: dict(part) if isinstance(part, dict) else part for name, part in CONFIG.items()}
    for key, value in keys.items():
        section, _, name = key.partition("__")
        if name:
            result[section][name] = value
        else:
            result[section] = value
    return result


def inside(step: int, **facts: Any) -> dict[str, Any]:
    """What a checkpoint says of itself; its learning rate is that of the step to come."""
    rate = falling_rate(CONFIG, 400)(step)
    return {"config": CONFIG, "lr": rate, "total": 400, "processes": 1, **place(step), **facts}


def place(step: int) -> dict[str, Any]:
    """Where in the data a step of one sample ends."""
    return {"epoch": step // DATA_SIZE, "position": step, "dataset_size": DATA_SIZE}


def saved(step: int, state: str = "good", *, listed: bool = True, **facts: Any) -> Candidate:
    reasons = {
        "good": "verified by whole-file digest" if listed else "verified by zip CRC",
        "damaged": CUT_OFF,
    }
    known: dict[str, Any] = {
        "path": FOLDER / f"iter_{step}.pth",
        "step": step,
        "kind": "checkpoint",
        "state": state,
        "reason": reasons.get(state, ""),
        "run": RUN,
        "listed": listed,
        "format_name": "unbroken checkpoint" if state == "good" else "",
        "inside": inside(step) if state == "good" else {},
    }
    return Candidate(**{**known, **facts})


def best(step: int, **facts: Any) -> Candidate:
    path = FOLDER / f"best_mIoU_iter_{step}.pth"
    return saved(step, facts.pop("state", "unchecked"), **{"path": path, "kind": "weights", **facts})


def foreign(step: int, state: str = "good", **facts: Any) -> Candidate:
    known = {"kind": "foreign checkpoint", "run": "", "format_name": "MMEngine checkpoint", "inside": {}}
    return saved(step, state, listed=False, **{**known, "noted_epoch": 0, **facts})


def newer(step: int, **facts: Any) -> Candidate:
    known = {"reason": "format 4, this version knows 3", "format_name": "unbroken checkpoint"}
    return saved(step, "newer", **{**known, **facts})


def gone(step: int, **facts: Any) -> MissingFile:
    """A save that the journal knows and somebody took away."""
    known = {"reason": "is not here", "known_by": "the journal", "saved_at": utc_text(THEN, timespec="milliseconds")}
    return MissingFile(**{"name": f"iter_{step}.pth", "kind": "checkpoint", "step": step, **known, **facts})


def found(*candidates: Candidate, **facts: Any) -> Survey:
    """A run with saves; its candidates furthest first, as a survey has them; what was saved and is not here is gone."""
    record: RunRecord = facts.get("record") or RECORD
    own = sum(item.resumable and item.run == record.id and item.name != "latest.pth" for item in candidates)
    own += sum(item.resumable and item.known_by == "the journal" for item in facts.get("missing", ()))
    deleted = range(facts.get("saves_ever", own) - own, 0, -1)
    known: dict[str, Any] = {
        "directory": FOLDER,
        "exists": True,
        "record": RECORD,
        "candidates": tuple(sorted(candidates, key=furthest_first)),
        "saves_ever": own,
        "sessions": ("20261120_200000",),
        "missing": tuple(gone(10 * number) for number in deleted),
    }
    return Survey(**{**known, **facts})


NOTHING = Survey(directory=FOLDER, exists=False)
BARE: dict[str, Any] = {"record": None, "saves_ever": 0, "sessions": ()}  # `unbroken/` is gone


def copy(folder: str, *candidates: Candidate, **facts: Any) -> Survey:
    place = Path(folder)
    moved = [replace(item, path=place / item.name) for item in candidates]
    return found(*moved, **{"directory": place, **facts})


LONGER = changed(train__max_iters=800)
ENDED = inside(400, lr=0.0)
SEAM_LR: float = inside(400)["lr"]


def extended(step: int) -> dict[str, Any]:
    """What a checkpoint of a run that was finished once and is made longer says of itself."""
    extension = Extension(policy="rewarm", seam=400, total=800, warmup_steps=20, cycle_steps=800, lr=SEAM_LR)
    rate = falling_rate(LONGER, 800)(step)
    return inside(step, config=LONGER, lr=rate, total=800, extension=extension.as_plain())


ELSEWHERE_FILE = Path("backup/iter_200.pth")
WEIGHTS = best(
    80,
    path=Path("weights/best_mIoU_iter_80.pth"),
    state="good",
    kind="foreign weights",
    format_name="MMEngine weights",
    run="",
    noted_epoch=0,
    listed=False,
    inside={},
)
INPUTS = Path("kaggle/input")


def written(step: int, *, by: str, save: str) -> dict[str, Any]:
    """What a checkpoint says of itself where it matters which session wrote it, in which of its saves."""
    return inside(step, session=by, save=save, time=RECORD.created)


def attached(folder: str, *candidates: Candidate) -> Survey:
    """Files of a run without its records, under any names."""
    return copy(folder, *(replace(item, listed=False) for item in candidates), **BARE)
