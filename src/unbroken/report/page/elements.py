"""The parts of the page as HTML; every text passes through `escaped` on its way in."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from unbroken.config import Difference
from unbroken.report.compare import RunComparison, Standing
from unbroken.report.messages import cells_of, headline, metric_rows, number, status_of, steps_of, time_of
from unbroken.report.page.figure import Plot, colour_of, reach_of
from unbroken.report.page.words import escaped, word
from unbroken.report.run_facts import RunFacts
from unbroken.report.segments import SessionSpan
from unbroken.storage import read_whole

PNG = b"\x89PNG\r\n\x1a\n"
LARGEST_PICTURE, LARGEST_ALL = 3_000_000, 15_000_000  # bytes
MOST_PICTURES = 3  # names, each of every run
TOP = " class=top"
MOST_SESSIONS = 200  # drawn of one run
SIGNS = {
    "smooth": '<path d="M1 7H23" stroke="currentColor" stroke-width="2.5"/>',
    "raw": '<path d="M1 9l4-6 4 8 4-7 4 6 6-7" stroke="currentColor" opacity=".35" fill="none"/>',
    "best": '<path d="M12 1l1.8 4 4.2.4-3.2 2.8 1 4.2L12 10.2 8.2 12.4l1-4.2L6 5.4l4.2-.4z" fill="currentColor"/>',
    "session": '<circle cx="12" cy="7" r="4.5" stroke="currentColor" stroke-width="2" fill="none"/>',
    "rewind": '<path d="M8 3l8 8M16 3l-8 8" class="grey" stroke-width="2"/>',
    "discarded": '<path d="M1 9l4-6 4 8 4-7 4 6 6-7" class="grey" fill="none"/>',
    "nan": '<path d="M8 3l8 8M16 3l-8 8" stroke="currentColor" stroke-width="4"/>',
}


def header(found: RunComparison, language: str) -> str:
    """What is best, in one sentence."""
    count = word("runs", language, count=len(found.runs))
    theme = f'<button id="theme" type="button" title="{word("theme", language)}">◐</button>'
    return f"<header><p class=over>{count}</p><h1>{escaped(headline(found, language))}</h1>{theme}</header>"


def notes(found: RunComparison, language: str) -> str:
    """What must not be overlooked."""
    if not found.notes:
        return ""
    items = "".join(f"<li>{escaped(note.words(language), 700)}</li>" for note in found.notes)
    return f"<section class=notes><h2>{word('notes', language)}</h2><ul>{items}</ul></section>"


def cards(found: RunComparison, facts: Sequence[RunFacts], language: str) -> str:
    """One card per run, which also hides and shows it."""
    reach = max([reach_of(facts), *(run.summary.total or 0 for run in facts)])
    each = (
        _card(place, run, facts[place].curves.sessions, reach, found, language) for place, run in enumerate(found.runs)
    )
    return f"<section class=cards>{''.join(each)}</section><p class=hint>{word('hide', language)}</p>"


def _card(
    place: int, run: Standing, sessions: Sequence[SessionSpan], reach: int, found: RunComparison, language: str
) -> str:
    leads = " leads" if place == found.leader else ""
    value = f"{number(run.best.value)}<small> @ {run.best.step:,}</small>" if run.best else "&ndash;"
    again = word("again", language, steps=f"{run.discarded:,}") if run.discarded else ""
    count = f"{run.sessions}" + (f" <span class=again>{again}</span>" if again else "")
    facts = [
        (word("last", language), number(run.at_last.get(found.metric)) if found.metric else ""),
        (word("loss", language), number(run.loss)),
        (word("steps", language), steps_of(run)),
        (word("time", language), time_of(run)),
        (word("samples", language), f"{run.samples:,}" if run.samples else ""),
        (word("origin", language), escaped(run.parent, 60)),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{fact}</dd></div>" for name, fact in facts if fact)
    listed += f"<div><dt>{word('sessions', language)}</dt><dd>{count}</dd></div>" if run.sessions else ""
    metric = f"<span class=metric>{escaped(found.metric, 40)}</span>" if found.metric else ""
    return (
        f'<button type="button" class="card{leads}" data-run="{place}" aria-pressed="true" '
        f'style="--run:{colour_of(place)}"><span class=name>{escaped(run.label)}</span>'
        f'<span class="status {_class_of(run)}">{escaped(status_of(run, language), 40)}</span>'
        f"<span class=best>{metric}{value}</span><dl>{listed}</dl>{_strip(sessions, reach, language)}</button>"
    )


def _class_of(run: Standing) -> str:
    return run.summary.status if run.summary.status in ("running", "finished", "lost") else "halted"


def _strip(sessions: Sequence[SessionSpan], reach: int, language: str) -> str:
    """The sessions along the steps: what is kept in the run's colour, what was discarded below it in grey."""
    bars = "".join(bar for session in sessions[:MOST_SESSIONS] for bar in _bars(session, reach, language))
    return f'<svg class=strip viewBox="0 0 1000 20" preserveAspectRatio="none" role="img">{bars}</svg>' if bars else ""


