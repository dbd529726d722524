"""The one family of errors: each says where, what, what was expected, what was found and what to do.

An error also carries the exit code that the command line ends with, so that a script around it can tell a refusal
(run another command) from damage (look at the disk) from a typing mistake.
"""

from __future__ import annotations

from typing import ClassVar

NOT_EXACT = 15  # exit code of `unbroken prove` where a bit differs
STOPPED = 75  # exit code of what was stopped and is resumable, EX_TEMPFAIL of sysexits.h: run the same command again


class UnbrokenError(Exception):
    """Something a user can act on; the command line ends with its `exit_code`.

    Args:
        where: What it is about: a path, an option, a call.
        what: What is wrong, as the predicate or a sentence; its full stop is added.
        expected: What would be right; "" where that goes without saying.
        found: What is there; "" where that goes without saying.
        do: What to do, in whole sentences.
    Example:
        >>> from unbroken.errors import UsageError
        >>> str(UsageError("--lr", "this is no number", expected="0.1", found="fast", do="Type a number."))
        '--lr: this is no number. Expected 0.1, found fast. Type a number.'
    """

    exit_code: ClassVar[int] = 1
    meaning: ClassVar[str] = "a fault of unbroken itself"

    def __init__(self, where: object, what: str, *, expected: object = "", found: object = "", do: str = "") -> None:
        self.where = str(where)
        self.what = what.rstrip(".")
        self.expected = str(expected)
        self.found = str(found)
        self.do = do
        super().__init__(str(self))

    def __str__(self) -> str:
        listing = "\n" in self.what  # what is listed line by line ends without a full stop
        ends = listing or self.what.endswith("?")
        text = (f"{self.where}: " if self.where else "") + self.what + ("" if ends else ".")
        match bool(self.expected), bool(self.found):
            case True, True:
                text += f" Expected {self.expected}, found {self.found}."
            case True, False:
                text += f" Expected {self.expected}."
            case False, True:
                text += f" Found {self.found}."
        return f"{text}{chr(10) if listing else ' '}{self.do}" if self.do else text

    def __reduce__(self) -> tuple[type[UnbrokenError], tuple[str, str], dict[str, object]]:
        """Let the error travel from a loader process; its text is rebuilt from its facts."""
        return type(self), (self.where, self.what), {**vars(self), "args": self.args}

    def as_data(self) -> dict[str, str | int]:
        """Return the same facts for `--json`."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "where": self.where,
            "what": self.what,
            "expected": self.expected,
            "found": self.found,
            "do": self.do,
        }


class UsageError(UnbrokenError):
    """A command, a path or a config is wrong as it was typed."""

    exit_code = 2
    meaning = "usage or config error"


class NotInstalled(UsageError, ImportError):
    """A package that this needs is not there, or cannot be loaded."""


class ConfigError(UsageError):
    """A config file or an override cannot be read, or has a key or a value that is not known."""


class Refused(UnbrokenError):
    """The launch would lose or silently change something, so it does not happen."""

    exit_code = 10
    meaning = "refused: nothing was changed"


class RunHeld(UnbrokenError):
    """Another live process works on this run."""

    exit_code = 11
    meaning = "the run is held by another process"


class DamagedFile(UnbrokenError):
    """A file is torn, altered or not what it says it is."""

    exit_code = 12
    meaning = "damaged or foreign files"


class UnreadableSample(DamagedFile):
    """A sample of a data set cannot be read.

    Args:
        where: The sample's file, or its number and data set.
        what: What is wrong with it.
        expected: What would be right.
        found: What is there.
        do: What to do.
        trace: Where its reading failed; "" where the data set itself said what is wrong.
    """

    def __init__(
        self, where: object, what: str, *, expected: object = "", found: object = "", do: str = "", trace: str = ""
    ) -> None:
        super().__init__(where, what, expected=expected, found=found, do=do)
        self.trace = trace


class ForeignFile(DamagedFile):
    """A file is sound, and of a kind that no training goes on from: nothing is to be copied or downloaded again."""


class SaveFailed(UnbrokenError):
    """Checkpoints could not be written for so long that going on would have meant losing too much."""

    exit_code = 12
    meaning = DamagedFile.meaning


class Incompatible(UnbrokenError):
    """The config or the code no longer fits the state that is on disk."""

    exit_code = 13
    meaning = "incompatible config"


class NewerFormat(UnbrokenError):
    """The file was written by a newer version of unbroken."""

    exit_code = 14
    meaning = "written by a newer version"


class WorkersKilled(UnbrokenError):
    """Loader workers were killed again and again, most likely because the machine ran out of memory."""

    exit_code = STOPPED
    meaning = "stopped and resumable"


class ProcessLost(UnbrokenError):
    """Another process of the same training has ended or hangs; what was saved last is what all of them go on from."""

    exit_code = STOPPED
    meaning = "stopped and resumable"


class SessionOver(UnbrokenError):
    """What the host leaves of this session is no more than the reserve: the next one does what was asked."""

    exit_code = STOPPED
    meaning = "stopped and resumable"


INTERRUPTED_TWICE = 130  # exit code of what was ended at once, without a save: 128 + SIGINT, as shells report it
