"""Each kind of event is one class: what is written has one, what is read is written, what is unknown is kept."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from unbroken.clock import SystemClock
from unbroken.journal import Event, Journal, read_events, read_journal
from unbroken.journal.events import Evaluated, FileSaved, SessionBegan, Unknown
from unbroken.storage import Disk

ROOT = Path(__file__).resolve().parents[3]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
WRITE = re.compile(r"(journal|said)\.write$|^record$|^self\._record$")
NAMES = {name for name in Event.KINDS if name != "unknown"}


def constants() -> dict[str, str]:
    """Names of events that a module has given a name of its own."""
    found = {}
    for path in SOURCES:
        for node in ast.parse(path.read_text("utf-8")).body:
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(value))) if value in NAMES:
                    found[f"{path.stem}.{name}"] = value
    return found


def written() -> Iterator[tuple[str, set[str], str]]:
    """The name and the facts of each event that the sources write, and where."""
    known = constants()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(func=func, args=[first, *_], keywords=facts) if WRITE.search(ast.unparse(func)):
                    word = ast.unparse(first)
                    word = word if "." in word else next((each for each in known if each.endswith(f".{word}")), "")
                    name = first.value if isinstance(first, ast.Constant) else known.get(word)
                    if isinstance(name, str):
                        given = {fact.arg for fact in facts if fact.arg is not None}
                        yield name, given, f"{path.relative_to(ROOT)}:{node.lineno}"
                case ast.Dict(keys=[ast.Constant(value="event"), *keys], values=[ast.Constant(value=str(name)), *_]):
                    given = {key.value for key in keys if isinstance(key, ast.Constant)}
                    yield name, given, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_whatever_is_written_has_a_class_that_knows_each_of_its_facts() -> None:
    found = [*written()]
    assert len(found) > 25
    for name, given, where in found:
        assert name in NAMES, f"{where} writes {name!r}"
        assert given <= {each.name for each in fields(Event.class_of(name))}, f"{where}: {name!r}"


def test_no_class_is_of_an_event_that_nobody_writes() -> None:
    assert {name for name, _, _ in written()} == NAMES


def test_no_name_is_read_that_nobody_writes() -> None:
    """`archived` was read in two places, and written nowhere."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Match(subject=subject, cases=cases) if ast.unparse(subject).endswith(".get('event')"):
                    spoken = [each.pattern for each in cases]
                case ast.Compare(left=left, comparators=spoken) if ast.unparse(left).endswith(
                    ("get('event')", "['event']")
                ):
                    pass
                case _:
                    continue
            words = {each.value for one in spoken for each in ast.walk(one) if isinstance(each, ast.Constant)}
            texts = {word for word in words if isinstance(word, str) and word != "checkpoint"}
            assert texts <= NAMES, f"{path.relative_to(ROOT)}: {sorted(texts - NAMES)}"


def test_an_event_is_read_as_the_class_of_its_name_and_still_is_its_line(tmp_path: Path) -> None:
    journal = Journal(Disk(), tmp_path / "journal.jsonl", clock=SystemClock(), session="20260205_180000")
    journal.write("saved", file="iter_5.pth", step=5, kind="checkpoint", sha256="a" * 64)
    journal.write("evaluated", step=5, metrics={"mIoU": 41.0}, metric=None, best=False)
    journal.close()
    saved, evaluated = read_events(tmp_path / "journal.jsonl")
    assert isinstance(saved, FileSaved) and (saved.file, saved.step, saved.session) == (
        "iter_5.pth",
        5,
        "20260205_180000",
    )
    assert isinstance(evaluated, Evaluated) and evaluated.metric is None and evaluated.metrics == {"mIoU": 41.0}
    assert [dict(saved), dict(evaluated)] == [*map(json.loads, (tmp_path / "journal.jsonl").read_text().splitlines())]


def test_what_a_later_version_writes_is_kept(tmp_path: Path) -> None:
    """Another kind of event, and another fact of a known one."""
    lines = [
        {"time": "2027-01-01T00:00:00Z", "session": "s", "event": "sharded", "ranks": 8},
        {"time": "2027-01-01T00:00:00Z", "session": "s", "event": "saved", "file": "iter_5.pth", "shards": 2},
        {"event": "session"},
    ]
    (tmp_path / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    told = read_journal(tmp_path / "journal.jsonl")
    assert [type(event) for event in told.events] == [Unknown, FileSaved, SessionBegan] and not told.damaged
    assert [event.name for event in told.events] == ["sharded", "saved", "session"]
    assert told.events[0]["ranks"] == 8 and told.events[1]["shards"] == 2 and told.events[1].get("step") is None


@pytest.mark.parametrize(
    "line", [{"event": 3}, {"event": "saved"}, {"event": "oom", "step": 1}, {"event": "x", "time": 5}]
)
def test_a_line_without_what_its_event_is_nothing_without_is_damage(tmp_path: Path, line: dict[str, object]) -> None:
    (tmp_path / "journal.jsonl").write_text(json.dumps(line) + "\n")
    assert len(read_journal(tmp_path / "journal.jsonl").damaged) == 1
