"""The config room: what a MapSage config may say, what it means, and what changing it does.

schema          `MapSageConfig`, the whole config, in the words of MMEngine and MMSegmentation
model           the network, its losses, and how a picture larger than the network's window is predicted
data            loaders, datasets and the steps of their pipelines, each step a section of its own
schedule        optimizer, learning rate phases, number of iterations
runtime         saving, logging, seeds: what leaves the weights alone
not_built       which trainings are not built here, in one sentence
defaults        the keys whose default here is another one than in MMSegmentation

The effect of each key follows from what the key decides. The network's form: shape. What its numbers stand
for (classes, normalisation, dropout, loss): meaning. Which samples are seen: data. The pace: schedule. Where
things lie and how often they are said: free. Leftovers that no one reads (`dataset_type`): ignored.

Loads no torch, and pydantic with the sections alone, so that a launch can be explained at once.

Touches nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mapsage.config.data import ConcatDataset, DataLoader, EvalDataLoader, SegDataset, Transform
    from mapsage.config.model import CrossEntropyLoss, DiceLoss, LovaszLoss, Segmentor
    from mapsage.config.schedule import LinearLR, OptimWrapper, PolyLR
    from mapsage.config.schema import MapSageConfig
else:
    _LOADED_ON_FIRST_USE = {
        **dict.fromkeys(("ConcatDataset", "DataLoader", "EvalDataLoader", "SegDataset", "Transform"), "data"),
        **dict.fromkeys(("CrossEntropyLoss", "DiceLoss", "LovaszLoss", "Segmentor"), "model"),
        **dict.fromkeys(("LinearLR", "OptimWrapper", "PolyLR"), "schedule"),
        "MapSageConfig": "schema",
    }

    def __getattr__(name: str) -> object:
        """Load a section when it is first asked for."""
        if name not in _LOADED_ON_FIRST_USE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_LOADED_ON_FIRST_USE[name]}"), name)


HOW_TO_START = ("load_from", "resume", "work_dir")  # not part of what is trained

__all__ = [
    "HOW_TO_START",
    "ConcatDataset",
    "CrossEntropyLoss",
    "DataLoader",
    "DiceLoss",
    "EvalDataLoader",
    "LinearLR",
    "LovaszLoss",
    "MapSageConfig",
    "OptimWrapper",
    "PolyLR",
    "SegDataset",
    "Segmentor",
    "Transform",
]
