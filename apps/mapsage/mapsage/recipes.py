"""The command line of MapSage: a config file and options become a job. Loads no torch."""

from __future__ import annotations

import argparse
import pprint
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mapsage.config import HOW_TO_START
from mapsage.config.original import words_on_defaults
from mapsage.schedule import phases_in, rates_at
from unbroken import (
    Environment,
    Job,
    Later,
    LaunchOptions,
    OptionParser,
    Recipe,
    WrittenUnder,
    accidents,
    add_common_options,
    device_name,
    disk_quota,
    folder,
    processes,
    require_launcher,
    saves,
    session_limit,
    start_from,
)
from unbroken.config import ConfigError, ConfigFile, Validated, merge_options, read_config, validate_cached, value_at
from unbroken.storage import Cache

if TYPE_CHECKING:
    from mapsage.config import MapSageConfig

SHORT_NAMES = {
    "train_dataloader.batch_size": "bs",
    "optim_wrapper.accumulative_counts": "accum_x",
    "optim_wrapper.optimizer.lr": "lr",
    "train_cfg.max_iters": "it",
    "randomness.seed": "seed",
    "model.backbone.embed_dims": "d",
}
# What users of other programs type, and what it is here.
MEANT = {
    **dict.fromkeys(("lr", "learning_rate"), "--cfg-options optim_wrapper.optimizer.lr={value}"),
    **dict.fromkeys(("weight_decay", "wd"), "--cfg-options optim_wrapper.optimizer.weight_decay={value}"),
    **dict.fromkeys(("batch_size", "bs", "b", "samples_per_gpu"), "--cfg-options train_dataloader.batch_size={value}"),
    **dict.fromkeys(("max_iters", "iters", "iterations", "steps"), "--cfg-options train_cfg.max_iters={value}"),
    **dict.fromkeys(
        ("epochs", "max_epochs", "num_epochs"), "--cfg-options train_cfg.max_iters=N (the length is in iterations)"
    ),
    **dict.fromkeys(("val_interval", "eval_interval"), "--cfg-options train_cfg.val_interval={value}"),
    **dict.fromkeys(("save_interval", "ckpt_save_interval"), "--cfg-options default_hooks.checkpoint.interval={value}"),
    **dict.fromkeys(
        ("accumulate", "grad_accum", "accum_steps", "gradient_accumulation_steps"),
        "--cfg-options optim_wrapper.accumulative_counts={value}",
    ),
    **dict.fromkeys(("set", "set_cfgs", "options", "override", "opts"), "--cfg-options {pairs}"),
    **dict.fromkeys(("fp16", "half", "mixed_precision", "use_amp"), "--amp"),
    **dict.fromkeys(("output", "output_dir", "out_dir", "save_dir", "logdir"), "--work-dir {value}"),
    **dict.fromkeys(
        ("data_root", "data_path", "data_dir", "data"),
        "--cfg-options train_dataloader.dataset.data_root={value} val_dataloader.dataset.data_root={value}",
    ),
    **dict.fromkeys(("config", "cfg", "cfg_file"), "the config alone, without an option: {value}"),
    "auto_scale_lr": "--cfg-options optim_wrapper.optimizer.lr=VALUE (nothing scales it)",
    "no_validate": "--cfg-options train_cfg.val_interval=N, as large as the length: it is validated once, at the end",
}
SCHEMA = "mapsage.config:MapSageConfig"
TEST_SET = ("test_dataloader", "test_cfg", "test_evaluator")
WORK_DIRS = Path("work_dirs")
PROGRAM = "unbroken train mapsage"
DESCRIPTION = """Train a segmentation network for aerial images. After any interruption run the same command again: it
goes on where it was, bit for bit, and says from which file and why."""
EPILOG = """The run lies in work_dirs/<name of the config file>, wherever its checkpoints came from.
What a command would do, without doing it: unbroken why mapsage CONFIG."""


