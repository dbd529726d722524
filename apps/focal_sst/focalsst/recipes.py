"""The command line of the sonar detector: a config file and options become a job. Loads no torch.

A run lies in `output/<group>/<config>/<extra_tag>`, however the config's path is typed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from focalsst.config import SonarConfig
from focalsst.config.original import differing
from focalsst.dataset.splits import read_image_set
from focalsst.schedule import OneCycle, optimizer_steps
from unbroken import (
    EPOCHS,
    Environment,
    Job,
    LaunchOptions,
    OptionParser,
    Recipe,
    accidents,
    add_common_options,
    device_name,
    disk_quota,
    folder,
    processes,
    require_launcher,
    saves,
    session_limit,
    some_of,
    start_from,
)
from unbroken.config import (
    ABSENT,
    ConfigFile,
    Validated,
    effects,
    merge_options,
    read_config,
    set_values,
    validate,
    value_at,
)
from unbroken.errors import UnbrokenError, UsageError

CONFIGS = "cfgs"
DEFAULT_TAG = "default"
PROGRAM = "unbroken train focalsst"
DEFAULT_CONFIG = Path("cfgs/sonar_models/focal_sst.yaml")
SEED_OF_FIX_RANDOM_SEED = 666  # the original's; here every run has a seed, and this flag only chooses it
# How a tag names these settings.
SHORT_NAMES = {
    "OPTIMIZATION.BATCH_SIZE_PER_GPU": "bs",
    "OPTIMIZATION.GRAD_ACCUMULATION_STEPS": "accum_x",
    "OPTIMIZATION.LR": "lr",
    "OPTIMIZATION.NUM_EPOCHS": "ep",
    "OPTIMIZATION.SEED": "seed",
    "MODEL.BACKBONE_3D.DSVT.d_model": "d",
    "MODEL.BACKBONE_3D.DSVT.nhead": "nhead",
    "DATA_CONFIG.DATA_PROCESSOR.2.VOXEL_SIZE": "voxel_",
}
LIKE_THE_ORIGINAL = (
    "the config does not say AS_PUBLISHED, as the original's files: it is trained as the original trains it{}; its "
    "known faults are repaired with --set AS_PUBLISHED False (docs/deviations.md)"
)
UNLIKE_THE_ORIGINAL = (
    "these weights are the original's, whose settings are others ({}); to go on as it would: --set AS_PUBLISHED True"
)
MOST_NAMED = 3
DESCRIPTION = """Train a detector of boxes and divers in sonar point clouds. After any interruption run the same command
again: it goes on where it was, bit for bit, and says from which file and why."""
EPILOG = """The run lies in output/<group>/<name of the config>/<extra_tag>, however the path of the config is typed.
What a command would do, without doing it: unbroken why focalsst, then the same options."""
# What users of other programs type, and what it is here.
MEANT = {
    **dict.fromkeys(("lr", "learning_rate"), "--set OPTIMIZATION.LR {value}"),
    **dict.fromkeys(("weight_decay", "wd"), "--set OPTIMIZATION.WEIGHT_DECAY {value}"),
    **dict.fromkeys(("bs", "b", "samples_per_gpu", "batch_size_per_gpu"), "--batch_size {value}"),
    **dict.fromkeys(("max_epochs", "num_epochs"), "--epochs {value}"),
    **dict.fromkeys(("max_iters", "iters", "iterations", "steps"), "--epochs N (the length is in epochs)"),
    **dict.fromkeys(("val_interval", "eval_every"), "--eval_interval {value}"),
    **dict.fromkeys(("save_interval", "ckpt_interval"), "--ckpt_save_interval {value}"),
    **dict.fromkeys(
        ("accumulate", "grad_accum", "accum_steps", "gradient_accumulation_steps", "grad_accumulation_steps"),
        "--set OPTIMIZATION.GRAD_ACCUMULATION_STEPS {value}",
    ),
    **dict.fromkeys(("cfg_options", "set_cfgs", "options", "override", "opts"), "--set {words} (last of all)"),
    **dict.fromkeys(("amp", "half", "mixed_precision", "use_amp"), "--fp16"),
    **dict.fromkeys(("work_dir", "output_dir", "out_dir", "save_dir", "logdir"), "--output {value}"),
    **dict.fromkeys(("data_root", "data_path", "data_dir", "data"), "--set DATA_CONFIG.DATA_PATH {value}"),
    "resume": "nothing to type: the same command resumes by itself; from one file: --ckpt FILE",
}
# Options of the original that have nothing to decide here, and why.
WITHOUT_EFFECT = {
    "sync_bn": "each part of a batch is normalised by itself, and the mean of what the parts saw is kept",
    "tcp_port": "torchrun says where its processes meet",
    "local_rank": "torchrun tells each process its rank",
    "merge_all_iters_to_one_epoch": "an epoch is one pass over the frames",
    "use_tqdm_to_record": "a terminal has a bar, a file has lines",
    "wo_gpu_stat": "no gpustat is called",
    "max_waiting_mins": "the evaluation belongs to the training and waits for nothing",
    "start_epoch": "--num_epochs_to_eval says which epochs are evaluated",
}


@dataclass(frozen=True, kw_only=True)
class Places:
    """`config` as it can be opened, `root` the folder that holds `cfgs`, `run` the run's folder."""

    config: Path
    root: Path
    tag: str
    run: Path
    usual: tuple[Path, ...]  # where it lies without `--output`, or with the folder of the config for the current one


