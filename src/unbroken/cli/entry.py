"""The way in: one command line in, one exit code out; what every command does with an error.

`why`, `train` and `ls` take this way without the parser of commands: the options of the first two are the recipe's, and
it would cost `why` a quarter of its time and `ls` more than all the rest.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from unbroken.errors import INTERRUPTED_TWICE, UnbrokenError, UsageError


def main(arguments: Sequence[str] | None = None, *, typed: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code. `typed` is what to tell the user to type again."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    hint = ": what was saved is whole, run the same command again" if words[:1] == ["train"] else ""
    return _guarded(lambda: _run(words, typed or ["unbroken", *words]), as_json="--json" in words, hint=hint)


def run(arguments: Sequence[str] | None = None, *, typed: Sequence[str] | None = None) -> NoReturn:
    """Run one command line as the whole of a process, and end it.

    An interpreter that has torch in it takes about a second to take itself apart, under load several: that would be
    part of every limited session and of every grace period. Whatever counts is on disk by then, so it just ends.
    """
    code = main(arguments, typed=typed)
    if "torch" not in sys.modules:
        raise SystemExit(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader may have gone
            stream.flush()
    os._exit(code)


def run_tool(tool: Callable[[Sequence[str]], int]) -> int:
    """Run an application's own tool on what was typed after its name, its errors told as those of any command."""
    hint = ": what was written is whole, run the same command again"
    return _guarded(lambda: tool(sys.argv[1:]), as_json=False, hint=hint)


def _guarded(command: Callable[[], int], *, as_json: bool, hint: str) -> int:
    try:
        return command()
    except UnbrokenError as error:
        _complain(error, as_json=as_json)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"interrupted at once{hint}", file=sys.stderr)
        return INTERRUPTED_TWICE
    except SystemExit as ending:
        return int(ending.code) if isinstance(ending.code, int) else 1
    except BrokenPipeError:
        return _reader_gone()
    except Exception:  # noqa: BLE001 - the one place that may: everything else is a fault of ours
        import traceback

        traceback.print_exc()
        print("\nThis is a fault of unbroken or of the training code; no checkpoint was harmed.", file=sys.stderr)
        return 1


def _run(words: list[str], typed: Sequence[str]) -> int:
    match words:
        case []:
            from unbroken.cli.app import run

            run(["--help"], typed=typed)
            return UsageError.exit_code
        case ["why", recipe, *rest] if not recipe.startswith("-"):
            from unbroken.cli.train import why_command

            return why_command(recipe, rest)
        case ["train", recipe, *rest] if not recipe.startswith("-"):
            from unbroken.cli.train import train_command

            return train_command(recipe, rest, typed=typed)
        case ["ls", *rest]:
            from unbroken.cli.ledger import list_command

            return list_command(rest)
        case _:
            from unbroken.cli.app import run

            return run(words, typed=typed)


def _reader_gone() -> int:
    """Whoever read our output has ended (`| head`); Python must not complain of it once more at exit."""
    sys.stdout = Path("/dev/null").open("w") if Path("/dev/null").exists() else sys.stderr  # noqa: SIM115 - open to the end
    print("unbroken: standard output was closed by its reader", file=sys.stderr)
    return 1


def _complain(error: UnbrokenError, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(error.as_data(), ensure_ascii=False))
    else:
        print(error, file=sys.stderr)