def parser(program: str = PROGRAM) -> OptionParser:
    """The options of `unbroken train mapsage`, which are those of `scripts/train.py`."""
    found = OptionParser(prog=program, description=DESCRIPTION, epilog=EPILOG, meant=MEANT)
    found.add_examples(
        f"{program} configs/aerial_tiny.py",
        f"{program} configs/aerial_tiny.py --session 12h --tag half --cfg-options optim_wrapper.optimizer.lr=3e-5",
    )
    found.add_argument("config", type=Path, metavar="CONFIG", help="in Python syntax; it is read, never executed")
    found.add_argument(
        "--work-dir", type=folder, metavar="DIR", help="the run's folder (default: work_dirs/<config's name>)"
    )
    found.add_argument(
        "--seed", type=_count, metavar="N", help="seed of everything random (default: the config's, else 0)"
    )
    found.add_argument("--deterministic", action="store_true", help="only deterministic algorithms, also on a GPU")
    found.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="FILE",
        help="resuming is what happens anyway; with a FILE, like --ckpt FILE",
    )
    found.add_argument("--amp", action="store_true", help="mixed precision")
    found.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change config keys")
    found.add_argument("--workers", type=_count, metavar="N", help="loader processes; any number gives the same run")
    found.add_argument(
        "--device",
        type=device_name,
        default="auto",
        metavar="NAME",
        help="cpu, cuda, cuda:1 (default: cuda where there is one)",
    )
    found.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started this process: it is found out anyway",
    )
    found.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    add_common_options(found)
    return found


def read(arguments: Sequence[str], environment: Environment) -> Job:
    """Turn what was typed into a job."""
    # `--resume CONFIG`, as MMSegmentation's users type it: only a checkpoint is a value of --resume.
    words = [
        "--resume=auto" if word == "--resume" and not following.endswith(".pth") else word
        for word, following in zip(arguments, [*arguments[1:], ""])
    ]
    options = parser(environment.program or PROGRAM).parse_args(words)
    require_launcher(options.launcher)
    # Options are overrides of the config, so that the recorded config says what was really run.
    file, changed = read_config(options.config), list(options.cfg_options)
    changed += [f"randomness.seed={options.seed}"] if options.seed is not None else []
    changed += ["randomness.deterministic=True"] if options.deterministic else []
    changed += ["optim_wrapper.type='AmpOptimWrapper'"] if options.amp else []
    file = file.with_tree(merge_options(file.tree, changed)) if changed else file
    checked, left_out = _validated(file, environment.cache)
    config = partial(value_at, checked.canonical)  # by key: making typed sections of it can wait
    directory = options.work_dir or (Path(config("work_dir")) if config("work_dir") else None)
    tag = options.tag or (directory.resolve().name if directory else options.config.stem)
    keep = config("default_hooks.checkpoint.max_keep_ckpts")
    # The merged config in the language that it was written in.
    lines = [f"{key} = {pprint.pformat(value, width=110)}\n" for key, value in checked.canonical.items()]
    return Job(
        recipe="mapsage",
        tag=tag,
        directory=directory or WORK_DIRS / tag,
        usual=tuple(folder / (directory or WORK_DIRS / tag) for folder in options.config.resolve().parents[:2]),
        config={key: value for key, value in checked.canonical.items() if key not in HOW_TO_START},
        effects=checked.effects,
        seed=config("randomness.seed"),
        total_steps=config("train_cfg.max_iters"),
        samples_per_step=config("train_dataloader.batch_size") * config("optim_wrapper.accumulative_counts"),
        micro_batches=config("optim_wrapper.accumulative_counts"),
        keep_last=keep if keep > 0 else None,
        backup=options.backup,
        limit=session_limit(options, environment),
        quota=disk_quota(options, environment),
        start=start_from(options, environment, **_named_files(checked.canonical, options)),
        task="mapsage.task:build",
        datasets="mapsage.datasets:datasets",
        preflight="mapsage.preflight:preflight",
        blueprint="mapsage.task:blueprint",
        options=LaunchOptions(
            device=options.device,
            workers=options.workers,
            **saves(options, steps=config("default_hooks.checkpoint.interval")),
            log_every=config("default_hooks.logger.interval"),
            pictures=options.pictures,
            accidents=accidents(options),
            processes=processes(options),
            own=Later(make=lambda: checked.value),
        ),
        ignored=checked.ignored_in_words,
        remarks=(*left_out, *words_on_defaults(file.tree, checked.canonical)),
        written_under=partial(_written_under, checked),
        command=environment.command,
        lr_at=_rate_at(checked.canonical),
        override="--cfg-options {key}={value}",
        flags={"keep_last": "default_hooks.checkpoint.max_keep_ckpts", "directory": "work-dir"},
        short_names=SHORT_NAMES,
        texts={"vis_data/config.py": "".join(lines)},
        environment=environment,
    )


