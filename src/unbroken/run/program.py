"""Which program a session ran: digests of its files, versions of its packages, its commit; never any content.

A program is recorded with its session, and only once while it stays the same: a session of the same program names the
session that recorded it. A record that is missing or no program counts for nothing: of it nothing is said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from unbroken.fields import BadField, typed
from unbroken.journal import Event
from unbroken.quantities import counted

MOST_NAMED = 6  # differences of a kind, in a line
SHOWN_DIGITS = 7  # of a commit


@dataclass(frozen=True, kw_only=True)
class Program:
    """What ran. Files are named from the script's folder on, each with the first digits of its SHA-256.

    A file that could not be read has "" there: it was loaded, and is compared with nothing. `dirty` says whether files
    that git follows differ from the commit; None where git did not say.
    """

    main: str = ""  # one of `files`; "" where no file was run
    files: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    dirty: bool | None = None

    def as_plain(self) -> dict[str, Any]:
        """JSON-able data."""
        return asdict(self)

    def holds(self, other: Program) -> bool:
        """Whether another one is this one, as far as it is loaded."""
        return replace(other, files=self.files) == self and other.files.items() <= self.files.items()

    def compared(self) -> dict[str, str]:
        """All that tells two programs apart, by name."""
        commit = {"git commit": f"{self.commit}{' and changes' if self.dirty else ''}"} if self.commit else {}
        return {**{name: digest for name, digest in self.files.items() if digest}, **self.versions, **commit}

    def words(self) -> str:
        """`train.py and 3 more files, git commit 1a2b3c4 and changes, python 3.12.3, torch 2.12.0`."""
        first = self.main or next(iter(self.files), "")
        more = len(self.files) - 1
        files = [f"{first} and {counted(more, 'more file')}" if more > 0 else first] if first else []
        commit = [f"git commit {self.commit[:SHOWN_DIGITS]}{' and changes' if self.dirty else ''}"]
        versions = [f"{name} {self.versions[name]}" for name in ("python", "torch", "numpy") if name in self.versions]
        return ", ".join([*files, *(commit if self.commit else []), *versions])


@dataclass(frozen=True, kw_only=True)
class SessionProgram:
    """The program of the session that begins, asked for anew when more of it may be loaded; those of earlier ones."""

    look: Callable[[], Program] = Program
    earlier: Mapping[str, Program] = field(default_factory=dict)

    def recorded(self, now: Program) -> dict[str, Any]:
        """What the journal's line of a session says of its program."""
        known = reversed([*self.earlier.items()])
        same = next((name for name, program in known if program.holds(now)), None)
        return now.as_plain() if same is None else {"as_in": same}


def programs_of(events: Sequence[Event]) -> dict[str, Program]:
    """The programs of the sessions that recorded one, in their order, with what was loaded of them later."""
    found: dict[str, Program] = {}
    for event in events:
        name, told = str(event.get("session")), event.get("program")
        if event.get("event") == "session" and isinstance(told, Mapping):
            same = found.get(str(told.get("as_in")))
            with suppress(BadField):
                found[name] = same if same is not None else typed(Program, told)
        elif event.get("event") == "loaded" and name in found:
            found[name] = replace(found[name], files={**found[name].files, **event.get("files", {})})
    return found


def program_changes(before: Program, now: Program) -> list[str]:
    """What differs, in words: files, then packages that both have loaded, then the commit."""
    both = [name for name, digest in now.files.items() if digest and before.files.get(name)]
    files = [name for name in both if before.files[name] != now.files[name]]
    if before.files and now.files:
        files += [f"{name} (new)" for name in now.files if name not in before.files]
    versions = [
        f"{name} {before.versions[name]} -> {version}"
        for name, version in now.versions.items()
        if before.versions.get(name, version) != version
    ]
    commits = (before.commit[:SHOWN_DIGITS], now.commit[:SHOWN_DIGITS])
    commit = ["git commit {} -> {}".format(*commits)] if all(commits) and before.commit != now.commit else []
    return [words for found in (files, versions, commit) for words in _first(found)]


def _first(found: Sequence[str]) -> list[str]:
    more = len(found) - MOST_NAMED
    return [*found[:MOST_NAMED], *([f"{more} more"] if more > 0 else [])]
