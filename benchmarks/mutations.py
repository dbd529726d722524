"""Spoiled files of every kind, thousands of each: python benchmarks/mutations.py [--kind K] [--count N] [--seed S]

Every case is a sound file that one of `mutators.py` has spoiled, put where it belongs and given to all who read it;
each so many cases also to one of the commands. It may be read, or refused by an UnbrokenError. Anything else is a
failure: another error, more than 5 seconds of this process's time, more than 1 GB of memory. A failure is printed with
its number, and its file is kept; the same seed, kind and number make it again: --first NUMBER --count 1 --commands 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import select
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from benchmarks.spoilable import Kind, build

from unbroken.cli import main as type_command
from unbroken.errors import UnbrokenError

MOST_S, MOST_BYTES = 5.0, 1 << 30
AT_ONCE = 250  # cases of one process: what a case leaves behind cannot reach further
SILENT_S = 120.0  # of wall time: a process that says nothing for so long hangs where no signal reaches it
FAULT = 1  # what a command ends with when the fault is ours


class TooLong(BaseException):
    """The time is up; no `except Exception` may swallow that."""


@dataclass
class Tally:
    """What became of the cases of one kind."""

    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, Any]] = field(default_factory=list)


def check(
    kind: str, *, home: Path, count: int, seed: int, first: int = 0, commands: int = 20, keep: Path | None = None
) -> Tally:
    """Spoil one kind of file `count` times; each `commands`-th case is also given to a command."""
    home.mkdir(parents=True)
    os.environ["UNBROKEN_CACHE"] = str(home / "cache")
    os.chdir(home)
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = build(home)[kind]
    for path in made.without:
        path.unlink()
    shutil.copytree(home, pristine := home.with_name(f"{home.name}-pristine"), symlinks=True)
    tally = Tally()
    numbers = range(first, first + count)
    for start in range(0, count, AT_ONCE):
        _in_child(kind, made, numbers[start : start + AT_ONCE], tally, seed=seed, commands=commands, keep=keep)
        for item in home.iterdir():
            shutil.rmtree(item) if item.is_dir() else item.unlink()
        shutil.copytree(pristine, home, symlinks=True, dirs_exist_ok=True)
    return tally


def _in_child(
    name: str, kind: Kind, numbers: Sequence[int], tally: Tally, *, seed: int, commands: int, keep: Path | None
) -> None:
    """Some cases in a process of their own, which a case may hang, fill or kill."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch has threads, and none of them holds what is needed
        child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as out:
            try:
                _cases(name, kind, numbers, out, seed=seed, commands=commands)
            finally:
                out.flush()
                os._exit(0)
    os.close(writing)
    at = None
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        for line in _lines(pipe):
            found = json.loads(line)
            if "begun" in found:
                at = found["begun"]
                continue
            at, tally.cases = None, tally.cases + 1
            tally.outcomes.update(found["outcomes"])
            for failure in found["failures"]:
                _note(tally, failure, kind, seed=seed, keep=keep)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    if at is not None:
        failure = {"kind": name, "number": at, "by": "the process", "what": "it hung or was killed"}
        _note(tally, failure, kind, seed=seed, keep=keep)
        rest = [number for number in numbers if number > at]
        if rest:
            _in_child(name, kind, rest, tally, seed=seed, commands=commands, keep=keep)


def _lines(pipe: Any) -> Iterator[bytes]:
    """What a child says, until it ends or is silent for too long."""
    waiting = b""
    while select.select([pipe], [], [], SILENT_S)[0]:
        block = pipe.read(1 << 16)
        if not block:
            return
        *whole, waiting = (waiting + block).split(b"\n")
        yield from whole


def _note(tally: Tally, failure: dict[str, Any], kind: Kind, *, seed: int, keep: Path | None) -> None:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        saved = keep / f"{failure['kind']}-{seed}-{failure['number']}-{kind.path.name}"
        saved.write_bytes(spoiled(kind, failure["kind"], failure["number"], seed=seed))
        failure["file"] = str(saved)
    tally.failures.append(failure)


def spoiled(kind: Kind, name: str, number: int, *, seed: int) -> bytes:
    """The content of one case."""
    chance = random.Random(f"{seed} {name} {number}")
    return chance.choice(kind.mutators)(kind.sound, chance)


