"""All commands, and the way into them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from unbroken.cli import commands_keep, commands_look, commands_train
from unbroken.cli.parser import Names
from unbroken.errors import UsageError
from unbroken.values import require_local

EPILOG = """\b
Begin with:  unbroken demo aerial      (everything shown in about two minutes, on a CPU)
         or  unbroken demo sonar       (the same with boxes in point clouds, in about four)
Then:        unbroken train RECIPE CONFIG, and after any interruption the same command again.

\b
Exit codes: 0 done, 1 fault of ours, 2 wrong usage or config, 10 refused, 11 held by another process,
12 damaged files or failing saves, 13 incompatible config, 14 written by a newer version, 75 stopped and resumable,
130 interrupted at once.
"""

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
    for word in words if words[:1] != ["pin"] else ():  # whose --note may be an address
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
    return UsageError(where, error.format_message(), do=f"See `{where} --help`.")
