"""What the options of several commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from unbroken.cli.named_runs import run_named, runs_named

Json = Annotated[bool, typer.Option("--json", help="Print data instead of text.")]
Names = {"help_option_names": ["-h", "--help"]}
PASSING = {**Names, "allow_extra_args": True, "allow_interspersed_args": False}  # what follows RECIPE is the recipe's
A_RUN = "A run's folder, or the tag of a run below the current folder."
Run = Annotated[Path, typer.Argument(metavar="RUN", help=A_RUN, callback=run_named)]
PATHS = typer.Argument(
    metavar="PATH...", help="Files, runs (folders or tags), or folders of checkpoints.", callback=runs_named
)
RUNS = typer.Argument(metavar="RUN...", help="Runs (folders or tags), or folders with runs.", callback=runs_named)
RECIPE = typer.Argument(
    metavar="RECIPE",
    help="An installed recipe, or package.module:name; then its CONFIG and options.",
    show_default=False,
)