def _cases(name: str, kind: Kind, numbers: Sequence[int], out: Any, *, seed: int, commands: int) -> None:
    signal.signal(signal.SIGPROF, _time_is_up)
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + 4 * MOST_BYTES, resource.RLIM_INFINITY))
    warnings.simplefilter("ignore")
    for number in numbers:
        print(json.dumps({"begun": number}), file=out, flush=True)
        chance = random.Random(f"{seed} {name} {number} commands")
        kind.path.write_bytes(spoiled(kind, name, number, seed=seed))
        by: list[tuple[str, Callable[[], object]]] = [
            (f"reader {place}", lambda read=read: read(kind.path)) for place, read in enumerate(kind.readers)
        ]
        if kind.commands and (number % commands == 0 or not by):
            by.append(_command(chance.choice(kind.commands), kind))
        outcomes, failures = Counter[str](), []
        for who, read in by:
            outcome, what = _tried(read)
            outcomes[outcome] += 1
            if what:
                failures.append({"kind": name, "number": number, "by": who, "what": what})
        print(json.dumps({"outcomes": outcomes, "failures": failures}), file=out, flush=True)


def _command(typed: str, kind: Kind) -> tuple[str, Callable[[], object]]:
    home = Path.cwd()
    shutil.rmtree(home / "new", ignore_errors=True)
    (home / "new.zip").unlink(missing_ok=True)
    places = {
        "RUN": home / "root" / "t",
        "ROOT": home / "root",
        "MIRROR": home / "mirror",
        "NEW": home / "new",
        "FILE": kind.path,
    }
    words = typed.split()
    for mark, place in places.items():
        words = [word.replace(mark, str(place)) if word.startswith(mark) else word for word in words]

    def run() -> str:
        errors = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
            code = type_command(words)
        if code == FAULT:
            raise AssertionError(errors.getvalue()[-3000:])
        return f"exit {code}"

    return f"unbroken {shlex.join(words)}", run


def _tried(read: Callable[[], object]) -> tuple[str, str]:
    """What became of it in a word, and, where it is a failure, what happened."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again
    before, begun = _status("VmRSS"), time.process_time()
    signal.setitimer(signal.ITIMER_PROF, MOST_S)
    try:
        found = read()
        outcome, what = found if isinstance(found, str) and found.startswith("exit ") else "read", ""
    except UnbrokenError as error:
        outcome, what = type(error).__name__, ""
        if len(str(error)) > 20_000:
            what = f"an error of {len(str(error)):,} characters"
    except TooLong:
        outcome, what = "FAILED", f"more than {MOST_S} s: {_where()}"
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what was looked for
        outcome, what = "FAILED", "".join(traceback.format_exception(error))[-3000:]
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    grown = _status("VmHWM") - before
    if not what and grown > MOST_BYTES:
        outcome, what = "FAILED", f"{grown:,} bytes of memory after {time.process_time() - begun:.1f} s"
    return outcome, what


def _where() -> str:
    return "".join(traceback.format_exc())[-2500:]


def _time_is_up(_signal: int, _frame: FrameType | None) -> None:
    raise TooLong


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> int:
    """Print a line for each kind, and every failure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", action="append", help="a kind of file; all kinds when left out")
    parser.add_argument("--count", type=int, default=1000, help="cases of each kind")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="the number of the first case")
    parser.add_argument("--commands", type=int, default=20, help="each so many cases are given to a command too")
    parser.add_argument("--keep", type=Path, default=Path("mutations"), help="where the files of failures are kept")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    keep, failed = asked.keep.absolute(), 0
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.kind or KINDS:
            begun = time.monotonic()
            tally = check(
                name,
                home=Path(folder) / name,
                count=asked.count,
                seed=asked.seed,
                first=asked.first,
                commands=asked.commands,
                keep=keep,
            )
            counts = ", ".join(f"{outcome} {number:,}" for outcome, number in tally.outcomes.most_common())
            took = f"seed {asked.seed}, {time.monotonic() - begun:.0f} s"
            print(f"{name}: {tally.cases:,} cases, {took}: {counts}", flush=True)
            for failure in tally.failures:
                failed += 1
                print(f"FAILED {name} number {failure['number']} by {failure['by']}: {failure['what']}")
                print(f"  kept in {failure['file']}", flush=True)
            os.chdir("/")
    print(f"{failed} failures")
    return 1 if failed else 0


KINDS = (
    *("checkpoint", "legacy", "foreign", "safetensors", "manifest", "journal", "metrics", "run", "config", "pins"),
    *(
        "holder",
        "logged",
        "backup",
        "index",
        "packed",
        "infos",
        "infos-json",
        "infos-pickle",
        "yaml",
        "python",
        "events",
    ),
)

if __name__ == "__main__":
    sys.exit(main())