def _bars(session: SessionSpan, reach: int, language: str) -> Iterator[str]:
    kept_to = session.kept_to if session.kept_to is not None else session.base
    name, ended = escaped(session.name, 40), escaped(session.ended, 60)
    tip = word("session tip", language, name=name, first=session.base + 1, last=session.last, ended=ended)
    if kept_to > session.base:
        yield _bar("kept", session.base, kept_to, reach, tip)
    if session.last > kept_to:
        lost = word("discarded tip", language, first=kept_to + 1, last=session.last)
        yield _bar("lost", kept_to, session.last, reach, f"{lost} ({tip})")


def _bar(kind: str, first: int, last: int, reach: int, tip: str) -> str:
    begin, end = 1000 * first / reach, 1000 * last / reach
    y, height = (0, 9) if kind == "kept" else (12, 7)
    width = max(end - begin - 3, 2)
    return (
        f'<rect class={kind} x="{begin:.1f}" y="{y}" width="{width:.1f}" height="{height}"><title>{tip}</title></rect>'
    )


def plots(drawn: Sequence[Plot], language: str) -> str:
    """A place for each plot; those further down are drawn when they are opened."""
    if not drawn:
        return f"<section><h2>{word('curves', language)}</h2><p>{word('no curves', language)}</p></section>"
    first = "".join(_plot(place, plot, language) for place, plot in enumerate(drawn) if plot.open)
    rest = "".join(_plot(place, plot, language) for place, plot in enumerate(drawn) if not plot.open)
    more = f"<details><summary>{word('more', language)}</summary>{rest}</details>" if rest else ""
    return f"<section><h2>{word('curves', language)}</h2>{first}{more}</section>"


def _plot(place: int, plot: Plot, language: str) -> str:
    name = word("learning rate", language) if plot.name == "lr" else escaped(plot.name, 80)
    title = word("over steps", language, name=f"<b>{name}</b>")
    signs = "".join(f"<span>{_sign(sign)}{word(f'sign {sign}', language)}</span>" for sign in plot.signs)
    drawn = f"<span>{word('drawn', language, of=f'{plot.points:,}')}</span>" if plot.points else ""
    size = "low" if plot.name == "lr" else "high" if plot.evaluation and plot.open else ""
    return (
        f"<figure><figcaption>{title}</figcaption>"
        f'<div class="plot {size}" data-plot="{place}"></div><p class=signs>{signs}{drawn}</p></figure>'
    )


def _sign(sign: str) -> str:
    return f'<svg class=sign viewBox="0 0 24 14" aria-hidden="true">{SIGNS[sign]}</svg>'


def settings(found: RunComparison, language: str) -> str:
    """The settings that differ, and what differs of the programs; what is not as in the first run is marked."""
    title = f"<h2>{word('settings', language)}</h2>"
    if not found.differences:
        told = f"<section>{title}<p>{word('same settings', language)}</p></section>"
    else:
        told = _differing(found, title, "setting", found.differences, language)
    title = f"<h2>{word('programs', language)}</h2>"
    return told + (_differing(found, title, "program", found.programs, language) if found.programs else "")


def _differing(found: RunComparison, title: str, corner: str, differences: Sequence[Difference], language: str) -> str:
    body = []
    for difference in differences:
        cells = cells_of(difference, language)
        marked = ["" if cell == cells[0] else " class=other" for cell in cells]
        columns = "".join(f"<td{mark}>{escaped(cell, 160)}</td>" for cell, mark in zip(cells, marked))
        body.append(f"<tr><th scope=row>{escaped(difference.key, 160)}</th>{columns}</tr>")
    hint = f"<p class=hint>{escaped(word('marked', language, run=found.runs[0].label))}</p>"
    return f"<section>{title}{_table(word(corner, language), found, body)}{hint}</section>"


