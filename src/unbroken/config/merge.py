"""Laying one tree over another: mappings merge key by key, everything else replaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unbroken.config.config_file import Place
from unbroken.errors import ConfigError

DELETE = "_delete_"


def merge(
    base: Mapping[str, Any], own: Mapping[str, Any], places: Mapping[str, Place], key: str = ""
) -> dict[str, Any]:
    """Lay `own` over `base`; `_delete_=True` in a mapping drops what the base had there.

    `places` says where the keys of `own` were written, for the error when a mapping meets something else.
    """
    merged = dict(base)
    for name, value in own.items():
        full = f"{key}.{name}" if key else str(name)
        if name in base and _merges(value):
            _refuse_unless_mapping(base[name], places.get(full, full), full)
            merged[name] = merge(base[name], _without_mark(value), places, full)
        else:
            merged[name] = without_marks(value)
    return merged


def merged_places(base: Mapping[str, Place], own: Mapping[str, Place], own_tree: Mapping[str, Any]) -> dict[str, Place]:
    """Say where each key of a merged tree was written: what `own` replaced is not placed in the base."""
    return {key: place for key, place in base.items() if not _is_replaced(key, own_tree)} | dict(own)


def without_marks(value: Any) -> Any:
    """Take the `_delete_` marks out of a value that meets no base."""
    if isinstance(value, dict):
        return {name: without_marks(part) for name, part in _without_mark(value).items()}
    return type(value)(map(without_marks, value)) if isinstance(value, list | tuple) else value


def _merges(value: Any) -> bool:
    return isinstance(value, dict) and not value.get(DELETE, False)


def _without_mark(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part for name, part in value.items() if name != DELETE}


def _refuse_unless_mapping(below: Any, where: object, key: str) -> None:
    if not isinstance(below, dict):
        raise ConfigError(
            where,
            f"`{key}` is a mapping here and something else in the base",
            expected=f"something like {below!r:.60}",
            found="a mapping",
            do=f"Put `{DELETE}=True` into it to replace what the base has.",
        )


def _is_replaced(key: str, own_tree: Mapping[str, Any]) -> bool:
    here: Any = own_tree
    for part in key.split("."):
        if not isinstance(here, dict) or part not in here:
            return False
        here = here[part]
        if not _merges(here):
            return True
    return False
