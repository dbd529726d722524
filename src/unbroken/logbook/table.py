"""`experiments_log.txt`: its lines and tables read, brought up to date and written again. Pure: text in, text out.

A *table* is a header that names a tag and a result, and the rows below it; any other line is a note and stays as it
is. An *entry* is what there is to say of one run. A cell belongs to the person who wrote it: only what unbroken itself
wrote into it before, or a place held open for a result (`mAP: 0.xx`), is replaced.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from unbroken.text import width_of

FILE_NAME = "experiments_log.txt"
DATE, TAG, CONFIG, RESULT = "date", "tag", "config", "result"
HEADERS = {
    "zh": {DATE: "日期", TAG: "标签", CONFIG: "配置说明", RESULT: "结果"},
    "en": {DATE: "Date", TAG: "Tag", CONFIG: "What differs", RESULT: "Result"},
}
WIDTHS = {DATE: 10, TAG: 22, CONFIG: 32}  # of the guide's table: what is longer makes its column wider
WIDEST = 60  # what is longer still sticks out, and does not push the other rows apart
SEPARATORS = {"zh": "；", "en": "; "}

_BAR = re.compile(r"(?<!\\)\|")
_DAY = re.compile(r"\d{4}[-/.年]\d{1,2}")
_NAMES = {
    DATE: r"日期|时间|date|day|when",
    TAG: r"(实验)?(标签|名称|名)|tags?|extra_tag|(experiment|run)( name| tag)?",
    CONFIG: r"配置.{0,6}|说明|what differs|config(uration)?|settings?|changes?|description",
    RESULT: r"结果.{0,20}|(best )?results?.{0,20}|指标.{0,20}|metrics?|scores?",
}
_GOES_ON, _BEGAN_BEFORE = re.compile(r"\.?[A-Za-z0-9_]"), re.compile(r"[A-Za-z0-9_.]")
# A place held open for a result: `mAP: 0.xx`, `-`, `?`, `TBD`. What follows it is a note of its own.
_OPEN = re.compile(
    r"(?:[\w@.% -]{1,30}[:：=]\s*)?"
    r"(?:\d*\.[xX?]+%?|[xX?]{2,}%?|\?|[-—–_]+|\.{3}|…|tbd|todo|n/a|待定|待填|待补)(?![\w.])",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What there is to say of one run, and what was said before: texts once written, by column, the newest last."""

    label: str
    names: tuple[str, ...]  # under which its row may stand, the likeliest first
    date: str
    config: str
    result: str
    written: Mapping[str, Sequence[str]] = field(default_factory=dict)
    others: Sequence[str] = ()  # results of runs that bore this label before: their rows are not this run's
    ours: re.Pattern[str] | None = None  # how a result of ours reads, where one may stand that is not in `written`


@dataclass(frozen=True, kw_only=True)
class RowChange:
    """What became of one entry's row: added, updated or unchanged; `cells` are what unbroken has said in it."""

    label: str
    what: str
    cells: Mapping[str, str]
    row: Mapping[str, str]  # the whole cells, with what others wrote into them


@dataclass(kw_only=True)
class _Table:
    """A header and the rows below it, by their places among the lines."""

    header: int
    columns: Mapping[str, int]
    width: int  # how many cells the header has
    boxed: bool  # whether lines begin with a bar, as in Markdown
    rule: int | None = None
    rows: list[int] = field(default_factory=list)
    changed: bool = False


