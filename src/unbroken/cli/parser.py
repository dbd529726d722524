"""What the options of several commands have in common."""

from __future__ import annotations

from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print data instead of text.")]
Names = {"help_option_names": ["-h", "--help"]}
PASSING = {**Names, "allow_extra_args": True, "allow_interspersed_args": False}  # what follows RECIPE is the recipe's
RECIPE = typer.Argument(
    metavar="RECIPE",
    help="An installed recipe, or package.module:name; then its CONFIG and options.",
    show_default=False,
)
