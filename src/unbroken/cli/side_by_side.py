"""A comparison as text for a terminal: runs as columns while they are few, as lines when they are many."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from unbroken.cli.tables import columns
from unbroken.config import Difference
from unbroken.report.compare import Comparison
from unbroken.report.page.words import word
from unbroken.report.wording import cells_of, headline, metric_rows, rows
from unbroken.text import shown

MOST_COLUMNS = 4  # runs side by side
WIDEST = {2: 34, 3: 26, 4: 20}  # characters of a run's cell
KEY, LABEL, VALUE = 34, 24, 60
WIDTH = 100


def as_text(found: Comparison, language: str) -> str:
    """Headline, results, settings, notes."""
    few = len(found.runs) <= MOST_COLUMNS
    parts = [
        [shown(headline(found, language), 200)],
        _as_columns(found, language) if few else _as_lines(found, language),
        *_differing(found, language),
        [line for note in found.notes for line in _wrapped(shown(note.words(language), 700))],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _as_columns(found: Comparison, language: str) -> list[str]:
    widest = WIDEST[len(found.runs)]
    table = [("", *(_fit(run.label, widest) for run in found.runs))]
    for row in rows(found, language):
        table.append(
            (row.label, *(_cell(cell, widest, star=place == row.leader) for place, cell in enumerate(row.cells)))
        )
    for name, at_best, at_last in metric_rows(found):
        if name != found.metric and "/" not in name:  # numbers of parts, such as classes, are in the page and the data
            cells = (f"{best} | {last}" if best or last else "" for best, last in zip(at_best, at_last))
            table.append((_fit(f"{name} (best | last)", KEY), *(_fit(cell, widest) for cell in cells)))
    return [columns(table)]


def _as_lines(found: Comparison, language: str) -> list[str]:
    """Facts as columns, the best run first."""
    facts = [row for row in rows(found, language) if any(row.cells)]
    order = sorted(range(len(found.runs)), key=lambda place: _rank(found, place))
    table = [("", *(_fit(row.label, 16) for row in facts))]
    for place in order:
        cells = (_cell(row.cells[place], 20, star=place == row.leader) for row in facts)
        table.append((_fit(found.runs[place].label, LABEL), *cells))
    return [columns(table)]


def _rank(found: Comparison, place: int) -> tuple[bool, float]:
    best = found.runs[place].best
    return best is None, 0.0 if best is None else -best.value if found.larger else best.value


def _differing(found: Comparison, language: str) -> Iterator[list[str]]:
    """Settings, and what is not the same in the programs."""
    table = _values_as_columns if len(found.runs) <= MOST_COLUMNS else _runs_by_value
    yield table(found, "settings", found.differences, language) or [word("same settings", language)]
    yield table(found, "programs", found.programs, language)


def _values_as_columns(found: Comparison, title: str, differences: Sequence[Difference], language: str) -> list[str]:
    widest = WIDEST[len(found.runs)]
    table = [(word(title, language), *(_fit(run.label, widest) for run in found.runs))]
    for difference in differences:
        cells = (_fit(cell, widest) for cell in cells_of(difference, language))
        table.append((_tail(difference.key, KEY), *cells))
    return [columns(table)] if differences else []


def _runs_by_value(found: Comparison, title: str, differences: Sequence[Difference], language: str) -> list[str]:
    """Each key with its values, and the runs that have them."""
    lines = [word(title, language)] if differences else []
    for difference in differences:
        lines.append(f"  {shown(difference.key, 100)}")
        runs: dict[str, list[str]] = {}
        for cell, run in zip(cells_of(difference, language), found.runs):
            runs.setdefault(cell, []).append(_fit(run.label, LABEL))
        table = [(f"    {_fit(cell, VALUE)}", _listed(labels)) for cell, labels in runs.items()]
        lines.append(columns(table))
    return lines


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels[:MOST_COLUMNS]) + (f", ... ({len(labels)})" if len(labels) > MOST_COLUMNS else "")


def _wrapped(text: str) -> Iterator[str]:
    yield from textwrap.wrap(f"- {text}", WIDTH, subsequent_indent="  ") or [""]


def _cell(text: str, widest: int, *, star: bool) -> str:
    return _fit(text, widest) + (" *" if star and text else "")


def _fit(text: str, widest: int) -> str:
    text = shown(text, 200)
    return text if len(text) <= widest else f"{text[: widest - 1]}…"


def _tail(text: str, widest: int) -> str:
    """The end of a key says most."""
    text = shown(text, 200)
    return text if len(text) <= widest else f"…{text[1 - widest :]}"
