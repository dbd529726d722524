"""Configs as values: read without being executed, checked in one go, compared by what a change does.

The words of this room:

- **config file**: what the user wrote, in one of two languages: Python syntax (`.py`, with `_base_`) or YAML
  (with `_BASE_CONFIG_`). Both are only *read*: a Python config is evaluated from its syntax tree, never run.
- **tree**: the plain data of a config file after its bases are merged in: dicts, lists, tuples, strings,
  numbers, booleans, None. **key**: a dotted path into it, digits for positions in a list
  (`train_dataloader.dataset.pipeline.2.scale`).
- **place**: the file and line where a key was written, so that every complaint can point at it.
- **override**: a value from the command line: `--set` (for keys that exist) or `--cfg-options` (for any).
- **section**: one frozen, typed part of an app's schema. **schema**: the section that all others hang from.
- **effect**: what changing a key does to a run that already has weights. **shape**: they no longer fit.
  **meaning**: they fit, but stand for something else. **data**: they continue, on other samples.
  **schedule**: they continue, at another pace. **free**: nothing. **ignored**: nothing reads it.
- **canonical**: a validated config as JSON-able data with every default filled in and every ignored key left
  out; two configs mean the same when their canonical forms are equal.
- **change**: one key that differs between two canonical forms, with both values and its effect.
- **difference**: one key that is not the same in all of several configs, with the value of each.
- **misfit**: settings that are right alone and wrong together, found by a section's own `misfits`.

Flow: `read_config` -> `set_values` / `merge_options` -> `validate` -> `changes`. What needs pydantic
(`Section` and what works on it) is loaded on first use, so that importing this room costs nothing.

Touches nothing (config files are read).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from unbroken.config.cached import validate_cached
from unbroken.config.config_file import ConfigFile, Place
from unbroken.config.difference import (
    ABSENT,
    Absent,
    Change,
    Difference,
    changes,
    differences,
    keys_of,
    same,
    value_at,
    worst,
)
from unbroken.config.effect import Effect, Effects, Instead, Since
from unbroken.config.nearest import SUFFIXES, nearest, other_parts
from unbroken.config.overrides import merge_options, set_values
from unbroken.config.read import read_config
from unbroken.config.validated import Validated
from unbroken.errors import ConfigError

if TYPE_CHECKING:
    from unbroken.config.python_file import read_python_text
    from unbroken.config.schema import Misfit, Section, check_schema, effects
    from unbroken.config.validation import canonical, readable_parts, validate
    from unbroken.config.values import Count, Fraction, FromZero, NotNegative, OrOne, Positive, Rate, built, only
else:
    _LOADED_ON_FIRST_USE = {
        "Section": "schema",
        "Misfit": "schema",
        "effects": "schema",
        "check_schema": "schema",
        "canonical": "validation",
        "readable_parts": "validation",
        "validate": "validation",
        "read_python_text": "python_file",
        **dict.fromkeys(
            ("Count", "Fraction", "FromZero", "NotNegative", "OrOne", "Positive", "Rate", "built", "only"), "values"
        ),
    }

    def __getattr__(name: str) -> object:
        """Load the pydantic half of this room when it is first asked for."""
        if name not in _LOADED_ON_FIRST_USE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_LOADED_ON_FIRST_USE[name]}"), name)


__all__ = [
    "ABSENT",
    "SUFFIXES",
    "Absent",
    "Change",
    "ConfigError",
    "ConfigFile",
    "Count",
    "Difference",
    "Effect",
    "Effects",
    "Fraction",
    "FromZero",
    "Instead",
    "Misfit",
    "NotNegative",
    "OrOne",
    "Place",
    "Positive",
    "Rate",
    "Section",
    "Since",
    "Validated",
    "built",
    "canonical",
    "changes",
    "check_schema",
    "differences",
    "effects",
    "keys_of",
    "merge_options",
    "nearest",
    "only",
    "other_parts",
    "read_config",
    "read_python_text",
    "readable_parts",
    "same",
    "set_values",
    "validate",
    "validate_cached",
    "value_at",
    "worst",
]
