"""What an audit finds wrong, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

MOST = 1000  # of one audit: a file that is wrong from end to end is not told line by line
SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that is wrong: in which file, on which line, at which step, about which samples."""

    file: str
    words: str
    line: int | None = None
    step: int | None = None
    samples: tuple[int, ...] = ()

    def __str__(self) -> str:
        where = self.file + (f" line {self.line}" if self.line is not None else "")
        return f"{where}: {self.words}"


@dataclass
class Findings:
    """The list that grows while the records are read; what is only worth knowing stands apart."""

    wrong: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    more: int = 0

    def add(
        self, file: str, words: str, *, line: int | None = None, step: int | None = None, samples: Sequence[int] = ()
    ) -> None:
        """Take note of one more thing that is wrong."""
        if len(self.wrong) >= MOST:
            self.more += 1
            return
        self.wrong.append(Finding(file=file, words=words, line=line, step=step, samples=tuple(samples)))

    def note(self, words: str) -> None:
        """Take note of something that is in order but worth knowing."""
        if len(self.notes) < MOST:
            self.notes.append(words)


def span(first: int, last: int) -> str:
    """`step 7` or `steps 7-9`."""
    return f"step {first}" if first == last else f"steps {first}-{last}"
