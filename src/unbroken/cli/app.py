"""All commands, and the way into them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import typer

from unbroken import __version__
from unbroken.cli import commands_keep, commands_look, commands_train
from unbroken.cli.parser import Names
from unbroken.errors import UsageError
from unbroken.option_parser import EMPTY
from unbroken.storage import require_local

EPILOG = """\b
Begin with:  unbroken demo aerial      (everything shown, in about a minute of a CPU)
         or  unbroken demo sonar       (the same with boxes in point clouds, in about four on two cores)
Then:        unbroken train RECIPE CONFIG, and after any interruption the same command again.

\b
Exit codes: 0 done, 1 fault of ours, 2 wrong usage or config, 10 refused, 11 held by another process,
12 damaged files or failing saves, 13 incompatible config, 14 written by a newer version, 15 not exact (prove),
75 stopped and resumable, 130 interrupted at once.
"""

NOT_A_NUMBER = r"(?<=: )Input should be a valid (integer|number).*"
NUMBERS = {"integer": "expected a whole number", "number": "expected a number"}
# Commands of other programs, and what they are here.
MEANT = {
    **dict.fromkeys(
        ("resume", "continue", "start", "run", "fit"), "unbroken train RECIPE CONFIG (it resumes by itself)"
    ),
    **dict.fromkeys(("list", "dir", "runs"), "unbroken ls"),
    **dict.fromkeys(("status", "info", "describe"), "unbroken show RUN, or unbroken inspect FILE"),
    **dict.fromkeys(("kill", "abort", "cancel"), "unbroken stop RUN"),
    **dict.fromkeys(("rm", "remove", "delete", "clean"), "unbroken prune RUN"),
    **dict.fromkeys(("copy", "cp", "save", "sync"), "unbroken backup RUN DEST"),
    **dict.fromkeys(("zip", "export"), "unbroken pack RUN OUT"),
    **dict.fromkeys(("unzip", "extract", "import"), "unbroken unpack FILE"),
    **dict.fromkeys(("diff",), "unbroken compare RUN RUN"),
    **dict.fromkeys(("plan", "dry-run", "explain"), "unbroken why RECIPE CONFIG"),
    **dict.fromkeys(("tail", "follow", "progress"), "unbroken watch RUN"),
    "version": f"version {__version__}",
    "help": "unbroken --help",
}

app = typer.Typer(
    name="unbroken",
    help="Long trainings out of short, interruptible sessions, as if they had never been interrupted.",
    epilog=EPILOG,
    context_settings=Names,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for part in (commands_train, commands_look, commands_keep):
    app.add_typer(part.commands)


def run(words: Sequence[str], *, typed: Sequence[str] | None) -> int:
    """Run one command; what the parser complains of becomes an error of the one family."""
    recipe = words[:1] in (["train"], ["why"], ["check"], ["prove"])  # what follows is for the recipe, or a program
    for option, word in zip(("", *words), words):
        if option == "--note":  # which may be empty, or an address
            continue
        if not word.strip() and not recipe:
            raise UsageError(
                f"unbroken {words[0]}".strip(), "a word is empty", expected="a value", found="nothing", do=EMPTY
            )
        require_local(word)
    try:
        result = app(args=list(words), prog_name="unbroken", standalone_mode=False, obj={"typed": typed})
        return result if isinstance(result, int) else 0
    except typer.Abort:
        return 1
    except Exception as error:
        if hasattr(error, "exit_code") and hasattr(error, "format_message"):
            raise _usage_error(error) from error
        raise


def _usage_error(error: Any) -> UsageError:
    """What the parser of commands complains of, in the words of this family, with where to read on."""
    where = getattr(error.ctx, "command_path", "unbroken") if getattr(error, "ctx", None) else "unbroken"
    said = re.sub(NOT_A_NUMBER, lambda found: NUMBERS[found[1]], error.format_message())
    do = f"See `{where} --help`."
    if unknown := re.match(r"No such (?:command|option):? '?([^' ]+)'?\.", said):
        said, _, near = said.partition(" Did you mean ")
        meant = _command_meant(unknown[1]) if where == "unbroken" else ""
        do = f"{meant or (f'Did you mean {near.rstrip(chr(46))}' if near else '')} {do}".strip()
    return UsageError(where, said, do=do)


def _command_meant(word: str) -> str:
    """What to type for a command of other programs, or where `train` was left out."""
    from unbroken.config import SUFFIXES
    from unbroken.launch.recipes import installed

    if word in installed():
        return f"Type: unbroken train {word} CONFIG."
    if word.endswith(SUFFIXES):
        return f"Type: unbroken train RECIPE {word}, where RECIPE is {' or '.join(installed())}."
    meant = MEANT.get(word.strip("-").lower())
    return f"Here that is: {meant}." if meant else ""
