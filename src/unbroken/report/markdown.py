"""A comparison as Markdown, for a report or an issue."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from unbroken.report.compare import RunComparison
from unbroken.report.messages import cells_of, headline, metric_rows, rows
from unbroken.report.page.words import word
from unbroken.text import shown

MARKUP = re.compile(r"([\\`*_\[\]|~#!])")


def as_markdown(found: RunComparison, language: str) -> str:
    """Headline, tables and notes."""
    return "\n".join(_lines(found, language)) + "\n"


def _lines(found: RunComparison, language: str) -> Iterator[str]:
    labels = [run.label for run in found.runs]
    yield f"**{marked(headline(found, language))}**"
    yield ""
    yield from _table("", labels, ((row.label, row.cells, row.leader) for row in rows(found, language)))
    metrics = [
        (f"{name} {word(when, language)}", cells, None)
        for name, at_best, at_last in metric_rows(found)
        if name != found.metric
        for when, cells in (("at best", at_best), ("at last", at_last))
    ]
    if metrics:
        yield ""
        yield from _table(word("metric", language), labels, metrics)
    yield ""
    yield f"**{word('settings', language)}**" if found.differences else word("same settings", language)
    for title, differences in (("setting", found.differences), ("program", found.programs)):
        if differences:
            yield ""
            differing = ((d.key, tuple(cells_of(d, language)), None) for d in differences)
            yield from _table(word(title, language), labels, differing)
    if found.notes:
        yield ""
        yield from (f"- {marked(note.words(language), 700)}" for note in found.notes)


def _table(corner: str, labels: Sequence[str], body: Iterable[tuple[str, Sequence[str], int | None]]) -> Iterator[str]:
    yield f"| {corner} | " + " | ".join(map(marked, labels)) + " |"
    yield "|---" * (len(labels) + 1) + "|"
    for label, cells, leader in body:
        shown = [
            f"**{marked(cell)}**" if place == leader and cell else marked(cell) for place, cell in enumerate(cells)
        ]
        yield f"| {marked(label)} | " + " | ".join(shown) + " |"


def marked(text: str, most: int = 160) -> str:
    """Text that stays text: nothing in it is markup, neither of Markdown nor of HTML."""
    text = MARKUP.sub(r"\\\1", shown(text, most, tail=most // 4))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
