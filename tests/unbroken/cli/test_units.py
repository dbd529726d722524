"""Every option, variable and argument that takes a duration or a size asks for its unit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unbroken.cli.typing_commands import Type
from unbroken.train import Exit, open_run

DURATION_OPTIONS = [
    ["train", "focalsst", "--session"],
    ["train", "focalsst", "--reserve"],
    ["why", "mapsage", "config.py", "--session"],
    ["why", "mapsage", "config.py", "--reserve"],
    ["train", "mapsage", "config.py", "--backoff"],
    ["watch", ".", "--every"],
    ["ls", "--where", "trained>{}"],
]
SIZE_OPTIONS = [
    ["why", "focalsst", "--quota"],
    ["train", "mapsage", "config.py", "--quota"],
    ["pack", ".", "out.zip", "--max-size"],
    ["ls", "--where", "size>{}"],
]


@pytest.mark.parametrize(
    ("words", "bare"), [(words, "12") for words in DURATION_OPTIONS] + [(words, "20") for words in SIZE_OPTIONS]
)
def test_every_option_asks_for_the_unit(
    words: list[str], bare: str, type_: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = [*words[:-1], words[-1].format(bare)] if "{}" in words[-1] else [*words, bare]
    answer = type_(*typed)
    assert answer.code == 2 and f"found '{bare}'" in answer.err and "with its unit" in answer.err, answer.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "value"), [("UNBROKEN_QUOTA", "20"), ("UNBROKEN_SESSION_END", "12h")])
def test_variables_that_cannot_be_read_are_named(
    name: str,
    value: str,
    type_: Type,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    answer = type_("why", "mapsage", "config.py")
    assert answer.code == 2 and answer.err.startswith(f"{name}: this is no")
    with pytest.raises(Exit, match="2"):
        open_run("output", tag="baseline")
    assert f"{name}: this is no" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        {"session_s": "12"}, {"session_s": float("nan")}, {"session_s": True}, {"session_s": [12]},
        {"session_s": 100.0, "reserve_s": "10"}, {"save_every_s": "300"}, {"save_every_s": float("nan")},
        {"quota": "20"}, {"quota": 20}, {"quota": ""},
    ],
    ids=str,
)  # fmt: skip
def test_an_argument_of_open_run_that_is_no_quantity_is_refused(
    arguments: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Exit) as ending:
        open_run(tmp_path, tag="baseline", **arguments)
    assert f"open_run({[*arguments][-1]}): this is no" in capsys.readouterr().out
    assert ending.value.code == 2 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("session", ["12:00:00", "0-12", "12h", 43_200, 43_200.0])
def test_open_run_takes_seconds_or_text_with_a_unit(session: float | str, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"session_s": session, "reserve_s": "10m", "save_every_s": "5m", "quota": "20GiB"}
    with pytest.raises(InterruptedError), open_run(tmp_path, tag="baseline", **asked) as run:
        assert run.job.limit is not None and run.job.limit.left_s == 43_200 and run.job.limit.reserve_s == 600
        assert run.job.quota is not None and run.job.quota.size_bytes == 20 * 2**30
        raise InterruptedError
