"""The options that every recipe has, spelled once."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unbroken.launch.job import Start

SEARCH_PATH = "UNBROKEN_SEARCH_PATH"


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of unbroken itself to a recipe's parser."""
    group = parser.add_argument_group("where to start from")
    group.add_argument("--tag", help="name of the experiment; one folder each")
    group.add_argument("--fresh", action="store_true", help="start over; what is there moves into archive/")
    group.add_argument("--ckpt", type=Path, metavar="FILE", help="resume from exactly this file")
    group.add_argument(
        "--pretrained_model", type=Path, metavar="FILE", help="begin with the weights of this file (fine-tuning)"
    )
    group.add_argument(
        "--search", type=Path, action="append", default=[], metavar="DIR", help="look for copies of this run here"
    )
    group.add_argument(
        "--accept-change", action="append", default=[], metavar="KEY", help="go on although this key changed"
    )


def start_from(
    options: argparse.Namespace,
    environment: Mapping[str, Any],
    *,
    origin: Path | None = None,
    weights: Path | None = None,
) -> Start:
    """The start that the options ask for; `origin` and `weights` are what the config names."""
    listed = str(environment.get(SEARCH_PATH, ""))
    found = [Path(folder) for folder in listed.split(os.pathsep) if folder]
    return Start(
        fresh=options.fresh,
        exact=options.ckpt,
        origin=origin,
        weights=options.pretrained_model or weights,
        search=(*options.search, *found),
        accepted=frozenset(options.accept_change),
    )
