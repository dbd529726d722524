"""Records that hold what they should not: named with file, line and field, believed by nobody, in nobody's way."""

from __future__ import annotations

import copy
import json
import os
import random
import shutil
import sqlite3
import zipfile
from contextlib import closing
from dataclasses import fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from tests.unbroken.cli.typing_commands import Type, typing
from tests.unbroken.real_runs import job, look
from tests.unbroken.train.test_all_or_nothing import Training, dataset
from unbroken.checkpoint.manifest import Manifest
from unbroken.fields import BadField, typed
from unbroken.journal import Event, read_steps
from unbroken.journal.file import numbered_lines
from unbroken.launch import Refuse, decide, gather
from unbroken.launch.explain import explain
from unbroken.launch.forecast import Kills, forecast_lines, last_timing
from unbroken.launch.job import Limit
from unbroken.launch.schedule import rates_of
from unbroken.report.index import IndexRow
from unbroken.run import Restoring, RunRecord, RunView
from unbroken.run.survey import damaged_records
from unbroken.storage.lock import Holder
from unbroken.storage.stop_request import StopRequest
from unbroken.train import open_run
from unbroken.train.stop import Exit

SEED = int(os.environ.get("DAMAGE_SEED", "20261130"))
TRIALS = int(os.environ.get("DAMAGE_TRIALS", "6"))
DOCUMENTED = {0, 2, 10, 11, 12, 13, 14, 75}
GONE = object()
WRONG: list[Any] = [
    GONE, None, True, -1, 0, 2**62, 2**70, 10**400, -(2**70), 1.5, float("nan"), float("inf"), 1e300, "x", "", "nan",
    "\ud800", [], [None], [[]], [["x", 1]], {}, {"x": None}, {"": {}}, [{"step": "x"}], {"step": "x"},
    {"threads": "x"}, {"metric": 1, "value": "x", "step": 2}, {"size": "x", "epochs": -1, "used": 1.5},
]  # fmt: skip
MAY_BE_NEGATIVE = ("plan", "metrics", "environment", "left_s", "value", "not_replaced_by")
NEVER = {"\x1b": [[[]]]}  # what no field may be
DEEP = b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
WHOLE = {
    "nothing": b"",
    "half": b'{"id": "a',
    "null": b"null\n",
    "a number": b"5\n",
    "a list": b"[]\n",
    "text": b'"x"\n',
    "more after it": b"{} {}\n",
    "too deep": DEEP,
    "too deep for a reader": b'{"id": ' + b"[" * 900 + b"]" * 900 + b"}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "another encoding": '{"id": "基线"}'.encode("gbk"),
    "a mark in front": b"\xef\xbb\xbf[]",
    "zeros": b"\0" * 512,
    "an object of nothing": b"{}",
}