class Book:
    """The file's lines, and its tables."""

    def __init__(self, text: str) -> None:
        parts = re.split(r"(\r\n|\n|\r)", text)
        self._lines, self._endings = parts[::2], [*parts[1::2], ""]
        if not self._lines[-1]:
            del self._lines[-1], self._endings[-1]
        self._ending = next((ending for ending in self._endings if ending), "\n")
        self._tables = list(_tables(self._lines))

    @property
    def language(self) -> str:
        """The language of the last header; "" where there is no table yet."""
        if not self._tables:
            return ""
        header = self._lines[self._tables[-1].header]
        return "zh" if re.search(r"[\u4e00-\u9fff]", header) else "en"

    @property
    def text(self) -> str:
        """The whole file."""
        return "".join(line + ending for line, ending in zip(self._lines, self._endings))

    @property
    def rows(self) -> list[list[str]]:
        """The cells of every row, in their order."""
        return [cells_of(self._lines[row]) for table in self._tables for row in table.rows]

    def speak(self, language: str) -> None:
        """Put the headers that are ours into another language."""
        ours = {word: name for words in HEADERS.values() for name, word in words.items()}
        for table in self._tables:
            cells = cells_of(self._lines[table.header])
            said = [HEADERS[language][ours[cell]] if cell in ours else cell for cell in cells]
            if said != cells:
                self._put(table, table.header, said)

    def update(self, entries: Sequence[Entry], language: str) -> list[RowChange]:
        """Bring the rows of these runs up to date, add those that have none; every other line stays."""
        if not self._tables:
            self._begin_table(language)
        found = self._places_of(entries)
        done = [self._updated(entry, *place, language) if place else None for entry, place in zip(entries, found)]
        new = [entry for entry, place in zip(entries, found) if place is None]
        added = {entry.label: self._add(entry) for entry in sorted(new, key=lambda item: (item.date, item.label))}
        self._align()
        return [change or added[entry.label] for entry, change in zip(entries, done)]

    def _by_tag(self) -> dict[str, list[tuple[_Table, int]]]:
        found: dict[str, list[tuple[_Table, int]]] = {}
        for table in self._tables:
            for row in table.rows:
                name = unicodedata.normalize("NFC", self._cell(table, row, TAG))
                found.setdefault(name, []).append((table, row))
        return found

    def _places_of(self, entries: Sequence[Entry]) -> list[tuple[_Table, int] | None]:
        """The row of each, found before one is added; who has written into a row comes before who bears its name."""
        rows, free = self._by_tag(), {row for table in self._tables for row in table.rows}
        found: list[tuple[_Table, int] | None] = [None] * len(entries)
        for has_written in (True, False):
            for number, entry in enumerate(entries):
                place = found[number] or self._place_of(entry, rows, free, has_written=has_written)
                free -= {place[1]} if place else set()
                found[number] = place
        return found

    def _place_of(
        self,
        entry: Entry,
        rows: Mapping[str, Sequence[tuple[_Table, int]]],
        free: Collection[int],
        *,
        has_written: bool,
    ) -> tuple[_Table, int] | None:
        def is_his(place: tuple[_Table, int]) -> bool:
            said = self._cell(*place, RESULT)
            own, others = (_longest(texts, said) for texts in (entry.written.get(RESULT, ()), entry.others))
            if not entry.written and entry.ours is not None and entry.ours.match(said) is not None:
                return place[1] in free and _stands_in(entry.result, said) is not None  # else of a run that is gone
            return place[1] in free and own >= others and (own > 0 or not has_written)

        for name in entry.names:
            places = list(filter(is_his, rows.get(name, ())))
            of_that_day = [place for place in places if self._cell(*place, DATE) == entry.date]
            if places:
                return (of_that_day or places)[-1]
        return None

    def _updated(self, entry: Entry, table: _Table, row: int, language: str) -> RowChange:
        cells, said = cells_of(self._lines[row]), {DATE: entry.date, TAG: entry.label, CONFIG: entry.config}
        cells += [""] * (table.width - len(cells))
        before = list(cells)
        ours: dict[str, str] = {}
        for name, now in {**said, RESULT: entry.result}.items():
            if name not in table.columns:
                continue
            at, known = table.columns[name], [*entry.written.get(name, ())]
            if name == RESULT and entry.ours is not None and (found := entry.ours.match(cells[at])) is not None:
                known.insert(0, found[0])
            cells[at] = merged(cells[at], now, known, before=SEPARATORS[language] if name == RESULT else "")
            # What a person wrote is not ours, even where we would say the same; a tag is whose row it is.
            if now and now in cells[at] and (cells[at] != before[at] or now in known or name == TAG):
                ours[name] = now
        if cells != before:
            self._put(table, row, cells)
        row_now = {name: cells[at] for name, at in table.columns.items()}
        what = "unchanged" if cells == before else "updated"
        return RowChange(label=entry.label, what=what, cells=ours, row=row_now)

    def _add(self, entry: Entry) -> RowChange:
        table = self._tables[-1]
        said = {DATE: entry.date, TAG: entry.label, CONFIG: entry.config, RESULT: entry.result}
        cells = [""] * table.width
        for name, at in table.columns.items():
            cells[at] = said[name]
        row = 1 + (table.rows[-1] if table.rows else table.rule or table.header)
        self._insert(row, "")
        table.rows.append(row)
        self._put(table, row, cells)
        put = {name: said[name] for name in table.columns}
        return RowChange(label=entry.label, what="added", cells=put, row=put)

    def _begin_table(self, language: str) -> None:
        if self._lines and self._lines[-1].strip():
            self._insert(len(self._lines), "")
        header = len(self._lines)
        for _ in range(2):
            self._insert(len(self._lines), "")
        columns = {name: place for place, name in enumerate(HEADERS[language])}
        table = _Table(header=header, columns=columns, width=len(columns), boxed=False, rule=header + 1)
        self._tables.append(table)
        self._put(table, header, list(HEADERS[language].values()))

    def _insert(self, place: int, line: str) -> None:
        if place and not self._endings[place - 1]:
            self._endings[place - 1] = self._ending
        self._lines.insert(place, line)
        self._endings.insert(place, self._ending)

    def _cell(self, table: _Table, row: int, name: str) -> str:
        at, cells = table.columns.get(name), cells_of(self._lines[row])
        return cells[at] if at is not None and at < len(cells) else ""

    def _put(self, table: _Table, row: int, cells: Sequence[str]) -> None:
        table.changed = True
        self._lines[row] = " | ".join(cells)

    def _align(self) -> None:
        for table in self._tables:
            if not table.changed:
                continue
            lines = {row: cells_of(self._lines[row]) for row in (table.header, *table.rows)}
            rule = self._lines[table.rule] if table.rule is not None else ""
            widths = _widths(table, list(lines.values()), rule)
            for row, cells in lines.items():
                self._lines[row] = _line(cells, widths, boxed=table.boxed)
            if table.rule is not None:
                self._lines[table.rule] = _rule(widths, boxed=table.boxed)


