"""The way in: one command line in, one exit code out; what every command does with an error."""

from __future__ import annotations

import errno
import io
import json
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import NoReturn

from unbroken.errors import INTERRUPTED_TWICE, DamagedFile, NotInstalled, SaveFailed, UnbrokenError, UsageError
from unbroken.text import ESCAPED

LONGEST_NAME = 200
EXTRAS = {  # what a training can do without, and the extra of pyproject.toml that brings it
    **dict.fromkeys(("cv2", "PIL"), "apps"),
    **dict.fromkeys(("tensorboard", "google", "plotly", "matplotlib"), "report"),
}
CIRCLE = "Symlink loop from "  # what pathlib says before Python 3.13, as a RuntimeError
# What a person's or a stranger's file can be like; anything else that a system call says is a fault of ours.
REFUSED_BY_SYSTEM = frozenset(
    ("EACCES", "EPERM", "ENAMETOOLONG", "ELOOP", "ENOTDIR", "EISDIR", "EROFS", "EINVAL", "ESTALE", "EFBIG")
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line, by default that of this process; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    return _main(words, typed=None if arguments is None else ["unbroken", *words])


def _main(words: list[str], *, typed: Sequence[str] | None) -> int:
    """The same; `typed` is what to tell the user to type again, None: as this process was started."""
    from unbroken.cli import tree

    hint = ": what was saved is whole, run the same command again" if words[:1] == ["train"] else ""
    return _guarded(
        lambda: tree.run(words, typed=typed),
        as_json="--json" in words,
        hint=hint,
        is_training=words[:1] == ["train"],
    )


def run(*recipe: str) -> NoReturn:
    """Run what was typed as the whole of a process, and end it: for the scripts of an application.

    An interpreter that has torch in it takes about a second to take itself apart, under load several: that would be
    part of every limited session and of every grace period. Whatever counts is on disk by then, so it just ends.

    Args:
        *recipe: Words that go before what was typed: `"train", NAME` in a recipe's own script.
    """
    code = _main([*recipe, *sys.argv[1:]], typed=None)
    if "torch" not in sys.modules:
        raise SystemExit(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader may have gone
            stream.flush()
    os._exit(code)


def run_tool(tool: Callable[[Sequence[str]], int]) -> int:
    """Run an application's own tool on what was typed after its name, its errors told as those of any command.

    Args:
        tool: Takes the words and returns an exit code.
    Returns:
        The exit code for `sys.exit`.
    """
    hint = ": what was written is whole, run the same command again"
    return _guarded(lambda: tool(sys.argv[1:]), as_json=False, hint=hint)


def _guarded(command: Callable[[], int], *, as_json: bool, hint: str, is_training: bool = False) -> int:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may have no Chinese, and no encoding has half a character
            with suppress(OSError, ValueError):  # closed, or not what it was when it was opened
                stream.reconfigure(errors=ESCAPED)
    try:
        try:
            code = _heard(command) if is_training else command()
        except SystemExit as ending:  # of a parser that has shown its help, or a stop while nothing is open
            code = int(ending.code) if isinstance(ending.code, int) else 1
        try:
            if sys.stdout is not None:  # closed by who started us: then nobody wants to read it
                sys.stdout.flush()  # here, where what that may say is still answered
        except BrokenPipeError:
            _turn_away()
        return code
    except UnbrokenError as error:
        return _complain(error, as_json=as_json)
    except KeyboardInterrupt:
        print(f"interrupted at once{hint}", file=sys.stderr)
        return INTERRUPTED_TWICE
    except BrokenPipeError:
        return _reader_gone(is_training=is_training)
    except OSError as error:
        return _system_said(error, as_json=as_json, is_training=is_training)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            return _fault()
        install = f"Type: pip install 'unbroken[{EXTRAS[package]}]'"
        return _complain(NotInstalled(package, "this package is not installed here", do=install), as_json=as_json)
    except RuntimeError as error:
        if not str(error).startswith(CIRCLE):
            return _fault()
        return _complain(UsageError(str(error)[len(CIRCLE) :].strip("' "), "links lead in a circle"), as_json=as_json)
    except Exception:  # noqa: BLE001 - the one place that may: everything else is a fault of ours
        return _fault()


def _heard(command: Callable[[], int]) -> int:
    """A training that is asked to stop before a session listens ends by that."""
    from unbroken.cli.signals import ended_when_asked  # what only looks does without

    with ended_when_asked():
        return command()


def _fault() -> int:
    import traceback

    traceback.print_exc()
    print("\nThis is a fault of unbroken or of the training code; no checkpoint was harmed.", file=sys.stderr)
    return 1


def _system_said(error: OSError, *, as_json: bool, is_training: bool) -> int:
    """Answer what the operating system says: of our output, or of a file that was named, which is no fault of ours."""
    from unbroken.storage.files import DISK_TROUBLE
    from unbroken.storage.ordinary import NotOrdinary

    if error.filename is None and error.errno in DISK_TROUBLE:
        return _cannot_print(f"standard output cannot be written ({error.strerror})", exit_code=SaveFailed.exit_code)
    named = DISK_TROUBLE | {getattr(errno, name) for name in REFUSED_BY_SYSTEM if hasattr(errno, name)}
    if not isinstance(error, NotOrdinary) and (is_training or error.errno not in named):
        return _fault()
    where = next((str(name) for name in (error.filename2, error.filename) if name), "the disk")
    refused = DamagedFile(
        where if len(where) <= LONGEST_NAME else f"{where[:LONGEST_NAME]}...",
        f"the operating system refuses it ({error.strerror})",
        do="Look at the name, at who may read or write it, and where links lead.",
    )
    return _complain(refused, as_json=as_json)


def _turn_away() -> None:
    """Let standard output lead nowhere: its reader has gone, or its disk is full."""
    from unbroken.storage.files import turn_away

    turn_away()


def _reader_gone(*, is_training: bool) -> int:
    """Who has read enough (`| head`) is no failure; a training goes on without a reader, so it is another pipe."""
    if is_training:
        return _cannot_print("a pipe was closed by who should read from it", exit_code=1)
    _turn_away()
    return 0


def _cannot_print(why: str, *, exit_code: int) -> int:
    """Whoever read our output has ended (`| head`), or its disk is full; Python must not complain of it at exit."""
    _turn_away()
    with suppress(OSError, ValueError):
        print(f"unbroken: {why}", file=sys.stderr)
    return exit_code


def _complain(error: UnbrokenError, *, as_json: bool) -> int:
    if as_json:
        try:
            print(json.dumps(error.as_data(), ensure_ascii=False), flush=True)
        except OSError as failure:
            return _cannot_print(f"standard output cannot be written ({failure.strerror})", exit_code=error.exit_code)
    else:
        with suppress(OSError, ValueError):
            print(error, file=sys.stderr)
    return error.exit_code
