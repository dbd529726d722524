"""`prove`: is a training the same in every bit when it is killed and resumed?"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial

from unbroken.cli.args import CommandParser, add_json, whole
from unbroken.errors import NOT_EXACT, UsageError
from unbroken.launch.job import installed
from unbroken.quantities import asked, duration_s


def prove_options(parser: CommandParser) -> None:
    """A recipe or a program, before which these options stand."""
    parser.add_argument(
        "command", nargs="?", metavar="RECIPE | -- COMMAND", help="as for `train`, or any program that uses open_run"
    )
    parser.add_argument(
        "--steps", type=whole(2), default=30, metavar="N", help="how many steps are trained (default: 30)"
    )
    parser.add_argument(
        "--kills",
        type=whole(1),
        default=3,
        metavar="N",
        help="how often it is killed, SIGKILL and SIGTERM (default: 3)",
    )
    parser.add_argument(
        "--workers",
        default="0,2",
        metavar="N,N",
        help="loader workers besides the loop's own; '' for none (default: 0,2)",
    )
    parser.add_argument("--seed", type=whole(0), metavar="N", help="of the kills (default: another one each time)")
    parser.add_argument(
        "--patience", default="10m", metavar="TIME", help="a session silent for so long is ended (default: 10m)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the scratch folder, and say where it is")
    add_json(parser)
    parser.add_examples(
        "unbroken prove -- python train.py --lr 0.1            any program whose loop uses open_run",
        "unbroken prove RECIPE CONFIG [options of the recipe]",
    )


def prove_command(options: argparse.Namespace) -> int:
    """Train in a scratch folder, in peace and with kills and resumes, and compare every bit; say what differs and why.

    No run of yours is read or written. The exit code is 0 only if every bit is equal, and 15 if one is not.
    These options stand before the recipe or the program.
    """
    if not any(options.words[:1]):
        raise UsageError(
            "unbroken prove",
            "what to prove is missing",
            expected=f"a recipe ({' or '.join(installed())}) and its config, or a program",
            do="Type: unbroken prove -- python train.py",
        )
    first = options.words[0]
    is_recipe = first in installed() or (":" in first and "/" not in first)
    command = [sys.executable, "-m", "unbroken", "train", *options.words] if is_recipe else options.words
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
    proof = prove(command, settings, say=(lambda _line: None) if options.as_json else partial(print, flush=True))
    if options.as_json:
        print(json.dumps(proof.as_data(), ensure_ascii=False))
    return 0 if proof.exact else NOT_EXACT


def _whole(word: str) -> int:
    if word.strip().isdecimal() and len(word) < 5:
        return int(word)
    raise UsageError("--workers", "this is no list of numbers", expected="--workers 0,2", found=repr(word))
