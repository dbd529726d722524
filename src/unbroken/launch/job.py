"""What the user asked for, as one value, and the recipes that make it of a command line.

It is the same for a recipe, for `why`, and for anyone's own loop. Recipes are known by name (entry points) or by Python
address: the core knows no application.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from unbroken.config import Effects
from unbroken.config.nearest import nearest
from unbroken.errors import UsageError
from unbroken.launch.extension import Policy
from unbroken.run import ITERATIONS, Layout
from unbroken.run.layout import own
from unbroken.storage import Cache, read_whole

SEARCH_PATH = "UNBROKEN_SEARCH_PATH"  # folders that may hold copies of runs, in the process's environment
RECIPES = "unbroken.recipes"  # the entry points of installed packages
SCRIPT = "open_run"  # the recipe of anyone's own loop: options are arguments there, not flags


@dataclass(frozen=True, kw_only=True)
class Start:
    """From where the run is to begin, as far as the user said.

    Args:
        fresh: Begin anew, what is there moves into the archive (`--fresh`).
        exact: File to resume from, whatever else is there (`--ckpt`); None: none was named.
        origin: File in which the run's history begins (`load_from` with `resume=True`), until the run has newer ones;
            None: none.
        weights: File to fine-tune from (`--pretrained_model`), until the run has a save; None: none.
        strict: Fine-tune only if `weights` and the model have the same tensors.
        weights_key: Entry of that file that holds the weights; "": where they usually are.
        search: Folders that may hold checkpoints of this run.
        accepted: Config keys whose change the user accepts.
        on_extend: How the schedule of a finished run goes on when more is asked for; "": not said.
    """

    fresh: bool = False
    exact: Path | None = None
    origin: Path | None = None
    weights: Path | None = None
    strict: bool = False
    weights_key: str = ""
    search: tuple[Path, ...] = ()
    accepted: frozenset[str] = frozenset()
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
class Host:
    """What a launch takes from its host where the user says nothing else."""

    search: tuple[Path, ...] = ()  # folders that may hold copies of runs
    limit: Limit | None = None  # of the session's time
    quota: Quota | None = None  # of the disk


@dataclass(frozen=True, kw_only=True)
class Restarted:
    """A crash after which this session was started again."""

    why: str  # in words, for the log
    code: int  # with which the session before ended
    number: int  # how often it was started again without a further checkpoint
    what: str  # it was doing then
    step: int  # in which that was


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What surrounds a launch: who started it, how it is started again, and what its host says.

    A recipe gets it from the command line and puts it into its job as it is; a session's line in the journal has it.

    Args:
        command: What goes on with the run when it is typed.
        again: What to do where that is not a command, or not it alone.
        typed: The command line of this session.
        program: What stands in it before the recipe's own arguments.
        started_together: What says that this is one of several processes: "SLURM_STEP_NUM_TASKS=2".
        processes: How many a launcher started for this one training.
        host: What the host says of copies, time and room.
        today: The day as it stands in names, 20260205.
        machine: Name of this machine in the network.
        user_folder: The current folder.
        python: Version of the interpreter.
        on_trial: Whether the session is one of `unbroken prove`.
        restarted: The crash after which this session was started again; None: nothing crashed.
        cache: Keeps what can be worked out again, in the user's cache folder.
    """

    command: str = ""
    again: str = ""
    typed: str = ""
    program: str = ""
    started_together: str = ""
    processes: int = 1
    host: Host = field(default_factory=Host)
    today: str = ""
    machine: str = ""
    user_folder: str = ""
    python: str = ""
    on_trial: bool = False
    restarted: Restarted | None = None
    cache: Cache = field(default_factory=Cache)

    def as_plain(self) -> dict[str, Any]:
        """Return it as the journal has it; of a loop of one's own only how it is started."""
        plain: dict[str, Any] = {"again": self.again, "started_together": self.started_together}
        if self.typed:
            limit, quota = self.host.limit, self.host.quota
            plain |= {
                "command": self.command,
                "typed": self.typed,
                "program": self.program,
                SEARCH_PATH: os.pathsep.join(map(str, self.host.search)),
                "session_limit": asdict(limit) if limit else None,
                "disk_quota": {**asdict(quota), "folder": str(quota.folder)} if quota else None,
                "today": self.today,
                "host": self.machine,
                "user_folder": self.user_folder,
                "python": self.python,
            }
        if self.on_trial:
            plain["trial"] = True
        return plain if self.restarted is None else {**plain, "restarted": asdict(self.restarted)}


