"""How recipes read their options: mistakes are explained, and what all recipes have is spelled once."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

from unbroken.errors import UsageError
from unbroken.launch.extension import POLICIES, USUAL
from unbroken.launch.job import Start

SEARCH_PATH = "UNBROKEN_SEARCH_PATH"
LONGEST_TAG = 100
NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f]')  # on Windows; a run folder may move there


class OptionParser(argparse.ArgumentParser):
    """Options whose mistakes are errors of the one family, with the nearest name; no abbreviations."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where to read on."""
        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        near = get_close_matches(unknown[1], self._option_string_actions, n=1) if unknown else []
        meant = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(self.prog, message, do=f"{meant}See `{self.prog} --help`.")


def add_common_options(parser: argparse.ArgumentParser, *, tag: str = "--tag") -> None:
    """Add the options of unbroken itself to a recipe's parser; `tag` is what its users call that one."""
    group = parser.add_argument_group("where to start from")
    names = dict.fromkeys((tag, "--tag"))
    group.add_argument(*names, dest="tag", type=file_name, help="name of the experiment; one folder each")
    group.add_argument("--fresh", action="store_true", help="start over; what is there moves into archive/")
    group.add_argument("--ckpt", type=Path, metavar="FILE", help="resume from exactly this file")
    group.add_argument(
        "--pretrained_model", type=Path, metavar="FILE", help="begin with the weights of this file (fine-tuning)"
    )
    group.add_argument(
        "--strict",
        action="store_true",
        help="do not fine-tune if one tensor of the model or of the file would be left over",
    )
    group.add_argument(
        "--search", type=Path, action="append", default=[], metavar="DIR", help="look for copies of this run here"
    )
    group.add_argument(
        "--accept-change", action="append", default=[], metavar="KEY", help="go on although this key changed"
    )
    group.add_argument(
        "--on-extend",
        choices=POLICIES,
        default="",
        help=f"how the learning rate goes on when a finished run is asked for more (default: {USUAL})",
    )

    session = parser.add_argument_group("how long this session may be")
    session.add_argument(
        "--session", type=duration_s, metavar="TIME", help="stop in time, with everything saved (12h, 90m, 1h30m)"
    )
    session.add_argument(
        "--reserve", type=duration_s, default=0.0, metavar="TIME", help="be done this long before (10m; default: 0)"
    )


def session_times(options: argparse.Namespace) -> dict[str, float | None]:
    """How long the session may be, and how long before its end it has to be done; UsageError if nothing is left."""
    if options.session is not None and options.session <= options.reserve:
        raise UsageError(
            "--session",
            "no time is left to train in",
            expected=f"more than --reserve, which is {options.reserve:g} s",
            found=f"{options.session:g} s",
        )
    return {"session_s": options.session, "reserve_s": options.reserve}


def duration_s(text: str) -> float:
    """`12h`, `90m`, `1h30m`, `45s` or a bare number of seconds, in seconds."""
    found = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s?)?", text.strip().lower())
    if found is None or not any(found.groups()):
        raise argparse.ArgumentTypeError(f"expected a time like 12h, 90m or 1h30m, found {text!r}")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 3600 + minutes * 60 + seconds


def file_name(text: str) -> str:
    """A tag: the name of a folder on every system."""
    if not text or text in (".", "..") or len(text) > LONGEST_TAG or NOT_IN_NAMES.search(text) or text[-1] in " .":
        raise argparse.ArgumentTypeError(
            f"expected the name of one folder (letters, digits, - _ . and the like, at most {LONGEST_TAG}), "
            f"found {text[:60]!r}"
        )
    return text


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
    require_file_for_strict("--strict", strict=options.strict, weights=options.pretrained_model or weights)
    return Start(
        fresh=options.fresh,
        exact=options.ckpt,
        origin=origin,
        weights=options.pretrained_model or weights,
        strict=options.strict,
        search=(*options.search, *found),
        accepted=frozenset(options.accept_change),
        on_extend=options.on_extend,
    )


def require_file_for_strict(where: str, *, strict: bool, weights: object) -> None:
    """Raise UsageError when fine-tuning is to be strict and there is no file to fine-tune from."""
    if strict and not weights:
        raise UsageError(
            where,
            "it is about a file to fine-tune from, and none is named",
            expected="pretrained_model, or load_from with resume=False in a config",
            do="Leave it out: resuming is strict in any case, it takes every tensor or refuses.",
        )
