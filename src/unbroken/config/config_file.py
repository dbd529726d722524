"""What was read from a config file: its data, and where each key was written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unbroken.config.difference import same, value_at


@dataclass(frozen=True)
class Place:
    """A file and a line in it; line 0 stands for the whole file."""

    file: Path
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


COMMAND_LINE = Place(Path("command line"))


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """The data of a config file with its bases merged in, and where its keys were written.

    `sources` are all files that were read, this one first.
    """

    path: Path
    tree: dict[str, Any]
    places: Mapping[str, Place] = field(default_factory=dict)
    sources: tuple[Path, ...] = ()

    @property
    def lines(self) -> dict[str, int]:
        """The line of every key whose line is known, whichever of the sources it is in."""
        return {key: place.line for key, place in self.places.items() if place.line}

    def place_of(self, key: str) -> Place:
        """Where a key was written, or the nearest thing around it, or the file."""
        while key:
            if key in self.places:
                return self.places[key]
            key = key.rpartition(".")[0]
        return Place(self.path)

    def with_tree(self, tree: dict[str, Any]) -> ConfigFile:
        """Return the same file after overrides: keys that they changed are placed on the command line."""
        changed = {
            key: COMMAND_LINE for key in _leaves(tree) if not same(value_at(self.tree, key), value_at(tree, key))
        }
        return replace(self, tree=tree, places={**self.places, **changed})


def _leaves(tree: Any, key: str = "") -> list[str]:
    if isinstance(tree, Mapping) and tree:
        inside = [(str(name), value) for name, value in tree.items()]
    elif isinstance(tree, list | tuple) and tree:
        inside = [(str(place), value) for place, value in enumerate(tree)]
    else:
        return [key]
    return [leaf for name, value in inside for leaf in _leaves(value, f"{key}.{name}" if key else name)]