def places_of(typed: str, *, tag: str | None, output: Path | None) -> Places:
    """The places of a config: the group is what stands between `cfgs` and the file, the rest is of no account.

    A config outside any folder `cfgs` has no group, and its runs lie below the current folder.
    """
    config = Path(typed)
    if not config.exists() and "\\" in typed:  # as PowerShell completes it
        config = Path(typed.replace("\\", "/"))
    whole = config.parent.resolve() / config.name
    folders = whole.parent.parts
    if CONFIGS in folders:
        place = len(folders) - 1 - folders[::-1].index(CONFIGS)
        root, group = Path(*folders[:place]), Path(*folders[place + 1 :])
    else:
        root, group = Path.cwd(), Path()
    name = tag or DEFAULT_TAG
    below = group / whole.stem / name
    run = (output or root / "output") / below
    usual = tuple(dict.fromkeys(folder / "output" / below for folder in (root, whole.parent)))
    return Places(config=config, root=root, tag=name, run=_short(run), usual=usual)


def find_data(written: str, places: Places) -> Path:
    """The data root that a config names: as seen from the current folder, else from the one that holds `cfgs`."""
    path = Path(written)
    from_root = _short(places.root / path)
    return from_root if not path.is_dir() and from_root.is_dir() else path


def _short(path: Path) -> Path:
    """The path as seen from the current folder, if it lies below it: shorter to read, and it moves with the folder."""
    whole = path.parent.resolve() / path.name
    return whole.relative_to(Path.cwd()) if whole.is_relative_to(Path.cwd()) else whole


@dataclass(frozen=True, kw_only=True)
class SonarOptions:
    """What this application alone reads of a launch's options."""

    config: SonarConfig
    data_root: Path
    deterministic: bool  # only deterministic algorithms, also on a GPU
    num_epochs_to_eval: int  # each of the last so many epochs is evaluated
    save_to_file: bool  # detections of evaluations are written as text too