def train(folder: Path, training: Training, *, until: int = 99, evaluate: int = 0) -> None:
    with open_run(folder, tag="t", save_every=2, keep_last=3) as run:
        run.track(**training.parts())
        for _ in run.batches(dataset(), batch_size=4, steps=8):
            training.step()
            run.end_step(loss=1.0 + run.step, lr=0.1)
            if evaluate and run.step % evaluate == 0:
                run.record_evaluation(best="score", score=run.step / 100)
            if run.step == until:
                break


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of two sessions, left after six of its eight steps, with an evaluation and best weights."""
    folder = tmp_path_factory.mktemp("made")
    train(folder, Training(), until=4, evaluate=3)
    train(folder, Training(seed=1), until=6, evaluate=3)
    own = folder / "t" / "unbroken"
    whole = Path(shutil.copytree(folder, folder / "whole", symlinks=True))
    train(whole, Training(seed=1))
    with (own / "metrics.jsonl").open("a") as metrics:  # steps of the last session beyond its last save
        session = lines_of(own / "metrics.jsonl")[-1]["session"]
        for line in lines_of(whole / "t" / "unbroken" / "metrics.jsonl"):
            if line.get("step", 0) > 6:
                metrics.write(json.dumps({**line, "session": session}) + "\n")
    shutil.rmtree(whole)
    (own / "stop.json").write_text('{"session": "20260101_000000", "host": "a", "pid": 5, "time": "2026-01-01T00:00"}')
    (own / "pins.json").write_text('{"iter_2.pth": {"note": "kept", "time": "2026-01-01T00:00"}}')
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "runs", symlinks=True))


@pytest.fixture
def type_(capsys: pytest.CaptureFixture[str]) -> Type:
    return typing(capsys)


def own(folder: Path) -> Path:
    return folder / "t" / "unbroken"


def records(folder: Path) -> list[Path]:
    """The records that are one JSON object each."""
    named = (own(folder) / name for name in ("run.json", "holder.json", "stop.json"))
    return [*(path for path in named if path.exists()), *sorted((own(folder) / "manifests").iterdir())]


def with_field(record: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    changed = copy.deepcopy(record)
    if value is GONE:
        changed.pop(name)
    else:
        changed[name] = value
    return changed


def put_line(file: Path, place: int, record: object) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    lines[place] = record if isinstance(record, bytes) else json.dumps(record).encode() + b"\n"
    file.write_bytes(b"".join(lines))


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_bytes().splitlines()]


# -- what is believed ------------------------------------------------------------------------------------------------


def fits(value: Any, kind: type) -> bool:
    """What a field may be, in the words of this test."""
    if kind is int:
        return type(value) is int and 0 <= value < 2**63
    if kind is float:
        return type(value) in (int, float) or value in ("nan", "inf", "-inf")
    return type(value) is kind


@pytest.mark.parametrize("kind", [RunRecord, Manifest, Holder, StopRequest, Restoring], ids=lambda kind: kind.__name__)
def test_a_record_is_read_as_what_its_fields_are_or_the_field_is_named(made: Path, kind: type) -> None:
    sound = {
        RunRecord: "run.json", Holder: "holder.json", StopRequest: "stop.json", Manifest: "manifests/iter_6.pth.json",
    }  # fmt: skip
    record = {"name": "a", "aside": "b", "moved_aside": True}
    if kind in sound:
        record = json.loads((own(made) / sound[kind]).read_text())
    assert typed(kind, record) is not None
    refused = 0
    for name, before in record.items():
        for value in WRONG:
            try:
                found = getattr(typed(kind, with_field(record, name, value)), name)
            except BadField as error:
                refused += 1
                assert error.field.split(".")[0].split("[")[0] == name and f"field {name}" in str(error)
                assert len(str(error)) < 200
            else:
                optional = value in (GONE, None)
                assert optional or fits(found, type(before)) or before is None or name == "seed", (name, value)
    assert refused > 10 * len(record)


def test_no_field_of_an_event_is_believed_that_is_not_of_its_kind(made: Path) -> None:
    events = lines_of(own(made) / "journal.jsonl")
    assert [dict(Event.of(event)) for event in events] == events
    for kind in Event.KINDS:
        checked = {each.name for each in fields(Event.class_of(kind)) if str(each.type) != "Any"}
        for name in checked - {"time", "session"}:
            needed = {"step": 1, "file": "a", "to": "b", "samples": [], "after": 1}
            for value in (10**30, [[{}]], "x" if name in MAY_BE_NEGATIVE else -5.5):
                record = {**needed, "time": "2026-01-01", "session": "s", "event": kind, name: value}
                with pytest.raises(BadField, match=f"^field {name}"):
                    Event.of(record)


@pytest.mark.parametrize("name", ["../../scripts", "/tmp/x", "a/b", "..", "C:\\x", "nul", "a\0b", "s" * 5000])
def test_an_event_of_a_session_whose_name_is_no_name_is_damage(folder: Path, type_: Type, name: str) -> None:
    """A name of a session names files: a line with another one is of no session of this run."""
    before = sessions_shown(folder, type_)
    with (own(folder) / "journal.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"time": "2026-11-22T00:00:00+00:00", "session": name, "event": "timing"}) + "\n")
    for command in ("verify", "audit"):
        answer = type_(command, folder / "t")
        assert answer.code == 12 and "field session: expected the name of a session" in answer.out, answer
    assert sessions_shown(folder, type_) == before


def sessions_shown(folder: Path, type_: Type) -> list[str]:
    """When a run was last seen, and its sessions."""
    shown = type_("show", folder / "t").out.split("\nfiles")[0].splitlines()
    return [line for line in shown if not line.startswith("folder:")]


# -- nobody stumbles -------------------------------------------------------------------------------------------------


def looked_at(folder: Path, type_: Type) -> dict[str, str]:
    """What every command that looks says of a run; each ends as its documentation says."""
    run, said = folder / "t", {}
    pack, mirror = folder.parent / "run.zip", folder.parent / "mirror"
    commands: list[tuple[object, ...]] = [
        ("show", run), ("show", run, "--json"), ("verify", run), ("verify", run, "--json"), ("audit", run),
        ("audit", run, "--verify", "--json"), ("ls", folder), ("ls", folder, "--json"), ("compare", run, run),
        ("watch", run), ("stop", run), ("prune", run), ("pin", run), ("restore", run), ("log", folder),
        ("backup", run, mirror), ("pack", run, pack), ("inspect", run / "iter_6.pth"),
    ]  # fmt: skip
    for words in commands:
        answer = type_(*words)
        text = answer.out + answer.err
        assert answer.code in DOCUMENTED and "Traceback" not in text, (words, text[-3000:])
        said[" ".join(map(str, words[:1]))] = said.get(str(words[0]), "") + text
    said["why"] = why(run)
    return said


def why(run: Path) -> str:
    asked = replace(
        job(run), tag="t", config={}, lr_at=lambda step: 0.1 / (1 + step), total_steps=8,
        limit=Limit(left_s=3600.0, reserve_s=60.0, source="a test"),
    )  # fmt: skip
    facts = gather(asked)
    found = decide(asked, facts)
    rates_of(asked, found)
    now = datetime(2026, 11, 30)
    lines = [*explain(asked, found).lines, *forecast_lines(asked, found, last_timing(facts, found), Kills(), now)]
    return "\n".join(lines) + ("\nREFUSED" if isinstance(found, Refuse) else "")


def damage(folder: Path, chance: random.Random) -> list[tuple[str, str]]:
    """Damage some of a run's records, a field each; returns place and field of each that nobody can believe."""
    laid = []
    for path in records(folder):
        if chance.random() < 0.5:
            continue
        record = json.loads(path.read_text())
        name, value = chance.choice(list(record)), chance.choice(WRONG)
        path.write_text(json.dumps(with_field(record, name, value)))
        laid.append((path.relative_to(folder / "t").as_posix(), name, value))
    for file in (own(folder) / "journal.jsonl", own(folder) / "metrics.jsonl"):
        lines = lines_of(file)
        for place in chance.sample(range(len(lines)), k=chance.choice([1, 3])):
            name, value = chance.choice(list(lines[place])), chance.choice([*WRONG, NEVER])
            put_line(file, place, with_field(lines[place], name, value))
            if file.name == "journal.jsonl" and name in ("time", "session", "event", "step", "file", "plan"):
                laid.append((f"unbroken/journal.jsonl line {place + 1}", name, value))
    return [(place, name) for place, name, value in laid if value == NEVER or (value == [[]] and name != "conditions")]