@dataclass(frozen=True, kw_only=True)
class Accidents:
    """What is to be done when something goes wrong.

    Args:
        on_bad: When a sample cannot be read: end, with everything saved, or leave it out.
        on_oom: When memory runs out: repeat the step in smaller parts, or end.
        on_nan: When a loss or gradient is not finite: end before the step, go back to the last checkpoint and leave
            its samples out, or go on.
        restarts: How often it is started again after a crash, without a further checkpoint in between.
        backoff_s: Seconds to wait before that, twice as long each time.
    """

    on_bad: Literal["stop", "skip"] = "stop"
    on_oom: Literal["halve", "fail"] = "halve"
    on_nan: Literal["stop", "rollback", "ignore"] = "stop"
    restarts: int = 0
    backoff_s: float = 10.0


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """On how many processes a training is done, and what does not hang on that.

    Args:
        count: Processes of this machine that the command line starts.
        shards: Parts that each batch is computed in; None: as recorded with the run, else one for each process.
    """

    count: int = 1
    shards: int | None = None


AUTO: Literal["auto"] = "auto"
SaveEvery = float | Literal["auto"] | None  # seconds from one save to the next; None: not for that reason


class OnDemand:
    """A field that may be given as `Later`: its value is then made when it is first asked for."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = f"_{name}"

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return None  # the field's default
        found = vars(instance)[self._name]
        if isinstance(found, Later):
            found = vars(instance)[self._name] = found.make()
        return found

    def __set__(self, instance: object, value: object) -> None:
        vars(instance)[self._name] = value


@dataclass(frozen=True, kw_only=True)
class Later:
    """A value that is dear to make, and perhaps not wanted: `why` seldom needs a config as typed sections.

    Args:
        make: Gives the value.
    """

    make: Callable[[], Any]


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Settings of one launch that are not config: another value gives the same run.

    Args:
        save_every: Steps from one save to the next; None: not for this reason.
        save_every_epochs: Epochs from one save at an epoch's end to the next; None: not for this reason.
        save_every_s: Seconds after which the next save is due; "auto": as many as lose the least, by what a save costs
            and how often the run is killed; None: not for this reason.
        log_every: Steps between two lines.
        workers: Loader processes; None: as the config says.
        device: What torch calls it; "auto": the GPU where there is one.
        pictures: How many samples are drawn with what was predicted, after each evaluation.
        accidents: What is to be done when something goes wrong.
        processes: On how many processes it is done.
        own: What the application alone reads, such as its config as a typed value; given as `Later`, it is made when it
            is first asked for. None: nothing.
    """

    save_every: int | None = None
    save_every_epochs: int | None = None
    save_every_s: SaveEvery = None
    log_every: int = 10
    workers: int | None = None
    device: str = "auto"
    pictures: int = 0
    accidents: Accidents = field(default_factory=Accidents)
    processes: ProcessOptions = field(default_factory=ProcessOptions)
    own: Any = OnDemand()


@dataclass(frozen=True, kw_only=True)
class WrittenUnder:
    """The config that another program's file was written under, in the words of ours.

    Args:
        config: Canonical; where the file says nothing, it says what the job does.
        remarks: Sentences on what the file says and could not be compared, or not as it stands.
    """

    config: Mapping[str, Any]
    remarks: tuple[str, ...] = ()


# From the `meta` of a file of MMEngine; None where it says nothing about its config.
ReadForeign = Callable[[Mapping[str, Any]], WrittenUnder | None]


