"""How recipes read their options: mistakes are explained, and what all recipes have is spelled once."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from unbroken.errors import SessionOver, UsageError
from unbroken.launch.extension import POLICIES, USUAL
from unbroken.launch.host import WORLD_SIZE, is_launched
from unbroken.launch.job import (
    AUTO,
    SEARCH_PATH,
    Accidents,
    Environment,
    Job,
    Limit,
    ProcessOptions,
    Quota,
    SaveEvery,
    Start,
)
from unbroken.launch.spelling import require_tag
from unbroken.option_parser import OptionParser, quantity, whole_number
from unbroken.quantities import DURATIONS, BadQuantity, duration_s, size_bytes
from unbroken.storage import is_ordinary

# What users of other programs type, and what it is here. `{tag}` is the option of the front door.
COMMON_MEANT = {
    **dict.fromkeys(
        ("resume_from", "checkpoint", "ckpt_path"), "--ckpt {value} (the run's own newest is found without it)"
    ),
    **dict.fromkeys(("auto_resume", "continue"), "nothing to type: the same command resumes by itself"),
    **dict.fromkeys(("load_from", "pretrained", "weights", "init_weights", "finetune"), "--pretrained_model {value}"),
    **dict.fromkeys(("gpus", "num_gpus", "nproc_per_node"), "--processes {value}"),
    **dict.fromkeys(("gpu", "gpu_id", "gpu_ids"), "--device cuda:{value}"),
    **dict.fromkeys(("cuda", "use_cuda", "use_gpu"), "--device cuda"),
    **dict.fromkeys(("cpu", "no_cuda"), "--device cpu"),
    **dict.fromkeys(("num_workers", "workers_per_gpu", "j"), "--workers {value}"),
    **dict.fromkeys(
        ("restart", "overwrite", "from_scratch", "reset", "force"), "--fresh (what is there moves into archive/)"
    ),
    **dict.fromkeys(("max_time", "time_limit", "timeout", "walltime"), "--session {value}"),
}
TAG_MEANT = ("name", "exp", "exp_name", "experiment", "run_name", "run", "tag", "extra_tag")
USUAL_PICTURES, MOST_PICTURES = 3, 12


def add_common_options(parser: OptionParser, *, tag: str = "--tag", bad_sample: str = "--on-bad-sample") -> None:
    """Add the options of unbroken itself to a recipe's parser, and what is meant by those of other programs.

    Args:
        parser: The recipe's own.
        tag: What its users call the name of an experiment ("--extra_tag"); `--tag` works as well.
        bad_sample: What they call `--on-bad-sample`, which works as well.
    """
    group = parser.add_argument_group("where to start from")
    names = dict.fromkeys((tag, "--tag"))
    parser.meant = {**COMMON_MEANT, **dict.fromkeys(TAG_MEANT, f"{tag} {{value}}"), **parser.meant}
    group.add_argument(*names, dest="tag", type=file_name, help="name of the experiment; one folder each")
    group.add_argument("--fresh", action="store_true", help="start over; what is there moves into archive/")
    group.add_argument("--ckpt", type=Path, metavar="FILE", help="resume from exactly this file")
    group.add_argument(
        "--pretrained_model", type=Path, metavar="FILE", help="begin with the weights of this file (fine-tuning)"
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="do not fine-tune if one tensor of the model or of the file would be left over",
    )
    add_weights_key(group)
    group.add_argument(
        "--search",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help=f"look for copies of this run here, and not in the folders of {SEARCH_PATH}; may be repeated",
    )
    group.add_argument(
        "--accept-change", action="append", default=[], metavar="KEY", help="go on although this key changed"
    )
    group.add_argument(
        "--on-extend",
        choices=POLICIES,
        default="",
        help=f"how the learning rate goes on when a finished run is asked for more (default: {USUAL})",
    )

    session = parser.add_argument_group("how long this session may be")
    session.add_argument(
        "--session",
        type=quantity(duration_s),
        metavar="TIME",
        help="stop in time, with everything saved (12h, 1h30m, 2d, 12:00:00)",
    )
    session.add_argument(
        "--reserve",
        type=quantity(duration_s),
        metavar="TIME",
        help="be done this long before (10m; default: 0, or what docs/sessions.md says of this host)",
    )
    session.add_argument(
        "--until-done", action="store_true", help="take no notice of a limit that the host names: run to the end"
    )
    parser.add_argument_group("how much the disk holds").add_argument(
        "--quota",
        type=quantity(size_bytes),
        metavar="SIZE",
        help="warn if what is saved will not fit into so much (20GB, 500MB), counted from the current folder; "
        "default: UNBROKEN_QUOTA, or what the host allows",
    )
    parser.add_argument_group("if the disk fails").add_argument(
        "--backup",
        type=folder,
        metavar="DEST",
        help="copy the run to DEST, a folder on another disk, after each save; in the background, never stopping it",
    )
    _add_accidents(parser, bad_sample)
    _add_processes(parser)
    parser.add_argument_group("how often it is saved").add_argument(
        "--save-every",
        type=quantity(_save_every),
        metavar="WHEN",
        help="save every so many steps (500), or when so much time has passed (10m); auto: as often as loses the "
        "least, by what a save costs here and how often the run is killed",
    )
    shown = parser.add_argument_group("what is shown")
    shown.add_argument(
        "--pictures",
        type=whole_number("how many", least=0, most=MOST_PICTURES),
        default=USUAL_PICTURES,
        metavar="N",
        help=f"validation samples drawn with what was predicted, after each evaluation (default: {USUAL_PICTURES})",
    )


def add_weights_key(parser: argparse._ActionsContainer) -> None:
    """Add `--weights-key`, which names the entry of a file in which the weights are.

    Args:
        parser: A tool's parser, or a group of options in one.
    """
    parser.add_argument(
        "--weights-key",
        default="",
        metavar="KEY",
        help="the entry of that file that holds the weights, where it has several or an unusual one (ema, net, a.b)",
    )


def _add_accidents(parser: argparse.ArgumentParser, bad_sample: str) -> None:
    group = parser.add_argument_group("if something goes wrong")
    group.add_argument(
        *dict.fromkeys(("--on-bad-sample", bad_sample)),
        dest="on_bad",
        choices=["stop", "skip"],
        default="stop",
        help="a sample that cannot be read ends the training, with everything saved (stop, the default), or is left "
        "out, said and counted (skip)",
    )
    group.add_argument(
        "--on-oom",
        choices=["halve", "fail"],
        default="halve",
        help="when memory runs out: repeat the step with half the samples at once (default), or end",
    )
    group.add_argument(
        "--on-nan",
        choices=["stop", "rollback", "ignore"],
        default="stop",
        help="when a loss or gradient is not finite: end before the step (default), go back to the last checkpoint "
        "and leave its samples out, or go on",
    )
    group.add_argument(
        "--restarts",
        type=whole_number("how often", least=0),
        default=0,
        metavar="N",
        help="after a crash, start it again: at most N times without a further checkpoint (default: 0)",
    )
    group.add_argument(
        "--backoff",
        type=quantity(duration_s),
        default=10.0,
        metavar="TIME",
        help="wait this long before starting again, twice as long each time, at most 10m (default: 10s)",
    )


def _add_processes(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("on several processes")
    group.add_argument(
        "--processes",
        type=whole_number("how many"),
        default=1,
        metavar="N",
        help="share each batch among so many processes of this machine, one for each GPU, say (default: 1)",
    )
    group.add_argument(
        "--exact-processes",
        type=whole_number("how many"),
        metavar="V",
        help="compute each batch in V parts whose gradients are added in a fixed order: the same bits for any number "
        "of processes that divides V; chosen when a run begins (default: a part for each process)",
    )


def saves(
    options: argparse.Namespace, *, steps: int | None = None, epochs: int | None = None, seconds: SaveEvery = None
) -> dict[str, Any]:
    """Return how often a training saves, for the `LaunchOptions` of a job: as `--save-every` says, else as usual.

    Args:
        options: What a parser with the common options read.
        steps: Steps from one save to the next, where the option counts none; None: not for this reason.
        epochs: Epochs from one save at an epoch's end to the next, whatever the option says; None: likewise.
        seconds: Seconds from one save to the next, where the option says no time; None: likewise.
    """
    asked: int | SaveEvery = options.save_every
    return {
        "save_every": asked if isinstance(asked, int) else steps,
        "save_every_epochs": epochs,
        "save_every_s": seconds if asked is None or isinstance(asked, int) else asked,
    }


def accidents(options: argparse.Namespace) -> Accidents:
    """Return what the options say of accidents, for the `LaunchOptions` of a job.

    Args:
        options: What a parser with the common options read.
    """
    return Accidents(
        on_bad=options.on_bad,
        on_oom=options.on_oom,
        on_nan=options.on_nan,
        restarts=options.restarts,
        backoff_s=options.backoff,
    )


def processes(options: argparse.Namespace) -> ProcessOptions:
    """Return what the options say of several processes, for the `LaunchOptions` of a job.

    Args:
        options: What a parser with the common options read.
    """
    return ProcessOptions(count=options.processes, shards=options.exact_processes)


def require_launcher(launcher: str) -> None:
    """Refuse a launcher of another program that has not told this process its rank.

    Args:
        launcher: The value of `--launcher`; "none" asks for none.
    Raises:
        UsageError: Nothing says which process of how many this is.
    """
    if launcher != "none" and not is_launched():
        raise UsageError(
            f"--launcher {launcher}",
            "nothing tells this process which of how many it is",
            expected="RANK and WORLD_SIZE in its environment, as torchrun sets them",
            do="Leave --launcher out and say --processes N, or start it by torchrun --nproc-per-node N.",
        )


def require_shares(job: Job, *, recorded: int = 0) -> None:
    """Raise UsageError where several processes, or the shards of a batch, cannot share its samples as was asked for.

    Args:
        job: What was asked for.
        recorded: Shards that the run to be continued was begun with; 0: it has one for each process.
    """
    asked, started = job.options.processes, job.environment.processes
    where = "--processes" if started == 1 else f"{WORLD_SIZE}={started}"
    if started > 1 and asked.count not in (1, started):
        raise UsageError(
            "--processes",
            f"a launcher has started {started} processes for this training",
            expected=f"{started}, or nothing",
            found=asked.count,
            do="Leave --processes out, or let the launcher start so many.",
        )
    if recorded and asked.shards not in (None, recorded):
        raise UsageError(
            "--exact-processes",
            f"the run was begun with {recorded} shards of each micro-batch, and others would be another training",
            expected=recorded,
            found=asked.shards,
            do="Leave it out: what the run was begun with counts; or begin a run of another name.",
        )
    shards, samples = recorded or asked.shards, (job.samples_per_step or 0) // job.micro_batches
    if samples and shards:
        require_enough(samples, shards, of="shards", where="--exact-processes")
    if shards:
        require_dealt_out(shards, job.processes, where=where)
    if samples:
        require_enough(samples, job.processes, of="processes", where=where)


def require_enough(samples: int, shares: int, *, of: Literal["processes", "shards"], where: str) -> None:
    """Raise UsageError where a batch has fewer samples than processes or shards share it."""
    if samples < shares:
        raise UsageError(
            where,
            f"a batch has fewer samples than there are {of} to share it",
            expected=f"at most {samples} {of}, or a larger batch",
            found=f"{shares} {of}, and a batch of {samples}",
            do="The batch size counts the samples that all processes take together.",
        )


def require_dealt_out(shards: int, count: int, *, where: str) -> None:
    """Raise UsageError where so many processes cannot have equally many shards each."""
    if shards % count:
        fits = [number for number in range(1, shards + 1) if shards % number == 0]
        raise UsageError(
            where,
            f"{shards} shards cannot be dealt out evenly to {count} processes",
            expected=f"a number of processes that divides {shards}: {', '.join(map(str, fits))}",
            found=count,
            do="Start so many, or choose other shards for a new run (--exact-processes).",
        )


def folder(text: str) -> Path:
    """Read an option that names a folder, there or to be made.

    Args:
        text: What was typed.
    Returns:
        Its path.
    Raises:
        ArgumentTypeError: It is a file.
    """
    if is_ordinary(Path(text)):
        raise argparse.ArgumentTypeError(f"expected a folder, and {text[:100]} is a file")
    return Path(text)


def _save_every(text: str) -> int | float | Literal["auto"]:
    """Steps as an int, a time in seconds as a float."""
    if text == AUTO:
        return AUTO
    if text.isdecimal() and int(text):
        return int(text)
    with suppress(BadQuantity):
        if seconds := duration_s(text):
            return seconds
    raise BadQuantity(f"a number of steps, a time like {DURATIONS}, or auto", text)


def session_limit(options: argparse.Namespace, environment: Environment) -> Limit | None:
    """Return how long this session may be, as the options say, else as the host does; None: without end.

    Args:
        options: What a parser with the common options read.
        environment: As `Recipe.read` was given it.
    Raises:
        UsageError: `--session` and `--until-done` contradict each other, or the reserve takes all of the session.
    """
    if options.session is not None and options.until_done:
        raise UsageError("--until-done", "it contradicts --session", do="Give one of the two.")
    if options.session is not None:
        limit = Limit(left_s=options.session, reserve_s=options.reserve or 0.0, source="--session")
        if limit.left_s <= limit.reserve_s:  # in no session there would be time
            raise UsageError("--session", "no time is left to train in", expected=_more_than(limit), found=_left(limit))
        return limit
    host = environment.host.limit
    if options.until_done or host is None:
        return None
    return host if options.reserve is None else replace(host, reserve_s=options.reserve)


def require_time_left(job: Job) -> None:
    """Raise SessionOver where the host's session is over, or is in its reserve already."""
    limit = job.limit
    if limit is None or limit.left_s > limit.reserve_s:
        return
    if limit.source == "session_s":
        return  # its loop stops itself, at the first step
    longer = "session_s=SECONDS, or float('inf')" if job.is_script else "--session TIME, or --until-done"
    raise SessionOver(
        limit.source,
        "no time is left to train in",
        expected=_more_than(limit),
        found=_left(limit),
        do=f"Nothing was changed: run the same command again in the next session. If there is time: {longer}.",
    )


