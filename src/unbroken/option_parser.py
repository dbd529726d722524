"""Options whose mistakes are errors of the one family."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, NoReturn

from unbroken.errors import UsageError
from unbroken.quantities import BadQuantity, Quantity
from unbroken.text import plain

LEAST_ALIKE = 0.72
LONGEST_SHOWN = 60
EMPTY = "Is a variable in the command empty?"


class HelpFormatter(argparse.HelpFormatter):
    """The look of every help: paragraphs are filled, indented lines stay, what may be repeated has `...`."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)

    def _fill_text(self, text: str, width: int, indent: str) -> str:  # noqa: ARG002 - of the class above
        paragraphs = re.split(r"\n\s*\n", text.strip("\n"))
        return "\n\n".join(
            each if re.search("^ ", each, re.MULTILINE) else textwrap.fill(" ".join(each.split()), width)
            for each in paragraphs
        )

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if isinstance(action.metavar, str) and action.metavar.endswith("..."):
            return action.metavar if action.nargs == "+" else f"[{action.metavar}]"
        return super()._format_args(action, default_metavar)


class OptionParser(argparse.ArgumentParser):
    """Options whose mistakes are errors of the one family, with what was meant; no abbreviations.

    Args:
        *arguments: As `argparse.ArgumentParser` has them.
        meant: What to type here for options of other programs, by the name in small letters with `_` between its words:
            `{"lr": "--set OPTIMIZATION.LR {value}"}`. `{value}` is what was given to it, `{pairs}` keys and values as
            `key=value`, `{words}` the same as `key value`. None: nothing.
        **how: As `argparse.ArgumentParser` has them.
    Example:
        >>> from unbroken import OptionParser
        >>> parser = OptionParser(prog="mine", meant={"lr": "--set LR"})
        >>> action = parser.add_argument("--set", nargs="+")
        >>> parser.parse_args(["--lr", "0.1"])
        Traceback (most recent call last):
        unbroken.errors.UsageError: mine: unrecognized arguments: --lr 0.1. Here that is: --set LR. See `mine --help`.
    """

    def __init__(self, *arguments: Any, meant: Mapping[str, str] | None = None, **how: Any) -> None:
        super().__init__(*arguments, **{"formatter_class": HelpFormatter, "allow_abbrev": False, **how})
        self.meant = dict(meant or {})
        self._typed: list[str] = []

    def add_examples(self, *lines: str) -> None:
        """Let the help end with these command lines.

        Args:
            *lines: One each, as it is typed.
        """
        self.epilog = "\n\n".join([*([self.epilog] if self.epilog else []), "\n  ".join(["examples:", *lines])])

    def option(self, word: str) -> argparse.Action | None:
        """Return the option that has this name; None where there is none.

        Args:
            word: As it is typed: "--tag".
        """
        return self._option_string_actions.get(word)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, what was probably meant, and where to read on.

        Args:
            message: What argparse says.
        Raises:
            UsageError: In any case.
        """
        meant = self._meant(message)
        raise UsageError(self.prog, message, do=f"{meant}{' ' if meant else ''}See `{self.prog} --help`.")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[argparse.Namespace, list[str]]:  # type: ignore[override]  # of overloads
        """Read a command line as argparse does, and remember what was typed, for what is said of it.

        Args:
            args: The words, without the program's name; None: those of this process.
            namespace: What is filled, as in argparse; None: a new one.
        Returns:
            What was read, and the words that are not known.
        """
        self._typed = list(args or [])
        return super().parse_known_args(args, namespace)

    def _meant(self, message: str) -> str:
        """What was probably meant by what the parser complains of."""
        from difflib import get_close_matches

        unknown = (
            message.removeprefix("unrecognized arguments: ").split() if "unrecognized arguments" in message else []
        )
        if unknown and plain(unknown[0]).startswith("-"):
            return self._option_meant(unknown[0], unknown[1:])
        if unknown:
            before = self._before(unknown[0])
            takes_none = before is not None and before.nargs == 0
            said = (
                f"{before.option_strings[0]} takes no value: leave {unknown[0]} out." if before and takes_none else ""
            )
            return said or f"{unknown[0]} is a word too many: no option before it takes it."
        if choice := re.search(r"invalid choice: '(.*)' \(choose from (.*)\)", message):
            near = get_close_matches(choice[1], re.findall(r"'([^']*)'", choice[2]), n=1)
            return f"Did you mean {near[0]}?" if near else ""
        if lacking := re.fullmatch(r"argument ([-\w]+)\S*: expected one argument", message):
            following = self._typed[self._typed.index(lacking[1]) + 1 :][:1] if lacking[1] in self._typed else []
            return f"Found {following[0]} behind it, which is no value." if following else ""
        required = re.fullmatch(r"the following arguments are required: (\S+)", message)
        greedy = [name for action in self._actions if action.nargs == "+" for name in action.option_strings]
        if required and (taken := next((word for word in self._typed if word in greedy), "")):
            return f"{required[1]} comes first: {taken} takes all that follows it."
        return ""

    def _before(self, word: str) -> argparse.Action | None:
        """The option that stands before a word."""
        place = self._typed.index(word) if word in self._typed else 0
        return self._option_string_actions.get(self._typed[place - 1]) if place else None

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        """A value of its type; what Python says of one that it is not would name functions of the program.

        Nothing is a value of none: `Path("")` would be the current folder.
        """
        kinds: dict[Any, str] = {int: "a whole number", float: "a number"}
        wanted = kinds.get(action.type) or str(action.metavar or action.dest.upper())
        if action.type is not None and not arg_string.strip():
            raise argparse.ArgumentError(action, f"expected {wanted}, found nothing. {EMPTY}")
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            if not (error.message or "").startswith("invalid "):
                raise
            found = arg_string if len(arg_string) <= LONGEST_SHOWN else f"{arg_string[:LONGEST_SHOWN]}..."
            raise argparse.ArgumentError(action, f"expected {wanted}, found {found!r}") from None

    def _option_meant(self, option: str, following: Sequence[str]) -> str:
        """What an option that is not known is called here."""
        name, equals, joined = plain(option).partition("=")
        given = [joined] if equals else list(takewhile(lambda word: not word.startswith("-"), following))
        known = self.spellings()
        if same := next((each for each in known if _spelled(each) == _spelled(name)), ""):
            return f"Did you mean {same}{'=' if equals else ''}{joined}?"
        if template := self.meant.get(_spelled(name, "_")):
            pairs = [word for each in given for word in each.split("=", 1)]
            keys = list(zip(pairs[::2], pairs[1::2])) or [("KEY", "VALUE")]
            meant = template.format(
                value=" ".join(given[:1]) or "VALUE",
                pairs=" ".join(f"{key}={value}" for key, value in keys),
                words=" ".join(f"{key} {value}" for key, value in keys),
            )
            return f"Here that is: {meant}."
        from difflib import get_close_matches

        # The beginning of a long name is less alike to it than a slip in typing is.
        begun = [each for each in known if name.startswith("--") and len(name) > 3 and each.startswith(name)]
        near = begun or get_close_matches(name, known, n=1, cutoff=LEAST_ALIKE)
        return f"Did you mean {' or '.join(near)}?" if near else ""

    def spellings(self) -> list[str]:
        """Return the options that the help shows, as they are typed."""
        shown = (action for action in self._actions if action.help != argparse.SUPPRESS)
        return [name for action in shown for name in action.option_strings]


def _spelled(option: str, between: str = "") -> str:
    """An option's name, however its words are joined."""
    return re.sub("[-_]+", between, option.strip("-").lower())


