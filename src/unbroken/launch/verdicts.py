"""The five things a launch can be, each with its reasons as data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unbroken.config import Change
from unbroken.launch.extension import Extension, Policy
from unbroken.launch.fit import Fit
from unbroken.launch.position import Position
from unbroken.run import Candidate


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """A file that was looked at and not used, and why."""

    path: Path
    step: int
    reason: str
    damaged: bool = False
    set_aside: bool = False  # moves into `archive/` so that this session does not overwrite it


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What all verdicts have: reasons in the order a reader wants them, and the files passed over."""

    reasons: tuple[str, ...]
    rejected: tuple[Rejected, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()  # of what would be work for nothing, or is probably not meant

    @property
    def name(self) -> str:
        """The verdict as one word."""
        return type(self).__name__


@dataclass(frozen=True, kw_only=True)
class Fresh(Verdict):
    """Train from step 0; with `archive`, what is there moves into `archive/` first."""

    archive: bool = False


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What a policy makes of the learning rate in the added steps; steps are counted from 1."""

    policy: Policy
    lr_first: float
    lr_peak: float
    peak_step: int
    lr_end: float

    @property
    def learns(self) -> bool:
        """Whether the rate is above 0 anywhere."""
        return self.lr_peak > 0

    def as_data(self) -> dict[str, Any]:
        """JSON-able data."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Resume(Verdict):
    """Continue from a file.

    `extension` is in force when the run was finished and is made longer; in the launch that decides so, `curves` are
    what its policy does, and then what the others would do. `accepted` are those of the changes that would have been
    refused if the user had not named them.
    """

    source: Candidate
    copy_from: Path | None = None  # another folder with a copy of this run
    records_from: Path | None = None  # the folder of which the records come along
    weights_along: tuple[Path, ...] = ()  # best weights that come along
    changes: tuple[Change, ...] = ()
    accepted: tuple[Change, ...] = ()
    position: Position | None = None
    config_known: bool = True  # under which the file was written
    keep_copy: bool = False  # of another program's file, whose name our saves will take
    superseded: tuple[Path, ...] = ()  # files of later steps that this resume leaves behind
    lr_before: float | None = None
    lr_next: float | None = None
    extension: Extension | None = None
    curves: tuple[Curve, ...] = ()


@dataclass(frozen=True, kw_only=True)
class FineTune(Verdict):
    """Start at step 0 with the weights of another run; with `archive`, what is there moves into `archive/` first."""

    source: Candidate
    archive: bool = False
    fit: Fit | None = None  # where shapes were compared


@dataclass(frozen=True, kw_only=True)
class Finished(Verdict):
    """Nothing is left to do; `source` holds the final state. `early`: its loop ended it before what was asked for."""

    source: Candidate
    early: bool = False


@dataclass(frozen=True, kw_only=True)
class Refuse(Verdict):
    """Nothing happens; `ways_out` are commands or edits that would let it happen.

    `source` is the file that would have been continued, where the refusal is about that.
    """

    exit_code: int
    changes: tuple[Change, ...] = ()
    ways_out: tuple[str, ...] = ()
    source: Candidate | None = None
    fit: Fit | None = None  # where shapes were compared


Plan = Fresh | Resume | FineTune | Finished | Refuse


def as_data(plan: Plan) -> dict[str, Any]:
    """The plan as JSON-able data, for `why --json`."""
    data: dict[str, Any] = {
        "verdict": plan.name,
        "reasons": list(plan.reasons),
        "warnings": list(plan.warnings),
        "notes": list(plan.notes),
        "rejected": [
            {
                "file": str(item.path),
                "step": item.step,
                "reason": item.reason,
                "damaged": item.damaged,
                "set_aside": item.set_aside,
            }
            for item in plan.rejected
        ],
    }
    match plan:
        case Resume():
            data |= _source(plan.source)
            data |= {
                "changes": [item.as_data() for item in plan.changes],
                "accepted": [item.key for item in plan.accepted],
                "position": plan.position.as_data() if plan.position else None,
                "lr_before": plan.lr_before,
                "lr_next": plan.lr_next,
                "extension": plan.extension.as_plain() if plan.extension else None,
                "curves": [curve.as_data() for curve in plan.curves],
                "keep_copy": plan.keep_copy,
                "superseded": [str(path) for path in plan.superseded],
                "copied_from": str(plan.copy_from) if plan.copy_from else None,
            }
        case FineTune():
            data |= _source(plan.source) | {"archive": plan.archive, "next_step": 1} | _fit(plan.fit)
        case Refuse():
            data |= {
                "exit_code": plan.exit_code,
                "changes": [item.as_data() for item in plan.changes],
                "ways_out": list(plan.ways_out),
            } | _fit(plan.fit)
        case Fresh():
            data |= {"archive": plan.archive, "next_step": 1}
        case Finished():
            data |= _source(plan.source)
    return data


def as_event(plan: Plan) -> dict[str, Any]:
    """The plan for the journal, without the files that are merely not used.

    Each session would list all of them again, and the journal, which is read by all, grow with the square of sessions.
    """
    data = as_data(plan)
    return data | {"rejected": [item for item in data["rejected"] if item["damaged"] or item["set_aside"]]}


def _fit(fit: Fit | None) -> dict[str, Any]:
    return {"fit": fit.as_data()} if fit is not None else {}


def _source(source: Candidate) -> dict[str, Any]:
    return {
        "file": str(source.path),
        "step": source.step,
        "next_step": source.step + 1,
        "epoch": source.epoch,
        "check": source.reason,
        "written_by": source.format_name,
    }