def _more_than(limit: Limit) -> str:
    return f"more than the reserve, which is {limit.reserve_s:g} s"


def _left(limit: Limit) -> str:
    return f"{limit.left_s:.0f} s"


def disk_quota(options: argparse.Namespace, environment: Environment) -> Quota | None:
    """Return how much may be saved, as the option says, else as the host does; None: as much as there is room.

    Args:
        options: What a parser with the common options read.
        environment: As `Recipe.read` was given it.
    """
    if options.quota is not None:
        return Quota(size_bytes=options.quota, folder=Path.cwd(), source="--quota")
    return environment.host.quota


def file_name(text: str) -> str:
    """A tag: the name of a folder on every system."""
    try:
        return require_tag("", text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(f"expected {error.expected}, found {error.found}") from None


def start_from(
    options: argparse.Namespace,
    environment: Environment,
    *,
    origin: Path | None = None,
    weights: Path | None = None,
) -> Start:
    """Return from where the options say that the run is to begin.

    Args:
        options: What a parser with the common options read.
        environment: As `Recipe.read` was given it.
        origin: The file that the config goes on from, None: none; not used where the command line names weights,
            which are a run of their own.
        weights: The file that the config fine-tunes from; None: none.
    Raises:
        UsageError: `--strict` or `--weights-key` without weights that they are about.
    """
    chosen = options.pretrained_model or weights
    require_weights("--strict", asked=options.strict, weights=chosen)
    require_weights("--weights-key", asked=bool(options.weights_key), weights=chosen)
    return Start(
        fresh=options.fresh,
        exact=options.ckpt,
        origin=None if options.pretrained_model else origin,
        weights=chosen,
        strict=options.strict,
        weights_key=options.weights_key,
        search=tuple(options.search) or environment.host.search,  # naming one folder is how one of two copies is chosen
        accepted=frozenset(options.accept_change),
        on_extend=options.on_extend,
    )


def require_weights(where: str, *, asked: bool, weights: object) -> None:
    """Raise UsageError when something is asked of the file to fine-tune from, and there is none."""
    if asked and not weights:
        raise UsageError(
            where,
            "it is about a file to fine-tune from, and none is named",
            expected="pretrained_model, or load_from with resume=False in a config",
            do="Leave it out: resuming is strict in any case, it takes every tensor from where it stands, or refuses.",
        )