def parser(program: str = PROGRAM) -> OptionParser:
    """The options of `unbroken train focalsst`, which are those of `train.py`."""
    found = OptionParser(prog=program, description=DESCRIPTION, epilog=EPILOG, meant=MEANT)
    found.add_examples(
        f"{program} --cfg_file cfgs/sonar_models/micro.yaml --extra_tag baseline",
        f"{program} --cfg_file cfgs/sonar_models/micro.yaml --extra_tag half --set OPTIMIZATION.LR 0.0015",
    )
    found.add_argument("config", type=str, nargs="?", metavar="CONFIG", help="a YAML file; the same as --cfg_file")
    found.add_argument("--cfg_file", type=str, metavar="CONFIG", help=f"default: {DEFAULT_CONFIG.as_posix()}")
    found.add_argument("--batch_size", type=positive, metavar="N", help="frames of a step (default: the config's)")
    found.add_argument("--epochs", type=positive, metavar="N", help="epochs in all (default: the config's)")
    found.add_argument(
        "--workers", type=count, default=4, metavar="N", help="loader processes; any number gives the same run"
    )
    found.add_argument("--fp16", action="store_true", help="mixed precision: float16 on a GPU, bfloat16 on a CPU")
    found.add_argument(
        "--device", type=device_name, default="auto", metavar="NAME", help="cpu, cuda, cuda:1 (default: cuda if there)"
    )
    found.add_argument("--seed", type=count, metavar="N", help="seed of everything random (default: the config's)")
    found.add_argument("--deterministic", action="store_true", help="only deterministic algorithms, also on a GPU")
    found.add_argument(
        "--fix_random_seed", action="store_true", help=f"the same as --seed {SEED_OF_FIX_RANDOM_SEED} --deterministic"
    )
    found.add_argument("--output", type=folder, metavar="DIR", help="folder of all runs (default: output)")
    saving = found.add_argument_group("saving, logging, evaluation")
    saving.add_argument(
        "--ckpt_save_interval", type=positive, default=1, metavar="N", help="epochs between checkpoint_epoch_N.pth"
    )
    saving.add_argument(
        "--max_ckpt_save_num", type=positive, default=30, metavar="N", help="how many of them stay (default: 30)"
    )
    saving.add_argument(
        "--ckpt_save_time_interval", type=positive, default=300, metavar="S", help="s between latest_model.pth"
    )
    saving.add_argument("--logger_iter_interval", type=positive, default=50, metavar="N", help="steps between lines")
    saving.add_argument("--eval_interval", type=count, metavar="N", help="epochs between evaluations; 0: at the end")
    saving.add_argument(
        "--num_epochs_to_eval", type=count, default=0, metavar="N", help="evaluate each of the last N epochs"
    )
    saving.add_argument("--save_to_file", action="store_true", help="write the detections of evaluations as text too")
    add_common_options(found, tag="--extra_tag", bad_sample="--on-bad-frame")
    found.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm"],
        default="none",
        help="what started this process: it is found out anyway",
    )
    for names in (["--local_rank", "--local-rank"], ["--tcp_port"], ["--max_waiting_mins"], ["--start_epoch"]):
        found.add_argument(*names, type=int, help=argparse.SUPPRESS)
    for name in ("sync_bn", "merge_all_iters_to_one_epoch", "use_tqdm_to_record", "wo_gpu_stat"):
        found.add_argument(f"--{name}", action="store_true", help=argparse.SUPPRESS)
    found.add_argument(
        "--set", dest="set_cfgs", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE",
        help="change config keys, as A.B.C value ...; comes last",
    )  # fmt: skip
    return found


