"""A config in YAML, with every `_BASE_CONFIG_` merged in."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unbroken.config.config_file import ConfigFile, Place
from unbroken.config.meter import Meter, TooMuch
from unbroken.config.source_text import read_text, refuse_circle
from unbroken.config.yaml_text import load
from unbroken.errors import ConfigError
from unbroken.storage import is_ordinary

BASE = "_BASE_CONFIG_"


def read_yaml(path: Path) -> ConfigFile:
    """Read a YAML config; a mapping with `_BASE_CONFIG_: file` starts from that file, its own keys on top."""
    return _read(path, Meter(), chain=(), named_in="")


def _read(path: Path, meter: Meter, *, chain: tuple[Path, ...], named_in: object) -> ConfigFile:
    resolved = path.resolve()
    refuse_circle(resolved, chain, named_in=named_in)
    own, own_places = load(read_text(path, meter, named_in=named_in), path, meter)
    overlay = _Overlay(path=path, own_places=own_places, meter=meter, chain=(*chain, resolved))
    tree = overlay.laid_over({}, own, "")
    return ConfigFile(
        path=path,
        tree=tree,
        places=overlay.places | own_places,
        sources=tuple(dict.fromkeys((path, *overlay.sources))),
    )


@dataclass(frozen=True, kw_only=True)
class _Overlay:
    """One file on its way over the bases it names; `places` and `sources` collect what the bases bring."""

    path: Path
    own_places: dict[str, Place]
    meter: Meter
    chain: tuple[Path, ...]
    places: dict[str, Place] = field(default_factory=dict)
    sources: list[Path] = field(default_factory=list)

    def laid_over(self, below: dict[str, Any], own: dict[str, Any], key: str) -> dict[str, Any]:
        """Update `below` with the base that `own` names, one level deep, then merge `own` on top of both."""
        merged = dict(below)
        if BASE in own:
            merged |= self._based(own[BASE], key)
        for name, value in own.items():
            if name != BASE:
                merged[name] = self._merged(merged.get(name), value, _join(key, name))
        return merged

    def _merged(self, below: Any, value: Any, key: str) -> Any:
        if not isinstance(value, dict):
            self._forget(key)
            return value
        if not isinstance(below, dict | None):
            raise ConfigError(
                self.own_places.get(key, self.path),
                f"`{key}` is a mapping here and something else in the base",
                expected=f"something like {below!r:.60}",
                found="a mapping",
            )
        return self.laid_over(below or {}, value, key)

    def _based(self, named: Any, key: str) -> dict[str, Any]:
        place = self.own_places.get(_join(key, BASE), Place(self.path))
        base = _read(find_base(named, self.path, place), self.meter, chain=self.chain, named_in=place)
        self.sources.extend(base.sources)
        for name in base.tree:
            self._forget(_join(key, name))
        self.places.update({_join(key, inside): found for inside, found in base.places.items()})
        return base.tree

    def _forget(self, key: str) -> None:
        try:
            self.meter.spend(len(self.places) // 10)
        except TooMuch as error:
            raise ConfigError(self.own_places.get(key, self.path), str(error)) from error
        for replaced in [known for known in self.places if known == key or known.startswith(f"{key}.")]:
            del self.places[replaced]


def find_base(named: Any, path: Path, place: Place) -> Path:
    """Look for a base beside the file that names it, in each folder above, then in the current folder.

    The folders above come first, so that a file in an application's tree has the same base wherever one stands.
    """
    if not isinstance(named, str):
        raise ConfigError(place, f"`{BASE}` is the path of a file", found=repr(named))
    relative = Path(named.replace("\\", "/"))
    tried = [folder / relative for folder in (*path.absolute().parents, Path.cwd())]
    for candidate in tried:
        if is_ordinary(candidate):
            return candidate
    listed = "".join(f"\n  {candidate}" for candidate in dict.fromkeys(tried))
    raise ConfigError(place, f"the base {named} is in none of the places tried:{listed}")


def _join(key: str, name: object) -> str:
    return f"{key}.{name}" if key else str(name)
