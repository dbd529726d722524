"""How commands read what was typed: their parser, and the arguments that several of them have."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from unbroken.errors import UsageError
from unbroken.option_parser import OptionParser


class CommandParser(OptionParser):
    """The options of one command of `unbroken`; the value of an option may begin with a dash."""

    behind: frozenset[str] = frozenset()  # options that may also stand among the words that are passed on

    def parse_words(self, words: Sequence[str], *, passes: bool) -> argparse.Namespace:
        """Read what was typed; with `passes`, `options.words` is all from the first argument on, as it stands."""
        own: list[str] = []
        arguments: list[str] = []
        waiting = list(words)
        while waiting:
            word = waiting.pop(0)
            name, equals, _ = word.partition("=")
            if word == "--":
                arguments += [word, *waiting] if passes and arguments else waiting
                break
            if word == "-" or not word.startswith("-") or (passes and arguments and name not in self.behind):
                arguments.append(word)
                continue
            option = self.option(name)
            if option is None:
                self.error(f"unrecognized arguments: {word}")
            takes_next = option.nargs is None and not equals
            if takes_next and not waiting:
                lines = (self.epilog or "").splitlines()
                example = next((f", as in: {line.strip()}" for line in lines if f"{name} " in line), "")
                self.error(f"argument {name}: expected one argument{example}")
            if equals and option.nargs == 0:
                self.error(f"argument {name}: it takes no value")
            own.append(f"{word}={waiting.pop(0)}" if takes_next else word)
        if arguments and not passes:
            own += ["--", *arguments]  # options first: arguments that may be left out would else end at an option
        return argparse.Namespace(**vars(self.parse_args(own)), words=arguments if passes else [])

    def error(self, message: str) -> NoReturn:
        """Name the argument that is missing, or the option whose value is wrong."""
        lacking = message.removeprefix("the following arguments are required: ")
        if lacking != message:
            message = f"Missing argument '{lacking.partition(', ')[0]}'."
        elif message.startswith("argument --") and "expected one argument" not in message:
            option, _, why = message.removeprefix("argument ").partition(": ")
            message = f"Invalid value for '{option}': {why}"
        super().error(message)


def add_json(parser: OptionParser) -> None:
    """Let a command print data."""
    parser.add_argument("--json", action="store_true", dest="as_json", help="print data instead of text")


def add_language(parser: OptionParser, of: str) -> None:
    """Let a command be asked for a language; `of` says what is written in it."""
    parser.add_argument("--lang", default="", dest="language", metavar="zh|en", help=of)


def require_language(language: str, known: Sequence[str]) -> None:
    """Raise UsageError for a language that is not spoken."""
    if language not in ("", *known):
        raise UsageError("--lang", "this language is not spoken here", expected=" or ".join(known), found=language)


def whole(least: int, what: str = "a whole number") -> Callable[[str], int]:
    """A reader of whole numbers from `least` on; `what` one of them is."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdecimal() or len(text) > 9 or int(text) < least:
            raise argparse.ArgumentTypeError(f"expected {what}, {least} or more, found {text[:40]!r}")
        return int(text)

    return read