def read(arguments: Sequence[str], environment: Environment) -> Job:
    """Turn what was typed into a job."""
    options = parser(environment.program or PROGRAM).parse_args(list(arguments))
    require_launcher(options.launcher)
    places = places_of(config_path(options), tag=options.tag, output=options.output)
    file = _file_of(places, options)
    checked = validate(SonarConfig, file)
    config, rates = checked.value, checked.value.OPTIMIZATION
    data_root = find_data(config.DATA_CONFIG.DATA_PATH, places)
    frames = 0  # of an epoch; none where the data is not seen yet: training says then what is missing
    with suppress(UnbrokenError):
        frames = len(read_image_set(data_root, config.DATA_CONFIG.DATA_SPLIT.train))
    per_epoch = steps_of(config, frames, epochs=1) if frames else None
    total = steps_of(config, frames, epochs=rates.NUM_EPOCHS) if frames else None
    given = {name: getattr(options, name) for name in WITHOUT_EFFECT}
    idle = [
        f"--{name} ({WITHOUT_EFFECT[name]})" for name in given if given[name] is not None and given[name] is not False
    ]
    others = [key.rpartition(".")[2] for key in differing(checked.canonical)]
    unlike = some_of(others, MOST_NAMED) if others else ""
    theirs = f", but for what the file sets itself ({unlike})" if unlike else ""
    return Job(
        recipe="focalsst",
        tag=places.tag,
        directory=places.run,
        usual=places.usual,
        config=checked.canonical,
        effects=effects(SonarConfig),
        seed=rates.SEED,
        total_steps=total,
        epochs=rates.NUM_EPOCHS,
        steps_per_epoch=per_epoch,
        samples=frames or None,
        samples_per_step=rates.BATCH_SIZE_PER_GPU * rates.GRAD_ACCUMULATION_STEPS,
        micro_batches=rates.GRAD_ACCUMULATION_STEPS,
        layout=EPOCHS,
        keep_last=options.max_ckpt_save_num,
        backup=options.backup,
        limit=session_limit(options, environment),
        quota=disk_quota(options, environment),
        start=start_from(options, environment),
        task="focalsst.task:build",
        datasets="focalsst.datasets:datasets",
        preflight="focalsst.datasets:preflight",
        blueprint="focalsst.task:blueprint",
        options=LaunchOptions(
            device=options.device,
            workers=options.workers,
            **saves(options, epochs=options.ckpt_save_interval, seconds=options.ckpt_save_time_interval),
            log_every=options.logger_iter_interval,
            pictures=options.pictures,
            accidents=accidents(options),
            processes=processes(options),
            own=SonarOptions(
                config=config,
                data_root=data_root,
                deterministic=options.deterministic or options.fix_random_seed,
                num_epochs_to_eval=options.num_epochs_to_eval,
                save_to_file=options.save_to_file,
            ),
        ),
        ignored=(*checked.ignored_in_words, *idle),
        remarks=() if "AS_PUBLISHED" in file.tree else (LIKE_THE_ORIGINAL.format(theirs),),
        remarks_on_foreign=(UNLIKE_THE_ORIGINAL.format(unlike),) if unlike else (),
        command=environment.command,
        lr_at=cycle_of(config, total).lr_at if total else None,
        texts={places.config.name: yaml.safe_dump(checked.canonical, sort_keys=False, allow_unicode=True)},
        flags={"tag": "extra_tag", "keep_last": "max_ckpt_save_num"},
        override="--set {key} {value}",
        short_names=SHORT_NAMES,
        traits=(
            f"bs{rates.BATCH_SIZE_PER_GPU}",
            *((f"accum_x{rates.GRAD_ACCUMULATION_STEPS}",) if rates.GRAD_ACCUMULATION_STEPS > 1 else ()),
            f"lr{rates.LR:g}",
        ),
        environment=environment,
    )


def config_of(places: Places, options: argparse.Namespace) -> Validated[SonarConfig]:
    """The config with `--set` and with what the other options say laid over it, checked."""
    return validate(SonarConfig, _file_of(places, options))


