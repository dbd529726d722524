"""What was meant where the recipe was left out, stands behind its config, or is that of another application."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unbroken.config import SUFFIXES
from unbroken.errors import UnbrokenError, UsageError
from unbroken.launch.recipes import find_recipe, installed
from unbroken.launch.rerun import joined


def recipe_left_out(word: str, arguments: Sequence[str], environment: Mapping[str, Any]) -> UsageError | None:
    """Where a config, or what begins like an option, stands in the place of a recipe: which command was meant."""
    if Path(word).suffix not in SUFFIXES:
        return None
    behind = next((each for each in arguments if each in installed()), "")
    others = [each for each in arguments if each != behind]
    recipes = [behind] if behind else _that_read(word, environment)
    command = environment["program"].rpartition(" ")[0]
    said = [f"{command} {joined([recipe, word, *others])}" for recipe in recipes or ["RECIPE"]]
    return UsageError(
        word,
        "this is a config, and the recipe that reads it stands before it",
        expected=" or ".join(installed()),
        do=f"Type: {' or: '.join(said)}",
    )


def config_of_another(recipe: str, arguments: Sequence[str], environment: Mapping[str, Any]) -> UsageError | None:
    """Where the config is one of another recipe: of which."""
    config = next((word for word in arguments if Path(word).suffix in SUFFIXES and Path(word).is_file()), "")
    others = _that_read(config, environment, besides=recipe) if config else []
    if not others or recipe not in installed():
        return None
    command = environment["program"].rpartition(" ")[0]
    return UsageError(
        config,
        f"this is no config of {recipe}, but one of {' or '.join(others)}",
        do=f"Type: {command} {joined([others[0], config])}" if command.startswith("unbroken") else "",
    )


def _that_read(config: str, environment: Mapping[str, Any], *, besides: str = "") -> list[str]:
    """The recipes to which this is a sound config; only looks."""
    found = []
    for name in installed():
        try:
            if name != besides:
                find_recipe(name).read([config], environment)
                found.append(name)
        except (UnbrokenError, SystemExit, OSError):
            continue
    return found
