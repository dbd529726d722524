"""One clock for people, with its zone, and one for files: what is written, what is shown, in every zone."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import torch

from unbroken.cli import main
from unbroken.clock import SystemClock, local_moment, shown_time, utc_text
from unbroken.train import Exit, open_run

MOMENT = datetime(2026, 2, 5, 18, 30, 5, 999_000, tzinfo=timezone(timedelta(hours=8)))
ZONES = {"Asia/Shanghai": "+0800", "America/St_Johns": "-0330", "Asia/Kathmandu": "+0545", "UTC": "+0000"}
FOR_PEOPLE = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d "
TIME = re.compile(r"20\d\d[-/]\d\d[-/]\d\d[T ]\d\d:\d\d[^\s,;\"]*(?: [+-]\d{4}\b)?")


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The machine stands in one of these zones; its offset is returned."""
    with monkeypatch.context() as there:
        there.setenv("TZ", request.param)
        time.tzset()
        yield ZONES[request.param]
    time.tzset()


def test_a_moment_is_utc_in_files_and_local_for_people(zone: str) -> None:
    assert utc_text(MOMENT) == "2026-02-05T10:30:05Z"
    assert utc_text(MOMENT, timespec="milliseconds") == "2026-02-05T10:30:05.999Z"
    local = (datetime(2026, 2, 5, 10, 30, 5) + timedelta(hours=int(zone[:3]), minutes=int(zone[0] + zone[3:]))).strftime
    assert (
        shown_time(MOMENT)
        == shown_time(utc_text(MOMENT))
        == shown_time(MOMENT.isoformat())
        == local(f"%Y-%m-%d %H:%M:%S {zone}")
    )
    naive = shown_time("2026-02-05T10:30:05")
    assert naive == f"2026-02-05 10:30:05 {zone}", "without a zone it is what this machine's clock showed"


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01T00:00", "9999999-01-01", None, 5])
def test_what_is_no_moment_stays_as_it_is(text: object) -> None:
    assert local_moment(text) is None and shown_time(text) == str(text or "")


def session(root: Path) -> None:
    """A short session that is limited, saves and is held while others look."""
    model = torch.nn.Linear(2, 1)
    with open_run(root, tag="exp7", save_every=1, session_s="2h") as run:
        run.track(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
        for batch in run.batches(torch.arange(16.0).view(8, 2), batch_size=2, steps=3):
            run.end_step(loss=model(batch).mean())
            run.record_evaluation(best="score", score=run.step / 10)
            if run.step == 2:
                for words in (["ls", str(root)], ["show", str(run.directory)], ["log", "."]):
                    assert main(words) == 0
                print(Path("experiments_log.txt").read_text("utf-8"))
                with pytest.raises(Exit):
                    open_run(root, tag="exp7")


def times_in(data: Any) -> Iterator[str]:
    """Every text in a record that begins like a date and time."""
    for value in data.values() if isinstance(data, dict) else data if isinstance(data, list) else ():
        yield from [value] if isinstance(value, str) and re.match(r"20\d\d-\d\d-\d\d[T ]\d", value) else times_in(value)


def test_everything_that_is_printed_is_local_and_everything_that_is_recorded_is_utc(
    zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    session(tmp_path / "runs")
    run = str(tmp_path / "runs" / "exp7")
    for words in (["ls", "."], ["show", run], ["pin", run, "1"], ["pin", run], ["watch", run], ["pack", run, "a.zip"]):
        assert main(words) == 0, words
    (tmp_path / "runs" / "exp7" / "iter_3.pth").rename(tmp_path / "gone")
    main(["show", run])
    shown = capsys.readouterr().out
    found = TIME.findall(shown)
    assert len(found) >= 8 and "running since" in shown and "last seen: " in shown and "session: 2 h" in shown, shown
    assert all(re.fullmatch(rf"{FOR_PEOPLE}{re.escape(zone)}", each) for each in found), shown
    files = [path for path in (tmp_path / "runs" / "exp7" / "unbroken").rglob("*.json*") if path.is_file()]
    lines = [json.loads(line) for path in files if path.suffix == ".jsonl" for line in path.read_text().splitlines()]
    records = [json.loads(path.read_text()) for path in files if path.suffix == ".json"]
    times = [time for record in lines + records for time in times_in(record)]
    assert len(times) >= 10 and all(re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", each) for each in times), times
    (log,) = (tmp_path / "runs" / "exp7").glob("2*/*.log")
    assert all(f" {zone} - unbroken - INFO - " in line for line in log.read_text("utf-8").splitlines())


def test_a_day_that_is_asked_for_is_one_of_this_machines(
    zone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    session(tmp_path / "runs")
    today = SystemClock().now().strftime("%Y-%m-%d")
    capsys.readouterr()
    assert main(["ls", ".", "--where", f"seen={today}", "--json"]) == 0
    assert [row["tag"] for row in json.loads(capsys.readouterr().out)] == ["exp7"]


def test_records_of_older_versions_are_shown_by_the_same_clock() -> None:
    assert shown_time("2026-11-20T22:00:00.000+00:00") == "2026-11-20 22:00:00 +0000"
    assert datetime.fromisoformat(utc_text(datetime(2026, 1, 1, tzinfo=UTC))) == datetime(2026, 1, 1, tzinfo=UTC)
