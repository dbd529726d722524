"""The record of experiments as a file that others edit too, and what a run remembers of its row in it."""

from __future__ import annotations

from pathlib import Path

from unbroken.clock import SystemClock
from unbroken.logbook.file import remember, remembered, write_book
from unbroken.logbook.table import RESULT, RowChange
from unbroken.storage import Disk


def test_what_an_editor_saves_while_a_row_is_written_stays(tmp_path: Path) -> None:
    book = tmp_path / "experiments_log.txt"
    book.write_text("# Experiments\n")
    saved = ["mine, saved meanwhile\n"]

    def entries(_language: str) -> list[object]:
        if saved:
            book.write_text(book.read_text("utf-8") + saved.pop())
        return []

    write_book(Disk(), SystemClock(), book, entries, language="en", usual="en", wait_s=1)  # type: ignore[arg-type]
    assert not saved and "mine, saved meanwhile" in book.read_text("utf-8")


def test_a_run_remembers_each_text_that_its_row_had_and_none_twice(tmp_path: Path) -> None:
    (tmp_path / "unbroken").mkdir()
    (tmp_path / "unbroken" / "run.json").write_text("{}")
    for text in ("mIoU 1", "mIoU 2", "mIoU 1", "mIoU 3"):
        change = RowChange(label="t", what="updated", cells={RESULT: text}, row={})
        remember(Disk(), tmp_path, tmp_path / "experiments_log.txt", change)
    assert remembered(tmp_path).written[RESULT] == ["mIoU 2", "mIoU 1", "mIoU 3"]
