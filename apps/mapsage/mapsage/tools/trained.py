"""What both tools begin and end with: a config with the weights that were named, and pictures that are whole."""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from rich.console import Console

from mapsage.config import MapSageConfig
from mapsage.dataset.pipeline import Sample
from mapsage.dataset.preprocess import Preprocessor
from mapsage.dataset.reading import MOST_BYTES, PNG_END
from mapsage.evaluation import predict
from mapsage.model import EncoderDecoder, segmentor_name
from mapsage.picture import Colour, palette, png_bytes
from mapsage.recipes import WORK_DIRS
from mapsage.task import build_preprocessor, build_segmentor, class_rows
from unbroken import (
    ITERATIONS,
    Disk,
    NotOrdinary,
    OptionParser,
    add_weights_key,
    durable_folder,
    read_whole,
    require_local,
    write_whole,
)
from unbroken.config import merge_options, read_config, validate
from unbroken.errors import Incompatible, Refused
from unbroken.train import FoundCheckpoint, dataset_meta, load_weights, named_checkpoint, pick_device

Say = Callable[[str], None]
CHECKPOINT = (
    "a .pth of any origin, the folder of a run (its furthest checkpoint), or best or latest of this config's run"
)


def require_empty(folder: Path, option: str) -> None:
    """Raise Refused where files that are there could be overwritten, UsageError for an address."""
    require_local(folder, is_folder=True)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Refused(folder, "there is something already, and nothing is overwritten", do=f"Name another {option}.")


def write_picture(path: Path, picture: Image.Image, notes: Mapping[str, str] | None = None) -> None:
    """Write a PNG durably, with `notes` as its text."""
    durable_folder(Disk(), path.parent)
    write_whole(Disk(), path, png_bytes(picture, notes))


def note_in(path: Path, name: str) -> str | None:
    """A note in a PNG that is whole; "" where there is none in it, None where nothing has this name."""
    try:
        content = read_whole(path, most_bytes=MOST_BYTES)
        if PNG_END not in content[-16:]:
            return ""
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            return str(picture.info.get(name, ""))
    except FileNotFoundError:
        return None
    except (UnidentifiedImageError, Image.DecompressionBombError, NotOrdinary, SyntaxError, ValueError):
        return ""


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
        # The colours of the config or its data set, else those that the file names, else some that differ well.
        palette=next((each.palette for each in config.train_dataloader.datasets if each.palette), ())
        or _recorded_palette(config.class_names, file.path)
        or palette(len(config.class_names)),
    )


def read(options: argparse.Namespace) -> MapSageConfig:
    """The config with what `--cfg-options` changes."""
    file = read_config(options.config)
    changed = file.with_tree(merge_options(file.tree, options.cfg_options)) if options.cfg_options else file
    return validate(MapSageConfig, changed).value


def _recorded_palette(classes: tuple[str, ...], file: Path) -> tuple[Colour, ...] | None:
    """The colours in a file, in the order of our classes; None where it names none, or those of other classes."""
    meta = dataset_meta(file)
    names, colours = meta.get("classes"), meta.get("palette")
    if not isinstance(names, list | tuple) or not isinstance(colours, list | tuple) or len(names) != len(colours):
        return None
    sound = [
        each
        for each in colours
        if isinstance(each, list | tuple)
        and len(each) == 3
        and all(type(level) is int and 0 <= level <= 255 for level in each)
    ]
    if len(sound) < len(colours) or set(names) != set(classes):
        return None
    found = {name: (colour[0], colour[1], colour[2]) for name, colour in zip(names, sound, strict=True)}
    return tuple(found[name] for name in classes)
