"""Keys whose default here is another one than in MMSegmentation, where that would make another training of it.

A config that leaves one out is told at its launch what counts here; a file of MMEngine whose config leaves one out was
written under the default there, and is compared as such. All keys with both defaults are in `docs/defaults.md`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from unbroken.config import value_at

THERE: dict[str, Any] = {
    "model.data_preprocessor.mean": None,
    "model.data_preprocessor.std": None,
    "model.data_preprocessor.bgr_to_rgb": False,
    "model.decode_head.norm_cfg": None,
    "param_scheduler.*.by_epoch": True,
    "train_dataloader.dataset.img_suffix": ".jpg",
    "train_dataloader.dataset.datasets.*.img_suffix": ".jpg",
    "val_dataloader.dataset.img_suffix": ".jpg",
    "val_dataloader.dataset.datasets.*.img_suffix": ".jpg",
}


def with_original_defaults(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The config of another program, with its own defaults written out where ours are others."""
    filled = copy.deepcopy(dict(tree))
    for _key, section, name, there in _left_out(filled):
        section[name] = there
    return filled


def words_on_defaults(tree: Mapping[str, Any], canonical: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence on what a config leaves out and MMSegmentation would take otherwise; none where nothing is."""
    found = [(key, value_at(canonical, key), there) for key, _, _, there in _left_out(copy.deepcopy(dict(tree)))]
    listed = [f"{key} = {here!r} (there {there!r})" for key, here, there in found]
    said = f"left out of the config, with another default than in MMSegmentation: {', '.join(listed)}"
    return (said,) if found else ()


def _left_out(tree: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], str, Any]]:
    """Each such key that is not there, the section it belongs into, its name in it and the default there."""
    for pattern, there in THERE.items():
        *above, name = pattern.split(".")
        for key, section in _sections(tree, above, ""):
            of_theirs = name != "img_suffix" or section.get("type") == "BaseSegDataset"
            if name not in section and of_theirs:
                yield f"{key}.{name}", section, name, there


def _sections(here: Any, parts: list[str], key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if not parts:
        if isinstance(here, dict):
            yield key, here
    elif parts[0] == "*":
        for place, item in enumerate(here if isinstance(here, list | tuple) else [here]):
            yield from _sections(item, parts[1:], f"{key}.{place}")
    elif isinstance(here, dict):
        if parts == ["data_preprocessor"]:
            here.setdefault("data_preprocessor", {})
        if parts[0] in here:
            yield from _sections(here[parts[0]], parts[1:], f"{key}.{parts[0]}" if key else parts[0])
