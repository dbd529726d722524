"""What stays and what goes, row by row, against a file a person can read; then on a disk, by the command line.

After a change of wording, write it anew with `python -m tests.golden.test_retention_table` and read the difference.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.golden.on_disk import image_of
from tests.golden.retention_on_disk import lay_out
from tests.golden.retention_rows import CUT_OFF, ROWS, Row
from unbroken.checkpoint.retention import NEVER_FEWER_THAN, RetentionDecision, retain
from unbroken.cli import main
from unbroken.run.layout import manifests
from unbroken.run.survey import survey

GOLDEN = Path(__file__).with_name("retention_table.md")
HEAD = """# The retention table

What `unbroken prune` keeps, and why. `tests/golden/test_retention_table.py` makes each situation on a real disk, prunes
it by the command line, and compares what is left. Written by `python -m tests.golden.test_retention_table`.
"""
EXPECTED = {
    "ten saves: the last two stay": {90, 100},
    "one is asked for: two stay": {90, 100},
    "one save: nothing goes": {10},
    "each 30th step": {30, 60, 90, 100},
    "the best is old": {30, 90, 100},
    "pinned ones stay": {10, 60, 90, 100},
    "last, every, best and pinned together": {20, 40, 50, 80, 90, 100},
    "the newest is cut off: it is no state": {20, 30, 40},
    "the newest is cut off, and may go": {80, 90},
    "the two newest were flipped": {10, 20, 30, 40},
    "a copy of the newest is no second state": {10, 30},
    "by epochs: that file is the furthest, and counts as a state": {40, 47},
    "left by MMEngine": {90, 100},
    "left by OpenPCDet, the last cut off": {4, 20, 30},
    "taken over from OpenPCDet: its own saves have been passed": {50, 60},
}

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)


def decided(row: Row) -> tuple[RetentionDecision, ...]:
    return retain(row.stored(), row.policy, pinned=row.pins)


def options(row: Row) -> list[str]:
    policy = row.policy
    words = ["--keep-last", str(policy.keep_last)]
    words += ["--keep-every", str(policy.keep_every)] if policy.keep_every else []
    words += [] if policy.keep_best else ["--no-keep-best"]
    return [*words, *(["--damaged"] if policy.damaged else [])]


def as_text(row: Row) -> str:
    words = [*options(row), *(f"(pinned: {name})" for name in row.pins)]
    lines = [f"{'stays' if item.keep else 'goes '}  {item.name}: {item.reason}" for item in decided(row)]
    return f"\n## {row.title}\n\n`prune RUN {' '.join(words)}`\n\n```\n" + "\n".join(lines) + "\n```\n"


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"(?m)^## ", text)[1:]
    return {part.split("\n", 1)[0]: part.split("\n", 1)[1].strip() for part in parts}


@pytest.fixture(scope="module")
def golden() -> dict[str, str]:
    return sections(GOLDEN.read_text("utf-8"))


@every_row
def test_the_retention_table_says_what_it_said(row: Row, golden: dict[str, str]) -> None:
    assert sections(as_text(row))[row.title] == golden[row.title]


def test_the_golden_file_has_every_row_once_and_no_other(golden: dict[str, str]) -> None:
    titles = [row.title for row in ROWS]
    assert list(golden) == titles and len(set(titles)) == len(titles)


@pytest.mark.parametrize("title", EXPECTED)
def test_what_stays_cannot_change_with_the_wording(title: str) -> None:
    row = next(row for row in ROWS if row.title == title)
    steps = {file.name: file.step for file in row.files}
    assert {steps[item.name] for item in decided(row) if item.keep} == EXPECTED[title]


@every_row
def test_whatever_goes_leaves_two_verified_states_that_are_not_copies(row: Row) -> None:
    decisions = {item.name: item for item in decided(row)}
    assert all(item.reason for item in decisions.values()) and set(decisions) == {file.name for file in row.files}
    if any(not item.keep for item in decisions.values()):
        kept = {f.save for f in row.stored() if f.kind == "state" and f.verified and decisions[f.name].keep}
        assert len(kept) >= NEVER_FEWER_THAN


def typed(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    assert main([str(word) for word in words]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@every_row
def test_on_a_disk_exactly_what_the_explanation_says_is_left(
    row: Row, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "baseline"
    folder = lay_out(row, run)
    before = image_of(run)
    (explained,) = typed(capsys, "prune", run, *options(row), "--explain", "--json")
    assert image_of(run) == before, "explaining changes nothing"
    assert [plain(item) for item in explained["files"]] == [table(item) for item in decided(row)]

    (done,) = typed(capsys, "prune", run, *options(row), "--json")
    kept = {item["file"] for item in explained["files"] if item["keep"]}
    left = {path.name for path in folder.glob("*.pth") if not path.is_symlink()}
    assert left == kept == {item["file"] for item in done["files"] if item["keep"]}
    assert not list(run.rglob("*.going"))
    after = image_of(run)
    assert all(after[name] == before[name] for name in after if name.endswith(".pth") and name != "latest.pth"), (
        "what stays is untouched"
    )
    assert folder.joinpath("latest.pth").exists() is folder.joinpath("latest.pth").is_symlink(), (
        "the link leads somewhere"
    )
    gone = [item["size_bytes"] for item in explained["files"] if not item["keep"]]
    assert done["room_bytes"] == explained["room_bytes"] == sum(gone)
    listed = {path.stem for path in manifests(run).glob("*.json")}
    assert listed == {file.name for file in row.files if file.listed} & left, "no manifest without its file"
    if gone:
        (again,) = typed(capsys, "prune", run, *options(row), "--json")
        assert {item["file"] for item in again["files"] if item["keep"]} == left, "a second time nothing goes"
        assert survey(run, row.layout).newest_good is not None


def plain(item: dict[str, Any]) -> tuple[str, bool, str, str]:
    return item["file"], item["keep"], item["rule"], item["reason"] if item["rule"] != "damaged" else ""


def table(item: RetentionDecision) -> tuple[str, bool, str, str]:
    """The table's words; what is wrong with a damaged file is said by who reads it."""
    reason = "" if item.rule == "damaged" else item.reason
    return item.name, item.keep, item.rule, reason


def test_the_words_for_damage_are_those_of_who_reads_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = next(row for row in ROWS if row.title == "the newest is cut off: it is no state")
    lay_out(row, tmp_path / "baseline")
    (found,) = typed(capsys, "prune", tmp_path / "baseline", "--explain", "--json")
    assert CUT_OFF in found["files"][0]["reason"]


if __name__ == "__main__":
    GOLDEN.write_text(HEAD + "".join(as_text(row) for row in ROWS), "utf-8")
