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
    """From where the run is to begin, as far as the user said.

    `exact` is a file to resume from whatever else is there (`--ckpt`). `origin` is a file in which the run's history
    begins (`load_from` with `resume=True`): used until the run has newer checkpoints of its own. `weights` is a file to
    fine-tune from, with `strict` only if it and the model have the same tensors; they stand under `weights_key` in it,
    or where they usually do. `search` are folders that may hold checkpoints of this run. `on_extend` is how the
    schedule of a finished run goes on when more is asked for; "" when the user did not say.
    """

    fresh: bool = False
    exact: Path | None = None
    origin: Path | None = None
    weights: Path | None = None
    strict: bool = False
    weights_key: str = ""
    search: tuple[Path, ...] = ()
    accepted: frozenset[str] = frozenset()  # config keys whose change the user accepts
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
    """The config that another program's file was written under, in the words of ours.

    `config` is canonical; where the file says nothing, it says what the job does. `remarks` are sentences on what the
    file says and could not be compared, or not as it stands.
    """

    config: Mapping[str, Any]
    remarks: tuple[str, ...] = ()


# From the `meta` of a file of MMEngine; None where it says nothing about its config.
ReadForeign = Callable[[Mapping[str, Any]], WrittenUnder | None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One launch: who, where, with which settings, how far."""

    recipe: str
    tag: str
    directory: Path
    config: Mapping[str, Any]  # canonical: JSON-able, defaults filled in
    effects: Effects
    seed: int
    total_steps: int | None = None  # None: known only when the data is seen
    limit: Limit | None = None  # of this session's time
    usual: tuple[Path, ...] = ()  # where the same command keeps this run when it is typed in another folder
    layout: Layout = ITERATIONS
    keep_last: int | None = None
    quota: Quota | None = None  # of the disk, where it is less than the file system says
    backup: Path | None = None  # a folder that each save is backed up to, beside the training
    start: Start = field(default_factory=Start)
    task: str = ""  # address `module:function` of the builder that loads torch
    datasets: str = ""  # address of the builder of the data sets alone, by what they are for: for checking them
    preflight: str = ""  # address of what asks for data and options before a launch, and gives warnings; without torch
    blueprint: str = ""  # address of the builder of the model alone, without data: for comparing shapes
    options: Mapping[str, Any] = field(default_factory=dict)  # settings of this launch that are not config
    ignored: tuple[str, ...] = ()  # config keys that were given and do nothing here
    remarks: tuple[str, ...] = ()  # sentences on the config that every launch shows
    remarks_on_foreign: tuple[str, ...] = ()  # and every launch that begins with a file of another program
    command: str = ""  # what to type to run this again
    lr_at: Callable[[int], float] | None = None  # learning rate used in step n+1 under this config
    written_under: ReadForeign = lambda _meta: None  # the config that another program's file holds
    epochs: int | None = None  # how long the training is, where it is measured in epochs
    steps_per_epoch: int | None = None
    samples_per_step: int | None = None  # over all micro-batches of a step
    samples: int | None = None  # of an epoch
    flags: Mapping[str, str] = field(default_factory=dict)  # options that this front door calls otherwise
    override: str = ""  # how a config key is set at this front door: "--set {key} {value}"
    short_names: Mapping[str, str] = field(default_factory=dict)  # of config keys, for tags made from changes
    traits: tuple[str, ...] = ()  # what this config would be told apart by in a tag: "bs2", "lr0.0005"
    texts: Mapping[str, str] = field(default_factory=dict)  # written into each session's folder, by relative path
    environment: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_script(self) -> bool:
        """Whether the launch is a call in the user's own program."""
        return self.recipe == SCRIPT
