"""`scripts/test.py CONFIG CHECKPOINT`: judge weights by labelled tiles, in MMSegmentation's words and options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from mapsage.config import MapSageConfig
from mapsage.config.data import EvalDataLoader
from mapsage.dataset.folders import Folder
from mapsage.dataset.pipeline import Sample
from mapsage.datasets import build_dataset
from mapsage.evaluation import evaluate
from mapsage.metrics import Scores
from mapsage.picture import side_by_side
from mapsage.tools.trained import Trained, add_options, console, load, require_empty, write_picture
from unbroken import Disk, OptionParser, durable_folder, require_launcher, require_local, write_json
from unbroken.errors import ConfigError, Incompatible, UsageError
from unbroken.train import dataset_meta, this_world

Take = Callable[[Sample, Tensor], None]
NOT_BUILT = {"tta": "test-time augmentation", "show": "showing pictures in a window (--show-dir writes them)"}


def parser() -> OptionParser:
    """The options of `scripts/test.py`."""
    found = OptionParser(
        prog="scripts/test.py",
        description="Judge a checkpoint by the tiles of the test loader, or of the validation where a config has none. "
        "Changes nothing of a run; writes only where it is told to.",
    )
    add_options(found)
    found.add_argument("--work-dir", type=Path, metavar="DIR", help="write the metrics there, as <time>/<time>.json")
    found.add_argument("--out", type=Path, metavar="DIR", help="write the predicted masks there, coded as the labels")
    found.add_argument("--show-dir", type=Path, metavar="DIR", help="write image, truth and prediction side by side")
    found.add_argument("--workers", type=int, metavar="N", help="loader processes (default: the config's)")
    found.add_argument(
        "--on-bad-sample", dest="on_bad", choices=["stop", "skip"], default="stop", help="a tile that is unreadable"
    )
    found.add_argument(
        "--launcher",
        choices=["none", "pytorch", "slurm", "mpi"],
        default="none",
        help="what started this process, one of several that share the tiles: it is found out anyway",
    )
    found.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    found.add_argument("--tta", action="store_true", help="not built")
    found.add_argument("--show", action="store_true", help="not built: --show-dir writes the pictures")
    found.add_argument("--wait-time", type=float, default=2, help=argparse.SUPPRESS)
    return found


def usage() -> str:
    """The help text."""
    return parser().format_help()


def main(arguments: Sequence[str]) -> int:
    """Run one command line; returns its exit code."""
    options = parser().parse_args(list(arguments))
    require_launcher(options.launcher)
    world = this_world()
    for name, what in NOT_BUILT.items():
        if getattr(options, name):
            raise UsageError(f"--{name}", f"{what} is not built", do=f"Leave --{name} out.")
    for folder, option in ((options.out, "--out"), (options.show_dir, "--show-dir")):
        if folder is not None:
            require_empty(folder, option)
    require_local(options.work_dir or "", is_folder=True)
    world.wait_for_all()  # before the first of several writes there
    say = console() if world.leads else (lambda _line: None)
    trained = load(options, say)
    part, loader = _loader(trained.config, options.config)
    # Where the file learned from masks of which 0 meant something else, all labels would be off.
    learned = dataset_meta(trained.file.path).get("reduce_zero_label")
    if isinstance(learned, bool) and any(each.zero_is_no_data is not learned for each in loader.datasets):
        raise Incompatible(
            trained.file.path,
            "it learned from masks that are coded otherwise than those it would be judged by",
            expected=f"reduce_zero_label={learned}",
            found=f"reduce_zero_label={not learned} in {part}",
            do="Set reduce_zero_label in the config as the masks are coded.",
        )
    dataset = build_dataset(loader.datasets, gaps=options.on_bad == "skip")
    found = evaluate(
        trained.config,
        dataset,
        trained.model,
        trained.preprocess,
        say,
        workers=loader.num_workers if options.workers is None else options.workers,
        part="test",
        skip_bad=options.on_bad == "skip",
        take=_writers(options, trained, loader, dataset),
    )
    say(f"{len(dataset)} tiles of {part}")
    if options.work_dir is not None and world.leads:
        say(f"metrics: {_write_metrics(options.work_dir, found, trained)}")
    world.wait_for_all()
    world.close()
    return 0


def _loader(config: MapSageConfig, where: Path) -> tuple[str, EvalDataLoader]:
    """What is judged by, and what the config calls it."""
    for name in ("test_dataloader", "val_dataloader"):
        loader: EvalDataLoader | None = getattr(config, name)
        if loader is None:
            continue
        if any(each.data_prefix.seg_map_path is None for each in loader.datasets):
            what = f"the tiles of {name} have no masks to judge by"
            do = "Name masks: data_prefix=dict(..., seg_map_path=...). Or see scripts/predict.py, which needs none."
            raise ConfigError(where, what, do=do)
        return name, loader
    what = "there is nothing to judge by"
    raise ConfigError(where, what, expected="a test_dataloader or val_dataloader", do="Or see scripts/predict.py.")


def _writers(options: argparse.Namespace, trained: Trained, loader: EvalDataLoader, dataset: Folder) -> Take:
    """What is written of each tile, as the options ask; two tiles of one name are refused where that is files."""
    if (options.out or options.show_dir) and len(set(dataset.names)) < len(dataset):
        twice = next(name for place, name in enumerate(dataset.names) if name in dataset.names[:place])
        what = "two tiles of different folders have one name, so that one would replace the other"
        raise UsageError("--out, --show-dir", what, found=twice, do="Test one folder at a time.")
    first = int(any(each.zero_is_no_data for each in loader.datasets))  # the value of the first class in the masks

    def take(sample: Sample, prediction_HW: Tensor) -> None:
        if options.out is not None:
            mask_HW = (prediction_HW.numpy() + first).astype(np.uint8)
            write_picture(options.out / f"{sample.name}.png", Image.fromarray(mask_HW))
        if options.show_dir is not None and sample.label is not None:
            image_HW3 = np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()[..., ::-1])
            sheet = side_by_side(
                np.asarray(Image.fromarray(image_HW3).resize((prediction_HW.shape[1], prediction_HW.shape[0]))),
                sample.label.numpy(),
                prediction_HW.numpy(),
                class_names=trained.classes,
                palette=trained.palette,
            )
            write_picture(options.show_dir / f"{sample.name}.png", sheet)

    return take


def _write_metrics(folder: Path, found: Scores, trained: Trained) -> Path:
    """The metrics by name as MMEngine writes them, and those of each class."""
    stamp = f"{datetime.now():%Y%m%d_%H%M%S}"
    while (folder / stamp).exists():
        stamp += "_"
    path = folder / stamp / f"{stamp}.json"
    durable_folder(Disk(), path.parent)
    facts = {"checkpoint": str(trained.file.path), "step": trained.file.step}
    write_json(Disk(), path, {**found.as_data(), **facts})
    return path
