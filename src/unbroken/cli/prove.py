"""`prove`: is a training the same in every bit when it is killed and resumed?"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from unbroken.errors import NOT_EXACT, UsageError
from unbroken.launch.recipes import installed
from unbroken.quantities import asked, duration_s


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The options, as they were typed."""

    steps: int
    kills: int
    workers: str
    seed: int | None
    patience: str
    keep: bool
    as_json: bool


def prove_command(first: str, rest: Sequence[str], options: Asked) -> int:
    """Prove a recipe's training or a program; the exit code is 0 only if every bit is equal."""
    if not first:
        raise UsageError(
            "unbroken prove",
            "what to prove is missing",
            expected=f"a recipe ({' or '.join(installed())}) and its config, or a program",
            do="Type: unbroken prove -- python train.py",
        )
    is_recipe = first in installed() or (":" in first and "/" not in first)
    command = [sys.executable, "-m", "unbroken", "train", first, *rest] if is_recipe else [first, *rest]
    workers = tuple(_whole(word) for word in options.workers.split(",") if word.strip())
    patience_s = asked("--patience", duration_s, options.patience)

    from unbroken.prove import Settings, prove

    settings = Settings(
        steps=options.steps,
        kills=options.kills,
        workers=workers,
        seed=options.seed,
        patience_s=patience_s,
        keep=options.keep,
    )
    proof = prove(command, settings, say=_quiet if options.as_json else _say)
    if options.as_json:
        print(json.dumps(proof.as_data(), ensure_ascii=False))
    return 0 if proof.exact else NOT_EXACT


def _whole(word: str) -> int:
    if word.strip().isdecimal() and len(word) < 5:
        return int(word)
    raise UsageError("--workers", "this is no list of numbers", expected="--workers 0,2", found=repr(word))


def _say(line: str) -> None:
    print(line, flush=True)


def _quiet(_line: str) -> None:
    pass