def _file_of(places: Places, options: argparse.Namespace) -> ConfigFile:
    file = read_config(places.config)
    if options.set_cfgs:
        # What follows `--set` belongs to it, so an option there would not be one.
        if later := next((word for word in options.set_cfgs[::2] if word.startswith("--")), None):
            raise UsageError("--set", "it takes all that follows it", found=f"{later} behind it", do="Put --set last.")
        file = file.with_tree(set_values(_with_defaults(file, options.set_cfgs[::2]), options.set_cfgs))
    seed, is_fixed = getattr(options, "seed", None), getattr(options, "fix_random_seed", False)
    fixed = SEED_OF_FIX_RANDOM_SEED if is_fixed else None
    changed = [
        f"OPTIMIZATION.{key}={value}"
        for key, value in {
            "BATCH_SIZE_PER_GPU": options.batch_size,
            "NUM_EPOCHS": getattr(options, "epochs", None),
            "EVAL_INTERVAL": getattr(options, "eval_interval", None),
            "SEED": fixed if seed is None else seed,
            "FP16": True if getattr(options, "fp16", False) else None,
        }.items()
        if value is not None
    ]
    return file.with_tree(merge_options(file.tree, changed)) if changed else file


def cycle_of(config: SonarConfig, total: int) -> OneCycle:
    """The cycle of learning rate and momentum over the whole training."""
    return OneCycle(
        horizon=total,
        lr=config.OPTIMIZATION.LR,
        moms=config.OPTIMIZATION.MOMS,
        div_factor=config.OPTIMIZATION.DIV_FACTOR,
        pct_start=config.OPTIMIZATION.PCT_START,
    )


def steps_of(config: SonarConfig, frames: int, *, epochs: int) -> int:
    """Optimizer steps of so many epochs of so many frames; the last one of an epoch may be smaller."""
    batches = -(-frames // config.OPTIMIZATION.BATCH_SIZE_PER_GPU)
    return optimizer_steps(batches=batches, epochs=epochs, accumulate=config.OPTIMIZATION.GRAD_ACCUMULATION_STEPS)


def write_sample_data(directory: Path, *, say: Callable[[str], None]) -> None:
    """`unbroken data sonar DIR`: made-up frames in the layout of the real ones."""
    from focalsst.samples import write_sample_data as write

    summary = write(directory)
    say(str(summary["message"]))


def config_path(options: argparse.Namespace) -> str:
    """The config that was named, either way, or the published one."""
    given = [path for path in (options.config, options.cfg_file) if path]
    if len(given) == 2:
        raise UsageError("--cfg_file", "the config is given twice", found=" and ".join(given), do="Give it once.")
    return given[0] if given else str(DEFAULT_CONFIG)


def _with_defaults(file: ConfigFile, keys: Sequence[str]) -> dict[str, Any]:
    """The tree with the default of each of `keys` that the file leaves out, so that `--set` finds it.

    Where the schema has a number with a fraction and the file wrote `10`, the tree gets `10.0`: `--set` keeps types.
    """
    try:
        defaults = validate(SonarConfig, file).canonical
    except UnbrokenError:  # it may be right only with what is set; then keys have to be there
        return file.tree
    tree = file.tree
    for key in keys:
        value, is_there = value_at(defaults, key, ABSENT), value_at(tree, key, ABSENT) is not ABSENT
        above = key.rpartition(".")[0]
        if value is not ABSENT and (isinstance(value, float) or (not is_there and not isinstance(value, dict))):
            tree = merge_options(tree, [f"{key}={value!r}"])
        elif value is ABSENT and not is_there and above and value_at(tree, above, ABSENT) is not ABSENT:
            # A key that has no effect, if the schema knows it: it can be set, and is then said to do nothing.
            tried = merge_options(tree, [f"{key}=None"])
            with suppress(UnbrokenError):
                validate(SonarConfig, file.with_tree(tried))
                tree = tried
    return tree


def positive(text: str) -> int:
    return count(text, least=1)


def count(text: str, least: int = 0) -> int:
    if not text.isdecimal() or len(text) > 9 or int(text) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number, {least} or more, found {text[:40]!r}")
    return int(text)


focalsst = Recipe(
    name="focalsst",
    read=read,
    usage=lambda: parser().format_help(),
    tools={
        "apps/focal_sst/test.py": "focalsst.testing:usage",
        "apps/focal_sst/convert.py": "focalsst.conversion:usage",
    },
)

__all__ = ["focalsst", "parser", "read", "write_sample_data"]
