"""`compare`: runs side by side, as text, Markdown, data, or a page for a browser."""

from __future__ import annotations

import argparse
import os
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from unbroken.cli.args import CommandParser, add_json, add_language, require_language
from unbroken.cli.runs import LISTED, Tagged, runs_below, the_one
from unbroken.cli.tables import as_json_text, columns
from unbroken.clock import SystemClock, shown_time
from unbroken.config import Difference, nearest
from unbroken.errors import UsageError
from unbroken.jsonlines import finite
from unbroken.logbook.entry import usual_language
from unbroken.quantities import size_text
from unbroken.report.compare import RunComparison, compare
from unbroken.report.foreign_curves import has_foreign_curves
from unbroken.report.messages import LANGUAGES, cells_of, headline, metric_rows, rows
from unbroken.report.page.words import word
from unbroken.report.run_facts import RunFacts, facts_of_runs
from unbroken.run.locate import find_runs, holds_run
from unbroken.storage import Disk, open_ordinary, write_whole
from unbroken.text import shown

MOST_COLUMNS = 4  # runs side by side
WIDEST = {2: 34, 3: 26, 4: 20}  # characters of a run's cell
KEY, LABEL, VALUE = 34, 24, 60
WIDTH = 100


def compare_options(parser: CommandParser) -> None:
    """Runs, and in which of four ways they are shown."""
    parser.add_argument(
        "runs", nargs="+", metavar="RUN...", help="runs' folders, or tags of runs below the current folder"
    )
    parser.add_argument("--metric", default="", metavar="NAME", help="the metric that decides (default: the runs' own)")
    add_json(parser)
    parser.add_argument("--markdown", action="store_true", help="print Markdown instead of text")
    parser.add_argument(
        "--html", type=Path, metavar="OUT", help="write a page with curves; one file that needs no network"
    )
    add_language(parser, "the language (the page: by default that of the system)")
    parser.add_examples("unbroken compare baseline wider", "unbroken compare baseline wider --html wider.html")


def compare_command(options: argparse.Namespace) -> None:
    """Runs side by side: metrics at the best and at the last step, time, samples, sessions, settings that differ.

    Exit code 2 for fewer than two runs. --html replaces nothing but an earlier page of its own.
    """
    page, language, metric = options.html, options.language, options.metric
    require_language(language, LANGUAGES)
    if options.as_json + options.markdown + (page is not None) > 1:
        raise UsageError("unbroken compare", "--json, --markdown and --html exclude one another", do="Choose one.")
    folders = run_folders_of(options.runs)
    if page is not None:
        _require_ours(page)
    facts = facts_of_runs(folders, processes=os.cpu_count() or 1)
    found = compare(facts, metric=metric)
    if options.as_json:
        print(as_json_text(finite(found.as_data())))
    elif options.markdown:
        from unbroken.report.markdown import as_markdown

        print(as_markdown(found, language or "en"), end="")
    elif page is not None:
        words = [*options.runs, *(["--metric", metric] if metric else []), "--html", str(page)]
        command = shlex.join(["unbroken", "compare", *words])
        _write_page(found, facts, page, language=language or usual_language(), command=command)
    else:
        print(as_text(found, language or "en"))


def run_folders_of(words: Sequence[str]) -> list[Path]:
    """The folders of at least two different runs; each word is a folder, or a tag of a run below the current folder."""
    if len(words) < 2:
        found = words[0] if words else "none"
        raise UsageError(
            "unbroken compare",
            "there is nothing to compare with",
            expected="two runs or more",
            found=found,
            do=f"Name another one too; one alone: unbroken show {found}" if words else "",
        )
    below: list[Tagged] = []
    folders = [_folder(word, below) for word in words]
    for place, folder in enumerate(folders):
        same = next((earlier for earlier in range(place) if folder.resolve() == folders[earlier].resolve()), None)
        if same is not None:
            raise UsageError(words[place], f"this run is named twice ({words[same]} is the same folder)")
    return folders


def _folder(word: str, below: list[Tagged]) -> Path:
    path = Path(word)
    if _is_folder(path) and (holds_run(str(path)) is None or has_foreign_curves(path)):
        return path
    below += below or runs_below(Path())
    named = the_one(word, below)
    if named is None:
        raise _not_found(path, word, below)
    return named


