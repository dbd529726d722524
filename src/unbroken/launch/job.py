"""What the user asked for, as one value: the same for a recipe, for `why`, and for anyone's own loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from unbroken.config import Effects
from unbroken.launch.extension import Policy
from unbroken.run import ITERATIONS, Layout

SCRIPT = "open_run"  # the recipe of anyone's own loop: options are arguments there, not flags


@dataclass(frozen=True, kw_only=True)
class Start:
    """From where the run is to begin, as far as the user said."""

    fresh: bool = False  # begin anew, what is there moves into the archive (`--fresh`)
    exact: Path | None = None  # file to resume from, whatever else is there (`--ckpt`)
    # file in which the run's history begins (`load_from` with `resume=True`), until the run has newer ones
    origin: Path | None = None
    weights: Path | None = None  # file to fine-tune from (`--pretrained_model`), until the run has a save
    strict: bool = False  # fine-tune only if `weights` and the model have the same tensors
    weights_key: str = ""  # entry of that file that holds the weights; "": where they usually are
    search: tuple[Path, ...] = ()  # folders that may hold checkpoints of this run
    accepted: frozenset[str] = frozenset()  # config keys whose change the user accepts
    # how the schedule of a finished run goes on when more is asked for; "": not said
    on_extend: Policy | Literal[""] = ""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How long a session may be, in seconds from when it began; `reserve_s` before that it has to be over.

    `source` says who set the limit: an option, or the host in its environment.
    """

    left_s: float
    reserve_s: float
    source: str


@dataclass(frozen=True, kw_only=True)
class Quota:
    """How many bytes may lie below a folder; `source` says who set it. For a run elsewhere, the folder is its own."""

    size_bytes: int
    folder: Path
    source: str


@dataclass(frozen=True, kw_only=True)
class WrittenUnder:
    """The config that another program's file was written under, in the words of ours."""

    config: Mapping[str, Any]  # canonical; where the file says nothing, it says what the job does
    remarks: tuple[str, ...] = ()  # sentences on what the file says and could not be compared, or not as it stands


# From the `meta` of a file of MMEngine; None where it says nothing about its config.
ReadForeign = Callable[[Mapping[str, Any]], WrittenUnder | None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One launch: who, where, with which settings, how far; made of a command line without torch."""

    recipe: str  # name of the recipe, as it is recorded with the run
    tag: str  # name of the experiment
    directory: Path  # the run's folder
    config: Mapping[str, Any]  # canonical: JSON-able, defaults filled in
    effects: Effects  # what changing each key of `config` does
    seed: int  # of everything random; a run keeps the one it began with
    total_steps: int | None = None  # optimizer steps of the whole training; None: known only when the data is seen
    limit: Limit | None = None  # of this session's time; None: it may last
    usual: tuple[Path, ...] = ()  # where the same command keeps this run when it is typed in another folder
    layout: Layout = ITERATIONS  # how the run's files are called
    keep_last: int | None = None  # checkpoints that stay, never fewer than two verified ones; None: all
    quota: Quota | None = None  # of the disk, where it is less than the file system says
    backup: Path | None = None  # a folder that each save is backed up to, beside the training
    start: Start = field(default_factory=Start)  # from where to begin
    # address `module:function` of the builder of the `Task`: given the job, and a function to say things; loads torch
    task: str = ""
    datasets: str = ""  # address of the builder of the data sets alone, by what they are for: for checking them
    preflight: str = ""  # address of what asks for data and options before a launch, and gives warnings; without torch
    blueprint: str = ""  # address of the builder of the model alone, without data: for comparing shapes
    # settings of this launch that are not config: what `accidents` gives, "save_every" and "log_every" (steps),
    # "save_every_epochs", "save_every_s", "workers", and what else the builder of the task reads
    options: Mapping[str, Any] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()  # config keys that were given and do nothing here
    remarks: tuple[str, ...] = ()  # sentences on the config that every launch shows
    # sentences that every launch shows which begins with a file of another program
    remarks_on_foreign: tuple[str, ...] = ()
    command: str = ""  # what to type to run this again
    # learning rate used in step n + 1 under this config, for the plan and its plot
    lr_at: Callable[[int], float] | None = None
    # reads the config out of another program's file; None where that says nothing
    written_under: ReadForeign = lambda _meta: None
    epochs: int | None = None  # how long the training is, where it is measured in epochs
    steps_per_epoch: int | None = None  # optimizer steps of one
    samples_per_step: int | None = None  # of a whole step, over all its micro-batches
    samples: int | None = None  # samples of an epoch
    flags: Mapping[str, str] = field(default_factory=dict)  # options that this front door calls otherwise
    override: str = ""  # how a config key is set at this front door: "--set {key} {value}"
    short_names: Mapping[str, str] = field(default_factory=dict)  # of config keys, for tags made from changes
    traits: tuple[str, ...] = ()  # what this config would be told apart by in a tag: "bs2", "lr0.0005"
    texts: Mapping[str, str] = field(default_factory=dict)  # written into each session's folder, by relative path
    # what the surroundings say, as `Recipe.read` was given it
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_script(self) -> bool:
        """Tell whether the launch is a call of `open_run`, where options are arguments and not flags."""
        return self.recipe == SCRIPT
