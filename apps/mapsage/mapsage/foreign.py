"""What a checkpoint of MMEngine says of its own training: the config and the classes it was written with.

`meta['cfg']` is that config as Python text, which is read and never executed; `meta['dataset_meta']` is what its data
set really used, whatever the config left to a default. Both are compared with the config of a launch before a file is
continued, so that labels that mean something else are refused and not trained on. Loads no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mapsage.config import HOW_TO_START, MapSageConfig
from mapsage.config.data import KNOWN_CLASSES, SegDataset
from mapsage.config.original import with_original_defaults
from unbroken import WrittenUnder
from unbroken.config import canonical, read_python_text, readable_parts
from unbroken.errors import ConfigError

OURS = ("randomness", "val_dataloader", "val_evaluator")  # the order is this run's from here on, and so are its scores
INSIDE = Path("meta.cfg")


def written_under(meta: Mapping[str, Any], ours: MapSageConfig) -> WrittenUnder | None:
    """The config of a file as far as it can be known, with ours for the rest; None where the file says nothing."""
    text, data = meta.get("cfg"), meta.get("dataset_meta")
    data = data if isinstance(data, Mapping) else {}
    if not isinstance(text, str) and not data:
        return None
    own = canonical(ours)
    parts, remarks = dict[str, Any](), tuple[str, ...]()
    if isinstance(text, str):
        try:
            tree = read_python_text(text, INSIDE)
            parts, others = readable_parts(MapSageConfig, with_original_defaults(tree))
            remarks = tuple(f"its `{name}` holds what is not known here, and was not compared" for name in others)
        except ConfigError as error:
            remarks = (f"its config cannot be read, so its classes alone were compared ({error})",)
    config = {**own, **parts, **{key: own[key] for key in OURS}}
    # Each of their datasets with ours in its place.
    first, datasets = config["train_dataloader"]["dataset"], ours.train_dataloader.datasets
    theirs = first["datasets"] if first["type"] == "ConcatDataset" else [first]
    for place, dataset in enumerate(theirs):
        remarks += _spell_as(datasets[place if place < len(datasets) else 0], dataset, data)
    if "model" not in parts and (names := _names(data)):
        config["model"]["decode_head"]["num_classes"] = len(names)
    return WrittenUnder(config={key: config[key] for key in own if key not in HOW_TO_START}, remarks=remarks)


def _spell_as(ours: SegDataset, theirs: dict[str, Any], data: Mapping[str, Any]) -> tuple[str, ...]:
    """Name what their labels mean in the keys that ours has: what a class of data sets knows, another one is told.

    Returns what is to be said of that.
    """
    names = _names(data) or _names(theirs["metainfo"] or {}) or KNOWN_CLASSES.get(theirs["type"], ())
    used = data.get("reduce_zero_label")
    theirs["reduce_zero_label"] = used if isinstance(used, bool) else theirs["reduce_zero_label"]
    theirs["type"] = ours.type
    coloured = _names_by_colour(ours, data) if names == ours.class_names else names
    same = not coloured or coloured == ours.class_names
    theirs["metainfo"] = canonical(ours.metainfo) if same else {"classes": list(coloured), "palette": None}
    if same or coloured == names:
        return ()
    moved = [name for name, other in zip(names, coloured) if name != other]
    others = "each other's colours" if len(moved) == 2 else "colours of one another"
    return (f"its palette gives {' and '.join(moved)} {others}: its labels are taken as the colours say",)


def _names_by_colour(ours: SegDataset, data: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the labels by their colours, where theirs are ours in another order; other colours say nothing.

    MMEngine draws colours where a config has none, so that those of a file may be any.
    """
    found, palette = data.get("palette"), ours.palette or ()
    colours = (
        [tuple(colour) for colour in found if isinstance(colour, list | tuple)]
        if isinstance(found, list | tuple)
        else []
    )
    if len(set(palette)) < len(palette) or Counter(colours) != Counter(palette):
        return ours.class_names
    return tuple(ours.class_names[palette.index(colour)] for colour in colours)


def _names(data: Mapping[str, Any]) -> tuple[str, ...]:
    found = data.get("classes")
    named = isinstance(found, list | tuple) and all(isinstance(name, str) for name in found)
    return tuple(found) if named and found else ()
