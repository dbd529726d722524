"""The tree of commands: one table, and the way from what was typed to the file of a command.

A command NAME stands in a file of `commands` as two functions. `NAME_options(parser)` declares what may be typed behind
it; `NAME_command(options)` does it and returns the exit code, and its docstring is the text of `unbroken NAME --help`.
`NAME_usual(words)`, where there is one, does without the parser for what is typed most.
The file is imported when the command is typed. To add a command: these two functions, and a line in `COMMANDS`.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from unbroken import __version__
from unbroken.errors import UsageError

if TYPE_CHECKING:
    from unbroken.cli.args import CommandParser

ABOUT = "Long trainings out of short, interruptible sessions, as if they had never been interrupted."
THEN = "Then:        unbroken train RECIPE CONFIG, and after any interruption the same command again."
EXIT_CODES = """\
Exit codes: 0 done, 1 fault of ours, 2 wrong usage or config, 10 refused, 11 held by another process,
12 damaged files or failing saves, 13 incompatible config, 14 written by a newer version, 15 not exact (prove),
75 stopped and resumable, 130 interrupted at once."""


class Command(NamedTuple):
    """One command: its line in the overview, and the file it stands in."""

    summary: str
    file: str  # below unbroken.cli
    passes: Literal["", "recipe", "program"] = ""  # from its first argument on, all is that one's


GROUPS: dict[str, dict[str, Command]] = {
    "train": {
        "train": Command("Plan, print the plan, carry it out.", "commands.train", passes="recipe"),
        "why": Command("What `train` would do, and why; changes nothing.", "commands.why", passes="recipe"),
        "check": Command("Read every sample of a config's data sets once.", "commands.check", passes="recipe"),
        "prove": Command(
            "Whether a training, killed and resumed, is the same in every bit.", "commands.prove", passes="recipe"
        ),
        "slurm": Command(
            "A batch script of Slurm under which a training goes on, job after job.", "slurm", passes="program"
        ),
        "watch": Command("Follow a run from another terminal.", "commands.watch"),
        "stop": Command("Ask a running training to save and stop.", "commands.stop"),
        "demo": Command("The whole story on made-up data, in one to four minutes on two idle cores.", "commands.demo"),
        "data": Command("Write a small sample data set in the real layout.", "commands.demo"),
    },
    "look": {
        "ls": Command("The runs under a folder, one line each.", "commands.ls"),
        "show": Command("One run: sessions, checkpoints, metrics, origin.", "commands.show"),
        "inspect": Command("What is in a checkpoint of any origin.", "commands.inspect"),
        "verify": Command("Whether checkpoints are whole, byte for byte.", "commands.verify"),
        "audit": Command("Whether each step was done once and each sample used once per epoch.", "commands.audit"),
        "compare": Command("Runs side by side: results, and only the settings that differ.", "commands.compare"),
    },
    "keep": {
        "log": Command("Bring experiments_log.txt up to date for the runs under a folder.", "commands.log"),
        "backup": Command("A copy of a run on another disk, verified and kept up to date.", "commands.backup"),
        "restore": Command("A history from the archive, or a run from its backup, brought back.", "commands.restore"),
        "pack": Command("A run as one file, to take to another machine.", "commands.pack"),
        "unpack": Command("The run in such a file as a folder again.", "commands.pack"),
        "export": Command("A checkpoint of sharded training as one ordinary file.", "commands.export"),
        "prune": Command(
            "Make room: remove checkpoints that nothing needs, and say why each goes or stays.", "commands.prune"
        ),
        "pin": Command("Keep a checkpoint whatever the policy says.", "commands.pin"),
    },
    "shell": {
        "completion": Command("A script that completes commands and options in bash, zsh or fish.", "completion"),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}

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
    **dict.fromkeys(("zip",), "unbroken pack RUN OUT"),
    **dict.fromkeys(("unzip", "extract", "import"), "unbroken unpack FILE"),
    **dict.fromkeys(("diff",), "unbroken compare RUN RUN"),
    **dict.fromkeys(("plan", "dry-run", "explain"), "unbroken why RECIPE CONFIG"),
    **dict.fromkeys(("tail", "follow", "progress"), "unbroken watch RUN"),
    **dict.fromkeys(("sbatch", "submit", "batch"), "unbroken slurm --time TIME -- COMMAND"),
    "version": f"version {__version__}",
    "help": "unbroken --help",
}


def run(words: Sequence[str], *, typed: Sequence[str] | None) -> int:
    """Run one command line; `typed` is what to tell the user to type again, None: as this process was started."""
    match words:
        case []:
            print(help_text())
            return UsageError.exit_code
        case ["-h" | "--help", *_]:
            print(help_text())
        case ["--version"]:
            print(f"unbroken {__version__}")
        case [name, *_] if name not in COMMANDS:
            _refuse(name)
        case [name, *rest]:
            passes = bool(COMMANDS[name].passes)
            for option, word in zip(("", *rest), rest):
                if option == "--note" or passes:  # a note may be empty, or an address; a recipe judges its own words
                    continue
                if not word.strip():
                    from unbroken.option_parser import EMPTY

                    raise UsageError(
                        f"unbroken {name}", "a word is empty", expected="a value", found="nothing", do=EMPTY
                    )
                if ":" in word:
                    from unbroken.storage import require_local

                    require_local(word)
            usual = _function(name, "usual")
            options = usual and usual(rest)
            if options is None:
                options = parser_of(name).parse_words(rest, passes=passes)
            options.typed = typed
            return int(_function(name, "command")(options) or 0)
    return 0


def parser_of(name: str) -> CommandParser:
    """The parser of a command; its file is imported."""
    from unbroken.cli.args import CommandParser

    first, _, rest = str(_function(name, "command").__doc__).partition("\n")
    parser = CommandParser(prog=f"unbroken {name}", description=f"{first}\n{textwrap.dedent(rest)}")
    _function(name, "options")(parser)
    return parser


def help_text() -> str:
    """What `unbroken --help` says; the demos are those of the installed applications."""
    from importlib.metadata import entry_points

    demos = sorted(point.name for point in entry_points(group="unbroken.demos"))
    begin = [f"{'Begin with:' if not place else 'or':>11}  unbroken demo {name}" for place, name in enumerate(demos)]
    lines = ["usage: unbroken [-h] [--version] COMMAND ...", "", ABOUT]
    for group, commands in GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:<12}{command.summary}" for name, command in commands.items())]
    lines += [
        "",
        "options:",
        "  -h, --help  Of a command too: unbroken COMMAND --help.",
        "  --version   Which version this is.",
    ]
    return "\n".join([*lines, "", *begin, THEN, "", EXIT_CODES])


def _function(name: str, part: str) -> Any:
    return getattr(import_module(f"unbroken.cli.{COMMANDS[name].file}"), f"{name}_{part}", None)


def _refuse(word: str) -> NoReturn:
    """Say what to type for a word that is no command: one of another program, a recipe, a config, or nearly one."""
    from unbroken.config import SUFFIXES, nearest
    from unbroken.launch.job import installed

    recipes = installed()
    if word in recipes:
        do = f"Type: unbroken train {word} CONFIG."
    elif word.endswith(SUFFIXES):
        do = f"Type: unbroken train RECIPE {word}, where RECIPE is {' or '.join(recipes)}."
    elif meant := MEANT.get(word.strip("-").lower()):
        do = f"Here that is: {meant}."
    else:
        near = nearest(word, ["--help", "--version"] if word.startswith("-") else COMMANDS)
        do = f"Did you mean '{near}'?" if near else ""
    what = f"No such option: {word}" if re.match("-", word) else f"No such command '{word}'."
    raise UsageError("unbroken", what, do=f"{do} See `unbroken --help`.".strip())