@dataclass(frozen=True, kw_only=True)
class Job:
    """One launch: who, where, with which settings, how far; made of a command line without torch.

    Args:
        recipe: Name of the recipe, as it is recorded with the run.
        tag: Name of the experiment.
        directory: The run's folder.
        config: Canonical: JSON-able, defaults filled in.
        effects: What changing each key of `config` does.
        seed: What all randomness begins from; a run keeps the one it began with.
        total_steps: Optimizer steps of the whole training; None: known only when the data is seen.
        limit: How long this session may be; None: as long as it takes.
        usual: Where the same command keeps this run when it is typed in another folder.
        layout: How the run's files are called.
        keep_last: Checkpoints that stay, never fewer than two verified ones; None: all.
        quota: How much may be saved, where that is less than the file system says; None: what that says.
        backup: A folder to which each save is copied, beside the training; None: none.
        start: Where the user wants it to begin.
        task: Address `module:function` of the builder of the `Task`: given the job, and a function to say things;
            loads torch.
        datasets: Address of the builder of the data sets alone, by what they are for: for checking them.
        preflight: Address of what asks for data and options before a launch, and gives warnings; without torch.
        blueprint: Address of the builder of the model alone, without data: for comparing shapes.
        options: Settings of this launch that are not config.
        ignored: Config keys that were given and do nothing here: each is said.
        remarks: Sentences on the config that every launch shows.
        remarks_on_foreign: Sentences that every launch shows which begins with a file of another program.
        command: What to type to run this again.
        lr_at: Learning rate used in step n + 1 under this config; None: the plan says no rates.
        written_under: Reads the config out of another program's file; None where that says nothing.
        epochs: How long the training is, where it is measured in epochs; else None.
        steps_per_epoch: Optimizer steps of an epoch; None: not known.
        samples_per_step: Samples that a step takes, over all its micro-batches; None: not known.
        micro_batches: So many a step has; its samples are shared out to several processes in each of them.
        samples: Samples of an epoch; None: not known.
        flags: Options that this front door calls otherwise.
        override: How a config key is set at this front door: "--set {key} {value}".
        short_names: What config keys are called in tags made from changes.
        traits: What this config would be told apart by in a tag: "bs2", "lr0.0005".
        texts: Written into each session's folder, by relative path.
        environment: What `Recipe.read` was given.
    """

    recipe: str
    tag: str
    directory: Path
    config: Mapping[str, Any]
    effects: Effects
    seed: int
    total_steps: int | None = None
    limit: Limit | None = None
    usual: tuple[Path, ...] = ()
    layout: Layout = ITERATIONS
    keep_last: int | None = None
    quota: Quota | None = None
    backup: Path | None = None
    start: Start = field(default_factory=Start)
    task: str = ""
    datasets: str = ""
    preflight: str = ""
    blueprint: str = ""
    options: LaunchOptions = field(default_factory=LaunchOptions)
    ignored: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    remarks_on_foreign: tuple[str, ...] = ()
    command: str = ""
    lr_at: Callable[[int], float] | None = None
    written_under: ReadForeign = lambda _meta: None
    epochs: int | None = None
    steps_per_epoch: int | None = None
    samples_per_step: int | None = None
    micro_batches: int = 1
    samples: int | None = None
    flags: Mapping[str, str] = field(default_factory=dict)
    override: str = ""
    short_names: Mapping[str, str] = field(default_factory=dict)
    traits: tuple[str, ...] = ()
    texts: Mapping[str, str] = field(default_factory=dict)
    environment: Environment = field(default_factory=Environment)

    @property
    def processes(self) -> int:
        """How many processes train: those that a launcher has started, else those that are asked for."""
        return self.environment.processes if self.environment.processes > 1 else self.options.processes.count

    @property
    def is_script(self) -> bool:
        """Whether the launch is a call of `open_run`, where options are arguments and not flags."""
        return self.recipe == SCRIPT


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an application turns a command line into a job; loading one loads no torch.

    Args:
        name: What is typed after `unbroken train`.
        read: Makes the job of the words after the recipe's name and what surrounds the launch.
        usage: Gives its help text.
        tools: Other scripts of the application, each with the address of a function that gives its help text.
    """

    name: str
    read: Callable[[Sequence[str], Environment], Job]
    usage: Callable[[], str]
    tools: Mapping[str, str] = field(default_factory=dict)


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`, or the one at the address `package.module:attribute`."""
    found = load_attribute(name) if ":" in name else _registered(name)
    if found is None and ":" not in name:
        from importlib.metadata import entry_points  # it loads the reading of mail

        installed = {point.name: point for point in entry_points(group=RECIPES)}
        if name not in installed:
            near = nearest(name, installed)
            is_run = own(Path(name)).is_dir()
            told = f"That is a run: `unbroken show {name}` tells of it. " if is_run else ""
            raise UsageError(
                name,
                "there is no such recipe",
                expected=" or ".join([*sorted(installed), "package.module:attribute"]),
                do=told + (f"Did you mean {near}? " if near else "") + "See `unbroken train --help`.",
            )
        found = installed[name].load()
    if not isinstance(found, Recipe):
        raise UsageError(name, "this is not a recipe", expected="an unbroken.Recipe", found=type(found).__name__)
    return found


def _registered(name: str) -> Any:
    """The recipe of an installed package, read from where installers put that; None unless just one has this name."""
    texts = []
    for folder in dict.fromkeys(sys.path):
        with suppress(OSError):  # a zip, or not there
            for entry in os.listdir(folder or "."):  # noqa: PTH208 - a name each
                if entry.endswith(".dist-info"):
                    with suppress(OSError, ValueError):  # none, or no text
                        texts.append(read_whole(f"{folder or '.'}/{entry}/entry_points.txt").decode())
    groups = (text.partition(f"[{RECIPES}]")[2].partition("\n[")[0] for text in texts)
    lines = (line.partition("=") for group in groups for line in group.splitlines())
    addresses = [address.strip() for key, _, address in lines if key.strip() == name]
    if len(addresses) != 1 or not re.fullmatch(r"[\w.]+:\w+", addresses[0]):
        return None
    module, _, attribute = addresses[0].partition(":")
    return getattr(importlib.import_module(module), attribute)


def installed() -> list[str]:
    """The recipes that come with installed packages."""
    from importlib.metadata import entry_points

    return sorted(point.name for point in entry_points(group=RECIPES))


def load_attribute(address: str) -> Any:
    """The object at `package.module:attribute`."""
    module, _, attribute = address.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            address,
            f"the address cannot be loaded ({error})",
            expected="package.module:attribute",
            do="Check the spelling, and that the package is installed or the folder is on PYTHONPATH.",
        ) from error