def device_name(text: str) -> str:
    """Read an option that names a device as torch does; whether it is there is seen when it is used.

    Args:
        text: As it was typed: "auto", "cpu", "cuda", "cuda:1".
    Returns:
        The same text.
    Raises:
        ArgumentTypeError: No device is called so.
    """
    if re.fullmatch(r"auto|meta|(cpu|cuda|mps|xpu|npu|mlu|hpu|musa)(:\d{1,3})?", text):
        return text
    meant = f"cuda:{text}" if text.isdecimal() else "cuda" if text.lower() in ("gpu", "cuda", "nvidia") else ""
    raise argparse.ArgumentTypeError(
        f"expected auto, cpu, cuda or cuda:1, found {text[:40]!r}" + (f". Did you mean {meant}?" if meant else "")
    )


def quantity(read: Callable[[str], Quantity]) -> Callable[[str], Quantity]:
    """A reader of quantities as argparse has types: its mistakes are said in its words."""

    def typed(text: str) -> Quantity:
        try:
            return read(text)
        except BadQuantity as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return typed


def whole_number(what: str, *, least: int = 1, most: int | None = None) -> Callable[[str], int]:
    """A reader of how many, or how often, as argparse has types."""

    def typed(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            limits = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"expected {what}, {limits}, found {text!r}")
        return int(text)

    return typed