def cells_of(line: str) -> list[str]:
    """What stands between the bars of a line; a bar behind a backslash is none."""
    return [part.strip() for part in _BAR.split(line)]


def merged(cell: str, now: str, written: Sequence[str], *, before: str = "") -> str:
    """The cell with what is to be said `now` in the place of what was `written`; all else in it stays.

    Where a person's own words fill it, they stay alone, or with `before` stand behind what is new.
    """
    if not cell:
        return now
    if not now:
        return cell
    if (place := _place_of_ours(written, cell)) is not None:
        return cell[: place.start] + now + cell[place.stop :]
    if not before or _stands_in(now, cell):
        return cell
    if (held_open := _OPEN.match(cell)) is not None:
        return now + cell[held_open.end() :]
    return cell if now in written[-1:] else now + before + cell  # said before and taken out: let it be


def _place_of_ours(written: Sequence[str], cell: str) -> slice | None:
    """Where the newest text of ours stands; a longer one that begins there is meant: `mAP: 0.8, stopped at 3 steps`."""
    places = [place for text in reversed(written) if text and (place := _stands_in(text, cell)) is not None]
    return max((place for place in places if place.start == places[0].start), key=lambda at: at.stop, default=None)


def _longest(texts: Iterable[str], cell: str) -> int:
    """How long the longest text is that stands in a cell; 0 where none does."""
    return max((len(text) for text in texts if text and _stands_in(text, cell) is not None), default=0)


def _stands_in(text: str, cell: str) -> slice | None:
    """Where a text stands in a cell as a whole: `mAP: 0.8` does not stand in `mAP: 0.83`."""
    place = cell.find(text)
    while place >= 0:
        end = place + len(text)
        if not _GOES_ON.match(cell, end) and not _BEGAN_BEFORE.search(cell[max(place - 1, 0) : place]):
            return slice(place, end)
        place = cell.find(text, place + 1)
    return None


def _tables(lines: Sequence[str]) -> Iterator[_Table]:
    table: _Table | None = None
    for place, line in enumerate(lines):
        cells = cells_of(line)
        if (columns := _columns(cells)) is not None:
            if table is not None:
                yield table
            table = _Table(
                header=place, columns=columns, width=len(cells), boxed=not cells[0] and line.lstrip().startswith("|")
            )
        elif table is not None and _is_rule(line):
            if table.rule is None and place == table.header + 1:
                table.rule = place
        elif table is not None and _is_row(cells, table):
            table.rows.append(place)
    if table is not None:
        yield table


def _is_rule(line: str) -> bool:
    return bool(set(line) & set("-=─")) and set(line) <= set(" \t|+:=─-")


def _columns(cells: Sequence[str]) -> dict[str, int] | None:
    if len(cells) < 2 or any(_DAY.match(cell) for cell in cells):
        return None
    found: dict[str, int] = {}
    for place, cell in enumerate(cells):
        for name, words in _NAMES.items():
            if name not in found and re.fullmatch(words, cell, re.IGNORECASE):
                found[name] = place
                break
    return found if TAG in found and RESULT in found else None


def _is_row(cells: Sequence[str], table: _Table) -> bool:
    """As many cells as the header, or fewer behind a date; without a tag it is nobody's."""
    at = table.columns[TAG]
    if len(cells) <= at or not cells[at]:
        return False
    day = table.columns.get(DATE)
    dated = day is not None and day < len(cells) and _DAY.match(cells[day]) is not None
    return len(cells) >= 2 and (len(cells) >= table.width or dated)


def _widths(table: _Table, rows: Sequence[Sequence[str]], rule: str) -> list[int]:
    known = {at: WIDTHS.get(name, 0) for name, at in table.columns.items()}
    drawn = [len(part) - 2 for part in _BAR.split(rule)] if rule else []
    return [
        max(
            known.get(place, 0) if not drawn else 0,
            min(drawn[place], WIDEST) if place < len(drawn) else 0,
            *(min(width_of(row[place]), WIDEST) for row in rows if place < len(row)),
        )
        for place in range(table.width)
    ]


def _line(cells: Sequence[str], widths: Sequence[int], *, boxed: bool) -> str:
    padded = [
        cell + " " * (widths[place] - width_of(cell) if place < len(widths) else 0) for place, cell in enumerate(cells)
    ]
    return (f"| {' | '.join(padded[1:])}" if boxed else " | ".join(padded)).rstrip()


def _rule(widths: Sequence[int], *, boxed: bool) -> str:
    if boxed:
        inner = widths[1:] if widths[-1] else widths[1:-1]
        return f"|{'|'.join('-' * (width + 2) for width in inner)}|"
    first, *others = widths
    return "|".join(["-" * (first + 1), *("-" * (width + 2) for width in others)])
