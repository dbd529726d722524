"""A run of many sessions, each killed after a few steps: nothing piles up, and looking at it costs no more."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from tests.unbroken.train.many_sessions import TAG, opened, session, warm_up
from unbroken.cli.commands.show import overview_of
from unbroken.run.summary import summary_of

FEW, MANY = 4, 12
PER_SESSION = 5  # log, scalars and config of its folder or of the run's, and its curves
PER_CHECKPOINT = 2  # itself and its manifest
READ_OF_EACH = 4  # times that a start reads the manifest of a checkpoint that is kept


def size(run: Path) -> tuple[int, int]:
    """How many files a run has, and the bytes of its journal."""
    return sum(path.is_file() for path in run.rglob("*")), (run / "unbroken" / "journal.jsonl").stat().st_size


@pytest.mark.parametrize("keep_last", [2, None])
def test_each_session_adds_as_little_as_the_one_before(keep_last: int | None, tmp_path: Path) -> None:
    warm_up()
    run, sizes, starts, looks = tmp_path / TAG, {}, list[int](), {}
    for number in range(1, MANY + 1):
        starts.append(len(session(tmp_path, number, keep_last=keep_last)))
        if number % FEW == 0:
            sizes[number] = size(run)
            looks[number] = len(opened(lambda: (summary_of(run), overview_of(run)), run))
    (first, some), (second, more), (third, most) = (sizes[number] for number in (FEW, 2 * FEW, MANY))
    kept = 0 if keep_last else FEW  # more checkpoints, one of each session
    assert third - second == second - first <= (PER_SESSION + (0 if keep_last else PER_CHECKPOINT)) * FEW
    assert most - more <= (more - some) * 1.03, "an event grows with the sessions before it"
    for number in (2 * FEW, MANY):
        assert looks[number] - looks[number - FEW] <= READ_OF_EACH * kept
    more_opened = {after - before for before, after in pairwise(starts[FEW - 1 :])}
    assert len(more_opened) == 1 and max(more_opened) <= READ_OF_EACH * bool(kept), starts
    assert not list(run.rglob("*.partial")) and not (run / "archive").exists()
    assert summary_of(run).sessions == MANY
