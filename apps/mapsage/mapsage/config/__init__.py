"""The config room: what a MapSage config may say, what it means, and what changing it does.

schema          `MapSageConfig`, the whole config, in the words of MMEngine and MMSegmentation
model           the network, its losses, and how a picture larger than the network's window is predicted
data            loaders, datasets and the steps of their pipelines, each step a section of its own
training        optimizer, learning rate phases, number of iterations; saving, logging, seeds
original        earlier keys, and other defaults than in MMSegmentation

The effect of each key follows from what the key decides. The network's form: shape. What its numbers stand
for (classes, normalisation, dropout, loss): meaning. Which samples are seen: data. The pace: schedule. Where
things lie and how often they are said: free. Leftovers that no one reads (`dataset_type`): ignored.

Loads no torch, and pydantic with the sections alone, so that a launch can be explained at once.

Touches nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mapsage.config.schema import MapSageConfig
else:

    def __getattr__(name: str) -> object:
        """Load the schema when it is first asked for."""
        if name != "MapSageConfig":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from mapsage.config.schema import MapSageConfig

        return MapSageConfig


HOW_TO_START = ("load_from", "resume", "work_dir")  # not part of what is trained

__all__ = ["HOW_TO_START", "MapSageConfig"]