def _not_found(path: Path, word: str, below: Sequence[Tagged]) -> UsageError:
    inside = [str(folder) for folder in find_runs(path)][:LISTED] if _is_folder(path) else []
    if inside:
        return UsageError(
            shown(word), "this folder holds no run itself", found=", ".join(inside), do="Name those to compare."
        )
    known = list(dict.fromkeys(name for name, _ in below))
    near = nearest(word, known)
    return UsageError(
        shown(word),
        "there is no such run",
        expected="a run's folder, or the tag of a run below the current folder",
        found=", ".join(shown(name, 60) for name in known[:LISTED]) or "no run below the current folder",
        do=f"Did you mean {shown(near)}?" if near else "`unbroken ls` lists what is there.",
    )


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that no file can have
        return False


# -- the page --------------------------------------------------------------------------------------------------------


def _require_ours(page: Path) -> None:
    """Nothing is overwritten but a page that was made here, and nothing is read before that is clear."""
    from unbroken.report.page import MARK

    if _is_folder(page):
        raise UsageError(page, "this is a folder", expected="the name of an .html file")
    if not page.parent.is_dir():
        raise UsageError(page, "its folder does not exist", expected=f"a folder {page.parent}")
    try:
        with open_ordinary(page) as file:
            head = file.read(len(MARK) + 40)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise UsageError(page, f"the file that is there cannot be read ({error})") from error
    if MARK.encode() not in head:
        raise UsageError(page, "this file is no comparison of ours and is not overwritten", do="Choose another name.")


def _write_page(found: RunComparison, facts: Sequence[RunFacts], page: Path, *, language: str, command: str) -> None:
    from unbroken.report.page import document

    moment = shown_time(SystemClock().now())
    data = document(found, facts, language=language, command=command, moment=moment)
    try:
        write_whole(Disk(), page, data)
    except OSError as error:
        raise UsageError(page, f"the page cannot be written ({error.strerror or error})") from error
    print(shown(headline(found, "en"), 400))
    print(f"wrote {page} ({size_text(len(data))}, opens in any browser, also without a network)")


# -- text for a terminal: runs as columns while they are few, as lines when they are many -----------------------------


def as_text(found: RunComparison, language: str) -> str:
    """Headline, results, settings, notes."""
    few = len(found.runs) <= MOST_COLUMNS
    parts = [
        [shown(headline(found, language), 200)],
        _as_columns(found, language) if few else _as_lines(found, language),
        *_differing(found, language),
        [
            line
            for note in found.notes
            for line in textwrap.wrap(f"- {shown(note.words(language), 700)}", WIDTH, subsequent_indent="  ")
        ],
    ]
    return "\n\n".join("\n".join(part) for part in parts if part)


def _as_columns(found: RunComparison, language: str) -> list[str]:
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


def _as_lines(found: RunComparison, language: str) -> list[str]:
    """Facts as columns, the best run first."""
    facts = [row for row in rows(found, language) if any(row.cells)]
    order = sorted(range(len(found.runs)), key=lambda place: _rank(found, place))
    table = [("", *(_fit(row.label, 16) for row in facts))]
    for place in order:
        cells = (_cell(row.cells[place], 20, star=place == row.leader) for row in facts)
        table.append((_fit(found.runs[place].label, LABEL), *cells))
    return [columns(table)]


def _rank(found: RunComparison, place: int) -> tuple[bool, float]:
    best = found.runs[place].best
    return best is None, 0.0 if best is None else -best.value if found.larger else best.value


def _differing(found: RunComparison, language: str) -> Iterator[list[str]]:
    """Settings, and what is not the same in the programs."""
    table = _values_as_columns if len(found.runs) <= MOST_COLUMNS else _runs_by_value
    yield table(found, "settings", found.differences, language) or [word("same settings", language)]
    yield table(found, "programs", found.programs, language)


def _values_as_columns(found: RunComparison, title: str, differences: Sequence[Difference], language: str) -> list[str]:
    widest = WIDEST[len(found.runs)]
    table = [(word(title, language), *(_fit(run.label, widest) for run in found.runs))]
    for difference in differences:
        cells = (_fit(cell, widest) for cell in cells_of(difference, language))
        table.append((_tail(difference.key, KEY), *cells))
    return [columns(table)] if differences else []


def _runs_by_value(found: RunComparison, title: str, differences: Sequence[Difference], language: str) -> list[str]:
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


def _cell(text: str, widest: int, *, star: bool) -> str:
    return _fit(text, widest) + (" *" if star and text else "")


def _fit(text: str, widest: int) -> str:
    text = shown(text, 200)
    return text if len(text) <= widest else f"{text[: widest - 1]}…"


def _tail(text: str, widest: int) -> str:
    """The end of a key says most."""
    text = shown(text, 200)
    return text if len(text) <= widest else f"…{text[1 - widest :]}"
