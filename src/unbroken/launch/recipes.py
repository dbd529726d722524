"""Recipes by name (entry points) or by Python address; the core knows no application."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import Any

from unbroken.config.nearest import nearest
from unbroken.errors import UsageError
from unbroken.launch.job import Environment, Job

RECIPES = "unbroken.recipes"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How an application turns a command line into a job; loading one loads no torch."""

    name: str  # as it is typed after `unbroken train`
    # makes the job of the words after the recipe's name and what surrounds the launch
    read: Callable[[Sequence[str], Environment], Job]
    usage: Callable[[], str]  # gives its help text
    # other scripts of the application, each with the address of a function that gives its help text
    tools: Mapping[str, str] = field(default_factory=dict)


def find_recipe(name: str) -> Recipe:
    """The recipe called `name`, or the one at the address `package.module:attribute`."""
    if ":" in name:
        found = load_attribute(name)
    else:
        installed = {point.name: point for point in entry_points(group=RECIPES)}
        if name not in installed:
            near = nearest(name, installed)
            raise UsageError(
                name,
                "there is no such recipe",
                expected=" or ".join([*sorted(installed), "package.module:attribute"]),
                do=(f"Did you mean {near}? " if near else "") + "See `unbroken train --help`.",
            )
        found = installed[name].load()
    if not isinstance(found, Recipe):
        raise UsageError(name, "this is not a recipe", expected="an unbroken.Recipe", found=type(found).__name__)
    return found


def installed() -> list[str]:
    """The recipes that come with installed packages."""
    return sorted(point.name for point in entry_points(group=RECIPES))


def load_attribute(address: str) -> Any:
    """The object at `package.module:attribute`."""
    module, _, attribute = address.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(
            address,
            f"the address cannot be loaded ({error})",
            expected="package.module:attribute",
            do="Check the spelling, and that the package is installed or the folder is on PYTHONPATH.",
        ) from error