def results(found: RunComparison, language: str) -> str:
    """Every metric, at the best step and at the last evaluation; those of parts, whose names are paths, fold away."""
    lines: dict[bool, list[str]] = {False: [], True: []}
    for name, at_best, at_last in metric_rows(found):
        strong = found.leader if name == found.metric else None
        cells = "".join(
            f"<td{TOP if place == strong else ''}>{best or '&ndash;'}{f' <small>{last}</small>' if last else ''}</td>"
            for place, (best, last) in enumerate(zip(at_best, at_last))
        )
        lines["/" in name].append(f"<tr><th scope=row>{escaped(name, 80)}</th>{cells}</tr>")
    whole, parts = (_table(word("metric", language), found, body) if body else "" for body in lines.values())
    if not whole and not parts:
        return ""
    more = f"<details><summary>{word('parts', language)}</summary>{parts}</details>" if parts else ""
    hint = f"<p class=hint>{word('best and last', language)}</p>"
    return f"<section><h2>{word('results', language)}</h2>{whole}{hint}{more}</section>"


def _table(corner: str, found: RunComparison, body: Sequence[str]) -> str:
    head = "".join(
        f"<th scope=col><span class=run>{_swatch(place)}{escaped(run.label)}</span></th>"
        for place, run in enumerate(found.runs)
    )
    rows = f"<thead><tr><th>{corner}</th>{head}</tr></thead><tbody>{''.join(body)}</tbody>"
    return f"<div class=table><table>{rows}</table></div>"


def _swatch(place: int) -> str:
    return f'<i class=swatch style="background:{colour_of(place)}"></i>'


def predictions(found: RunComparison, facts: Sequence[RunFacts], language: str) -> str:
    """The same samples as each run saw them, at its best step or at its last."""
    chosen = [_chosen(run, standing) for run, standing in zip(facts, found.runs)]
    names = _common_names([pictures for _, pictures in chosen])
    if not names:
        return ""
    room, refused, groups = LARGEST_ALL, 0, []
    for name in names:
        shown = []
        for place, (step, pictures) in enumerate(chosen):
            data = _png(pictures[name], min(room, LARGEST_PICTURE)) if name in pictures else b""
            refused += not data and name in pictures
            room -= len(data)
            if data:
                label = f"{_swatch(place)}{escaped(found.runs[place].label)} <small>@ {step:,}</small>"
                source = base64.b64encode(data).decode()
                shown.append(
                    f'<figure><img alt="{escaped(name)}" src="data:image/png;base64,{source}">'
                    f"<figcaption>{label}</figcaption></figure>"
                )
        groups.append(f"<h3>{escaped(name)}</h3><div class=pictures>{''.join(shown)}</div>" if shown else "")
    hint = f"<p class=hint>{word('no pictures', language, count=refused)}</p>" if refused else ""
    return f"<section><h2>{word('predictions', language)}</h2>{''.join(groups)}{hint}</section>"


def _chosen(run: RunFacts, standing: Standing) -> tuple[int, Mapping[str, Path]]:
    """The pictures of the best step; where there are none, of the last."""
    best = standing.best.step if standing.best else -1
    step = best if best in run.pictures else max(run.pictures, default=0)
    return step, run.pictures.get(step, {})


def _common_names(pictures: Sequence[Mapping[str, Path]]) -> list[str]:
    """The names that most runs have, in their order."""
    names = dict.fromkeys(name for named in pictures for name in named)
    count = {name: sum(name in named for named in pictures) for name in names}
    return sorted(names, key=lambda name: -count[name])[:MOST_PICTURES]


def _png(path: Path, most: int) -> bytes:
    """The bytes of a picture; none of what is too large or no PNG."""
    try:
        data = read_whole(path, most_bytes=most)
    except OSError:
        return b""
    return data if data.startswith(PNG) else b""


def footer(command: str, moment: str, language: str) -> str:
    """Where the page comes from."""
    made = f"{word('made', language)} {escaped(moment)}"
    return f"<footer><p>{word('command', language)} <code>{escaped(command, 600)}</code> {made}</p></footer>"
