"""`demo` and `data`: what applications offer for trying things out, found by entry point."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from shlex import quote
from typing import Any

from unbroken.cli.args import CommandParser
from unbroken.errors import UsageError

DEMOS, DATA = "unbroken.demos", "unbroken.data"


def demo_options(parser: CommandParser) -> None:
    """A story, and where it is played."""
    parser.add_argument(
        "story", nargs="?", default="", metavar="STORY", help=f"which one: {_names(DEMOS)} (default: the first)"
    )
    parser.add_argument("--dir", type=Path, metavar="DIR", help="where to play (default: demo/STORY)")
    parser.add_examples("unbroken demo", "unbroken demo STORY --dir /tmp/demo")


def demo_command(options: argparse.Namespace) -> int:
    """The whole story on made-up data: train, be killed, resume, compare with a run that was not."""
    story = options.story or next(iter(offers(DEMOS)), "")
    tell = _offer("demo", DEMOS, story)
    code = int(tell(options.dir or Path("demo") / story, say=_say))
    if hint := where_the_command_is():
        _say(f"\n{hint}")
    return code


def where_the_command_is() -> str:
    """How to make `unbroken` a command of this terminal, where it is none: it lies in an environment of its own."""
    here = Path(sys.executable).parent
    if Path(shutil.which("unbroken") or "").parent == here or not (here / "activate").is_file():
        return ""
    folder = here.relative_to(Path.cwd()) if here.is_relative_to(Path.cwd()) else here
    activate = f"{folder}\\activate" if os.name == "nt" else f"source {quote(str(folder / 'activate'))}"
    return f"to type `unbroken` in this terminal: {activate}"


def data_options(parser: CommandParser) -> None:
    """A kind of data, and where it goes."""
    parser.add_argument("kind", metavar="KIND", help=f"which one: {_names(DATA)}")
    parser.add_argument("folder", type=Path, metavar="DIR", help="an empty or new folder")
    parser.add_examples("unbroken data KIND data/sample")


def data_command(options: argparse.Namespace) -> None:
    """Write a small sample data set in the real layout."""
    write = _offer("data", DATA, options.kind)
    _say(f"sample data for {options.folder}: this can take a minute")
    write(options.folder, say=_say)


def _say(line: str) -> None:
    print(line, flush=True)


def offers(group: str) -> dict[str, EntryPoint]:
    """What the installed applications offer of a kind, by name."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda point: point.name)}


def _names(group: str) -> str:
    return " or ".join(offers(group))


def _offer(command: str, group: str, name: str) -> Any:
    known = offers(group)
    if name not in known:
        raise UsageError(
            f"unbroken {command}",
            "no installed application offers this",
            expected=" or ".join(known) or "an application with an entry point for it",
            found=name,
            do=f"See `unbroken {command} --help`.",
        )
    return known[name].load()
