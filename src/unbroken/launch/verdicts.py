"""The five things a launch can be, each with its reasons as data, and where in the data a checkpoint stands.

Progress is kept in samples. A step may take more or fewer of them than before (another batch size, another
accumulation), and the training goes on at the same place in the data all the same. A checkpoint counts the steps that
were really done; the schedule of a training by epochs counts its own, of the present size, so that its last step is
the last one of the training.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unbroken.config import Change
from unbroken.fields import count_of
from unbroken.launch.extension import Extension, Policy
from unbroken.launch.job import Job
from unbroken.run import Candidate

MOST_NAMED = 4  # tensors that a person is shown


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


GoingPlan = Fresh | Resume | FineTune | Finished  # no refusal
Plan = GoingPlan | Refuse


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Names of tensors as the model spells them; `misfit` says both shapes.

    `tensors` are those of the model; `missing` has the file not, `unused` has only the file; `remarks` are sentences
    on what fits in another way than by shape.
    """

    tensors: int
    misfit: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every tensor of either side has its counterpart."""
        return not (self.misfit or self.missing or self.unused)

    def as_data(self) -> dict[str, Any]:
        """JSON-able data."""
        return {**asdict(self), "complete": self.complete}

    def as_words(self) -> str:
        """How many tensors would not fit."""
        if self.complete:
            return f"all {self.tensors} tensors fit by name and shape"
        counts = {
            "of another shape": len(self.misfit),
            "not in the file": len(self.missing),
            "only in the file": len(self.unused),
        }
        unfit = len(self.misfit) + len(self.missing)
        parts = ", ".join(f"{number} {what}" for what, number in counts.items() if number)
        return f"{unfit} of {self.tensors} tensors would not fit ({parts})"

    def examples(self) -> list[str]:
        """The first of the tensors that would not fit, and how many more there are."""
        unfit = [
            *self.misfit,
            *(f"{name} is not in the file" for name in self.missing),
            *(f"{name} is only in the file" for name in self.unused),
        ]
        more = len(unfit) - MOST_NAMED
        return [*unfit[:MOST_NAMED], *([f"and {more} more (all: --json)"] if more > 0 else [])]


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How a training goes through its data; None where it is known only once the data is seen."""

    samples_per_step: int | None
    steps_per_epoch: int | None
    total_steps: int | None


@dataclass(frozen=True, kw_only=True)
class Position:
    """The place in the data: `used` of the `size` samples of the epoch after `epochs` whole ones are used.

    `size_before` is another number where the data set changed; the epoch in progress is then not continued. In a
    training by epochs `schedule_step` steps of the present schedule lead to this place.
    """

    epochs: int
    used: int
    size: int
    size_before: int
    schedule_step: int
    before: Pace
    now: Pace

    @property
    def left(self) -> int:
        """Samples of the epoch in progress that follow."""
        return self.size - self.used

    def as_data(self) -> dict[str, Any]:
        """JSON-able data."""
        return {**asdict(self), "left": self.left}


def position_of(job: Job, source: Candidate) -> Position | None:
    """The place in the data of a checkpoint that says so; another program's does not."""
    position, before = count_of(source.inside.get("position")), count_of(source.inside.get("dataset_size"))
    if position is None or not before:
        return None
    size = job.samples or before
    epochs, used = _place(position, before, size)
    step = step_now(job, source)
    total = job.total_steps
    return Position(
        epochs=epochs,
        used=used,
        size=size,
        size_before=before,
        schedule_step=step,
        before=Pace(
            samples_per_step=count_of(source.inside.get("samples_per_step")),
            steps_per_epoch=count_of(source.inside.get("steps_per_epoch")),
            total_steps=count_of(source.inside.get("total")),
        ),
        now=Pace(
            samples_per_step=job.samples_per_step,
            steps_per_epoch=job.steps_per_epoch,
            total_steps=total_now(job, source) if total is not None else None,
        ),
    )


def step_now(job: Job, source: Candidate) -> int:
    """At which step of this job's schedule a checkpoint is."""
    position, size = count_of(source.inside.get("position")), count_of(source.inside.get("dataset_size"))
    if position is None or size is None:
        return source.step
    return schedule_step(job, step=source.step, position=position, size=size)


def total_now(job: Job, source: Candidate) -> int:
    """How many steps the training will have done at its end, counted as the checkpoint counts them."""
    return source.step + (job.total_steps or 0) - step_now(job, source)


def schedule_step(job: Job, *, step: int, position: int, size: int) -> int:
    """The step of the job's schedule at which a place in the data is: as far from its end as steps are left.

    `step` is what was really done; in a training by steps that is all that counts.
    """
    per_epoch = job.steps_per_epoch
    if job.epochs is None or not per_epoch or size <= 0:
        return step
    size_now = job.samples or size
    epochs, used = _place(position, size, size_now)
    if not used:
        return epochs * per_epoch
    per_step = job.samples_per_step or -(-size_now // per_epoch)
    return (epochs + 1) * per_epoch - -(-(size_now - used) // per_step)


def _place(position: int, size: int, size_now: int) -> tuple[int, int]:
    """Whole epochs, and samples used of the next; with other data, the epoch that was begun is not gone on with."""
    return divmod(position, size) if size == size_now else (-(-position // size), 0)