def _validated(file: ConfigFile, cache: Cache) -> tuple[Validated[MapSageConfig], tuple[str, ...]]:
    """The config, and a remark where its test set was left out: one that cannot be used is no matter in training."""
    try:
        return validate_cached(SCHEMA, file, cache), ()
    except ConfigError as error:
        kept = {key: value for key, value in file.tree.items() if key not in TEST_SET}
        if len(kept) == len(file.tree):
            raise
        checked = validate_cached(SCHEMA, replace(file, tree=kept), cache)
        reason = str(error).splitlines()[0].rstrip(".: ")
        return checked, (f"the test set is left out, as a training reads none and this one cannot be used: {reason}",)


def write_sample_data(directory: Path, *, say: Callable[[str], None]) -> None:
    """`unbroken data aerial DIR`: made-up tiles in the EarthVQA layout."""
    from mapsage.samples import write_sample_data as write

    summary = write(directory)
    say(str(summary["message"]))


def demo(directory: Path, *, say: Callable[[str], None]) -> int:
    """`unbroken demo aerial`: the whole story on made-up data."""
    from mapsage.demo import tell

    return tell(directory, say=say)


def _count(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"expected a whole number, 0 or more, found {text[:40]!r}")
    return int(text)


def _written_under(ours: Validated[MapSageConfig], meta: Mapping[str, Any]) -> WrittenUnder | None:
    from mapsage.foreign import written_under

    return written_under(meta, ours.value)


def _named_files(config: Mapping[str, Any], options: argparse.Namespace) -> dict[str, Path | None]:
    """Files the config names: where its history begins, or weights to begin with."""
    if options.resume not in (None, "auto"):
        options.ckpt = options.ckpt or Path(options.resume)
    load_from = Path(config["load_from"]) if config["load_from"] else None
    if load_from is not None and config["resume"]:
        return {"origin": load_from, "weights": None}
    init = config["model"]["backbone"]["init_cfg"]
    pretrained = Path(init["checkpoint"]) if init else None
    return {"origin": None, "weights": load_from or pretrained}


def _rate_at(config: Mapping[str, Any]) -> Callable[[int], float]:
    phases = phases_in(config["param_scheduler"])
    chain: list[float] = [config["optim_wrapper"]["optimizer"]["lr"]]  # entry t + 1 is used after t steps

    def rate_at(step: int) -> float:
        while len(chain) < step + 2:
            chain.extend(rates_at(chain[-1:], phases, len(chain) - 1))
        return chain[step + 1]

    return rate_at


mapsage = Recipe(
    name="mapsage",
    read=read,
    usage=lambda: parser().format_help(),
    tools={
        "apps/mapsage/scripts/test.py": "mapsage.tools.test:usage",
        "apps/mapsage/scripts/predict.py": "mapsage.tools.predict:usage",
    },
)

__all__ = ["ConfigError", "demo", "mapsage", "parser", "read", "write_sample_data"]