def assert_named(said: dict[str, str], place: str, words: str) -> None:
    """That each command which speaks of the health of a run names what is damaged in it."""
    for command in ("why", "show", "verify", "audit"):
        short = place.removeprefix("unbroken/")  # an audit calls what it judges by its name alone
        named = f"{place}: {words}" in said[command] or f"{short}: {words}" in said[command]
        assert named or "more damaged records" in said[command], (command, place, words, said[command])


@pytest.mark.parametrize("trial", range(TRIALS))
def test_whatever_stands_in_a_field_every_command_looks_on_and_the_training_goes_on(
    folder: Path, type_: Type, trial: int
) -> None:
    print(f"seed {SEED}, trial {trial}")
    if trial % 3 == 2:
        train(folder, Training(seed=1), evaluate=3)
    for place, name in damage(folder, random.Random(SEED * 1000 + trial)):
        seen = {str(item).partition(": field ")[0]: item.words for item in damaged_records(RunView(folder / "t"))}
        assert f"field {name}" in seen[place], (place, name, seen)
    said = looked_at(folder, type_)
    for item in damaged_records(RunView(folder / "t")):
        assert_named(said, str(item).partition(": ")[0], item.words)
    assert "REFUSED" not in said["why"], said["why"]
    train(folder, Training(seed=1), evaluate=3)
    assert look(folder / "t").newest_good is not None and look(folder / "t").newest_good.step == 8


