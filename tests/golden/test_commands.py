"""Every command, argument and option, with what it is where it is left out: scripts that are in use depend on them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import focalsst.recipes
import mapsage.recipes
from unbroken.cli.tree import COMMANDS, parser_of

TABLE = Path(__file__).with_name("commands.txt")


def lines(title: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """One parser: what it takes, then its options by name."""
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    arguments = []
    for action in shown:
        if not action.option_strings:
            name = str(action.metavar or action.dest.upper()).removesuffix("...")
            form = {None: "{}", "?": "[{}]", "+": "{}...", "*": "[{}...]"}[action.nargs]  # type: ignore[index]  # no other
            arguments.append(form.format(name))
    yield " ".join([title, *arguments])
    options = []
    for action in shown:
        if action.option_strings:
            takes = "" if action.nargs == 0 else " VALUE"
            usual = f" (default {action.default})" if takes and action.default not in (None, "", [], 0) else ""
            options.append(f"  {', '.join(sorted(action.option_strings))}{takes}{usual}")
    yield from sorted(options)


def test_every_command_and_option_is_as_the_table_says() -> None:
    found = [line for name in COMMANDS for line in lines(f"unbroken {name}", parser_of(name))]
    for name, recipe in (("focalsst", focalsst.recipes), ("mapsage", mapsage.recipes)):
        found += lines(f"unbroken train {name}", recipe.parser())
    assert found == TABLE.read_text("utf-8").splitlines()
