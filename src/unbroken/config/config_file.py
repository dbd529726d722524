"""What was read from a config file: its data, and where each key was written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from unbroken.config.difference import ABSENT, same
from unbroken.config.meter import CHAIN, FILE_BYTES, Meter, TooMuch
from unbroken.config.nearest import configs_near
from unbroken.errors import ConfigError
from unbroken.storage import NotOrdinary, read_whole
from unbroken.text import NOT_TEXT, text_of


@dataclass(frozen=True)
class Place:
    """A place in a config file; shown as `FILE:LINE`.

    Args:
        file: Path of the file.
        line: Counted from 1; 0: the whole file.
    """

    file: Path
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else str(self.file)


COMMAND_LINE = Place(Path("command line"))


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """What was read from a config file: its data with the bases merged in, and where its keys were written.

    Args:
        path: The file itself.
        tree: Its data: dicts, lists, tuples and plain values.
        places: Where each dotted key was written, as far as that is known.
        sources: All files that were read, this one first.
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
        """Return where a key was written, or the nearest thing around it, or the file.

        Args:
            key: Dotted, of any depth.
        """
        while key:
            if key in self.places:
                return self.places[key]
            key = key.rpartition(".")[0]
        return Place(self.path)

    def with_tree(self, tree: dict[str, Any]) -> ConfigFile:
        """Return the same file after overrides: keys that they changed are placed on the command line.

        Args:
            tree: What `set_values` or `merge_options` gave.
        """
        changed = dict.fromkeys(_changed(self.tree, tree, ""), COMMAND_LINE)
        return replace(self, tree=tree, places={**self.places, **changed})


def _changed(old: Any, new: Any, key: str) -> Iterator[str]:
    """The keys of what is another in `new`: single values, and the lists and new sections that they stand in."""
    if same(old, new):
        return
    if not (isinstance(old, Mapping) and isinstance(new, Mapping)):
        yield key
    known = dict(_inside(old))
    for name, value in _inside(new):
        yield from _changed(known.get(name, ABSENT), value, f"{key}.{name}" if key else str(name))


def _inside(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        return value.items()
    return enumerate(value) if isinstance(value, list | tuple) else ()


def read_text(path: Path, meter: Meter, *, named_in: object = "") -> str:
    """Read a config file of sensible size; `named_in` is the place that refers to it."""
    where = named_in or path
    try:
        data = read_whole(path, most_bytes=FILE_BYTES)
        meter.open_file(len(data))
        return text_of(data).replace("\r\n", "\n").replace("\r", "\n")
    except NotOrdinary as error:
        raise ConfigError(
            where,
            f"{path} is no config file: {error.strerror}",
            expected=f"an ordinary file of at most {FILE_BYTES:,} bytes",
        ) from error
    except TooMuch as error:
        raise ConfigError(where, str(error)) from error
    except FileNotFoundError as error:
        raise ConfigError(
            where, f"there is no file {path}", do=configs_near(path, besides=str(where).rpartition(":")[0])
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            path,
            "this is no text that can be read",
            expected=NOT_TEXT,
            found=f"byte 0x{error.object[error.start]:02x} at {error.start}",
            do="Save it as UTF-8 in your editor.",
        ) from error
    except OSError as error:
        who = "" if where == path else f"{path}: "
        do = "See who may read it." if isinstance(error, PermissionError) else ""
        raise ConfigError(where, f"{who}this cannot be read ({error.strerror})", do=do) from error


def refuse_circle(path: Path, chain: tuple[Path, ...], *, named_in: object) -> None:
    """Raise when a base is one of the files that lead to it, or when there is no end to them."""
    if path in chain:
        circle = " -> ".join(str(file) for file in (*chain[chain.index(path) :], path))
        raise ConfigError(named_in, f"the bases go in a circle: {circle}")
    if len(chain) >= CHAIN:
        raise ConfigError(named_in, f"more than {CHAIN} files are based on one another")