@pytest.mark.parametrize("trial", range(4))
def test_whatever_a_record_holds_every_command_looks_on_and_the_training_goes_on(
    folder: Path, type_: Type, trial: int
) -> None:
    contents = list(WHOLE.values())[trial::2] if trial < 2 else list(WHOLE.values())[:: 1 - 2 * (trial % 2)]
    for place, path in enumerate([*records(folder), *(own(folder) / "configs").iterdir()]):
        path.write_bytes(contents[place % len(contents)])
    for name in ("journal.jsonl", "metrics.jsonl"):
        for number, place in enumerate(range(trial, len(lines_of(own(folder) / name)), 3)):
            put_line(own(folder) / name, place, contents[number % len(contents)].replace(b"\n", b" ") + b"\n")
    said = looked_at(folder, type_)
    found = damaged_records(RunView(folder / "t"))
    assert {item.file for item in found} >= {path.relative_to(folder / "t").as_posix() for path in records(folder)}
    for item in found:
        assert_named(said, str(item).partition(": ")[0], item.words)
    assert "RESUME" in said["why"], said["why"]
    train(folder, Training(seed=1))
    assert look(folder / "t").newest_good is not None and look(folder / "t").newest_good.step == 8


@pytest.mark.parametrize("kind", ["a folder", "a named pipe"])
def test_what_is_no_file_in_a_records_place_is_named_and_nobody_waits_for_it(
    folder: Path, type_: Type, kind: str
) -> None:
    for path in [*records(folder), *(own(folder) / "configs").iterdir()]:
        path.unlink()
        path.mkdir() if kind == "a folder" else os.mkfifo(path)
    said = looked_at(folder, type_)
    for path in records(folder):
        assert_named(said, path.relative_to(folder / "t").as_posix(), f"it cannot be read ({kind}, not an ordinary")
    assert "RESUME" in said["why"], said["why"]


