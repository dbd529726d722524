"""Options whose mistakes are errors of the one family."""

from __future__ import annotations

import argparse
import re
from typing import NoReturn

from unbroken.errors import UsageError


class OptionParser(argparse.ArgumentParser):
    """Options whose mistakes are errors of the one family, with the nearest name; no abbreviations."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and where to read on."""
        from difflib import get_close_matches

        unknown = re.match(r"unrecognized arguments: (--[\w-]+)", message)
        near = get_close_matches(unknown[1], self._option_string_actions, n=1) if unknown else []
        meant = f"Did you mean {near[0]}? " if near else ""
        raise UsageError(self.prog, message, do=f"{meant}See `{self.prog} --help`.")
