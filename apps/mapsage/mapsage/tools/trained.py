"""A config and the weights that were named, ready to predict: what both tools begin with."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from mapsage.config import MapSageConfig
from mapsage.dataset.pipeline import Sample
from mapsage.dataset.preprocess import Preprocessor
from mapsage.evaluation import predict
from mapsage.model import EncoderDecoder, segmentor_name
from mapsage.picture import Colour
from mapsage.recipes import WORK_DIRS
from mapsage.sample_pictures import palette
from mapsage.task import build_preprocessor, build_segmentor, class_rows
from unbroken import ITERATIONS, OptionParser, add_weights_key
from unbroken.config import merge_options, read_config, validate
from unbroken.errors import Incompatible
from unbroken.train import FoundCheckpoint, dataset_meta, load_weights, named_checkpoint, pick_device

Say = Callable[[str], None]
CHECKPOINT = (
    "a .pth of any origin, the folder of a run (its furthest checkpoint), or best or latest of this config's run"
)


def add_options(parser: OptionParser) -> None:
    """Add what both tools ask: which network, which weights, where to compute."""
    parser.add_argument("config", type=Path, metavar="CONFIG", help="in Python syntax; it is read, never executed")
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help=CHECKPOINT)
    add_weights_key(parser)
    parser.add_argument("--tag", metavar="TAG", help="whose best or latest it is (default: the config's name)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change config keys")
    parser.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, cuda:1 (default: cuda if there)")


def console() -> Say:
    """Where the tools say what they do."""
    return Console(soft_wrap=True, highlight=False, markup=False, emoji=False).print


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """A network in evaluation mode with the weights of a file; classes and colours in the order of its labels."""

    config: MapSageConfig
    file: FoundCheckpoint
    model: EncoderDecoder
    preprocess: Preprocessor
    classes: tuple[str, ...]
    palette: tuple[Colour, ...]

    def predict(self, sample: Sample) -> torch.Tensor:
        """The labels of a sample at its file's size, int64 HW, on the CPU."""
        with torch.inference_mode():
            return predict(self.config, self.model, self.preprocess, sample)


def load(options: argparse.Namespace, say: Say, *, work_dir: Path | None = None) -> Trained:
    """Read the config, find the file, and fill the network; Incompatible unless network and classes are the file's."""
    config = read(options)
    device = pick_device(options.device, deterministic=config.randomness.deterministic)
    directory = work_dir or (Path(config.work_dir) if config.work_dir and not options.tag else None)
    run = directory or WORK_DIRS / (options.tag or options.config.stem)
    file = named_checkpoint(options.checkpoint, ITERATIONS, run=run)
    say(f"load checkpoint from {file.path} ({file.kind}, step {file.step if file.step >= 0 else 'not known'})")
    for sentence in file.compute_alike():
        say(sentence)
    model = build_segmentor(config).to(device)
    report = load_weights(
        model,
        file.path,
        segmentor_name,
        strict=True,
        say=say,
        class_rows=class_rows(config),
        weights_key=options.weights_key,
    )
    if report.classes is not None and report.classes.left:
        raise Incompatible(
            file.path,
            "it knows classes that the config does not name",
            expected=", ".join(config.class_names),
            found=f"{', '.join(report.classes.left)} besides",
            do="Name all classes of the file in the config's metainfo, and set num_classes.",
        )
    return Trained(
        config=config,
        file=file,
        model=model.eval(),
        preprocess=build_preprocessor(config).to(device),
        classes=config.class_names,
        palette=_palette(config, file.path),
    )


def read(options: argparse.Namespace) -> MapSageConfig:
    """The config with what `--cfg-options` changes."""
    file = read_config(options.config)
    changed = file.with_tree(merge_options(file.tree, options.cfg_options)) if options.cfg_options else file
    return validate(MapSageConfig, changed).value


def _palette(config: MapSageConfig, file: Path) -> tuple[Colour, ...]:
    """The colours of the config or its data set, else those that the file names, else some that differ well."""
    of_config = next((each.palette for each in config.train_dataloader.datasets if each.palette), None)
    return of_config or _recorded_palette(config.class_names, file) or palette(len(config.class_names))


def _recorded_palette(classes: tuple[str, ...], file: Path) -> tuple[Colour, ...] | None:
    """The colours in a file, in the order of our classes; None where it names none, or those of other classes."""
    meta = dataset_meta(file)
    names, colours = meta.get("classes"), meta.get("palette")
    if not isinstance(names, list | tuple) or not isinstance(colours, list | tuple) or len(names) != len(colours):
        return None
    sound = [
        each for each in colours if isinstance(each, list | tuple) and len(each) == 3 and all(map(_is_level, each))
    ]
    if len(sound) < len(colours) or set(names) != set(classes):
        return None
    found = {name: (colour[0], colour[1], colour[2]) for name, colour in zip(names, sound, strict=True)}
    return tuple(found[name] for name in classes)


def _is_level(value: object) -> bool:
    return type(value) is int and 0 <= value <= 255