def test_a_step_that_was_recorded_wrongly_is_not_compared_when_it_comes_again(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = own(folder) / "metrics.jsonl"
    put_line(metrics, -2, {**lines_of(metrics)[-2], "loss": "x", "samples": [["x"]], "lr": 10**400})
    train(folder, Training(seed=1))
    assert "steps 8-8 replayed: bit-identical" in capsys.readouterr().out


@pytest.mark.parametrize("mark", ["{}", "[]", '{"name": 5, "aside": "", "moved_aside": false}', "\0" * 40])
def test_a_damaged_mark_of_a_restore_still_says_that_one_was_cut_off(folder: Path, type_: Type, mark: str) -> None:
    (own(folder) / "restoring.json").write_text(mark)
    said = looked_at(folder, type_)
    assert "REFUSED" in said["why"] and "unbroken/restoring.json is damaged" in said["why"]
    with pytest.raises(Exit) as refused:
        train(folder, Training(seed=1))
    assert refused.value.code == 10


def test_a_save_whose_line_is_damaged_was_one_all_the_same(folder: Path) -> None:
    for path in (folder / "t").glob("*.pth"):
        path.unlink()
    journal = own(folder) / "journal.jsonl"
    lines = [line for line in lines_of(journal) if line["event"] in ("session", "saved")]
    journal.write_text("".join(json.dumps({**line, "step": "x"}) + "\n" for line in lines))
    assert "REFUSED" in why(folder / "t")


# -- records of other places -----------------------------------------------------------------------------------------


def test_a_table_of_runs_that_was_edited_is_never_an_error(folder: Path, type_: Type, tmp_path: Path) -> None:
    assert type_("ls", folder).code == 0
    table = next(Path(os.environ["XDG_CACHE_HOME"]).rglob("runs-*.sqlite"))
    columns = IndexRow._fields[2:]
    wrong = ["x", "[[", "[" * 5000, "null", "[]", -1, 2**62, 1e300, None, b"x", "\x00"]
    chance = random.Random(SEED)
    for _ in range(12):
        type_("ls", folder, "--where", "tag=t")
        with closing(sqlite3.connect(table)) as connection, connection:
            for column in chance.sample(columns, k=3):
                connection.execute(f"UPDATE runs SET {column} = ?", (chance.choice(wrong),))
            connection.execute("UPDATE configs SET config = ?", (chance.choice(wrong),))
        for words in (["ls", folder], ["ls", folder, "--json"], ["ls", folder, "--where", "best.score>0"]):
            answer = type_(*words)
            assert answer.code in DOCUMENTED and "Traceback" not in answer.out + answer.err, answer.err[-2000:]


def test_the_lists_of_a_packed_run_and_of_a_backup_are_read_as_what_they_are(
    folder: Path, type_: Type, tmp_path: Path
) -> None:
    mirror = tmp_path / "disk"
    pack = tmp_path / "run.zip"
    assert type_("backup", folder / "t", mirror).code == 0 and type_("pack", folder / "t", pack).code == 0
    listed = next(mirror.rglob("backup.json"))
    record = json.loads(listed.read_text())
    with zipfile.ZipFile(pack) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    last, packed = list(entries)[-1], json.loads(list(entries.values())[-1])
    chance = random.Random(SEED)
    for number, content in enumerate([*list(WHOLE.values())[::2], *(None,) * 8]):
        for path, known in ((listed, record), (tmp_path / "list", packed)):
            edited = with_field(known, chance.choice(list(known)), chance.choice(WRONG))
            path.write_bytes(content if content is not None else json.dumps(edited).encode())
        with zipfile.ZipFile(pack, "w") as archive:
            for name, data in {**entries, last: (tmp_path / "list").read_bytes()}.items():
                archive.writestr(zipfile.ZipInfo(name), data)
        for words in (["backup", folder / "t", mirror], ["unpack", pack, tmp_path / f"out_{number}"]):
            answer = type_(*words)
            assert answer.code in DOCUMENTED and "Traceback" not in answer.out + answer.err, answer.err[-2000:]


RECORDS = ("run.json", "pins.json", "stop.json", "holder.json", "manifests/*.json", "configs/*.json", "journal.jsonl")


@pytest.mark.parametrize("pattern", RECORDS)
def test_a_name_that_stands_twice_in_a_record_is_damage_and_not_the_last_one_believed(
    folder: Path, pattern: str
) -> None:
    path = sorted(own(folder).glob(pattern))[-1]
    path.write_bytes(path.read_bytes().replace(b"{", b'{"id": 1, "id": 2, ', 1).replace(b", }", b"}"))
    (named,) = [each for each in damaged_records(RunView(folder / "t")) if each.file.endswith(path.name)]
    assert "'id' stands there twice" in named.words and named.line in (None, 1), named


def test_a_step_in_whose_line_a_name_stands_twice_is_no_step(folder: Path) -> None:
    path = own(folder) / "metrics.jsonl"
    before = lines_of(path)
    path.write_bytes(path.read_bytes().replace(b'"step":1,', b'"step":1,"step":2,', 1))
    assert [line for _, line in numbered_lines(path)] == [None, *before[1:]]
    assert next(record["step"] for record in read_steps(path) if "step" in record) == 2
