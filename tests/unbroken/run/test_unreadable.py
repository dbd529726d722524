"""Checkpoints that this user may not read: nothing older is continued in their place without a word."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.golden.launch_facts import FOLDER, found, job, saved
from tests.golden.on_disk import lay_out
from tests.golden.row import row
from unbroken.launch import Finished, Fresh, Refuse, Resume, decide, gather

NOBODY = 65534
NEWEST = FOLDER / "iter_380.pth"


@pytest.fixture(autouse=True)
def run_of_three(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A run with the steps 380, 300 and 200, in a folder that everybody may enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        monkeypatch.chdir(folder)
        monkeypatch.delenv("UNBROKEN_SEARCH_PATH", raising=False)
        lay_out(row("", found(saved(380), saved(300), saved(200))))
        yield
        monkeypatch.undo()


@contextmanager
def as_another_user() -> Iterator[None]:
    """Root may read everything: it looks as somebody who may not."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def planned(**start: object) -> Fresh | Resume | Finished | Refuse:
    asked = replace(job(), start=replace(job().start, **start))
    with as_another_user():
        plan = decide(asked, gather(asked))
    assert isinstance(plan, Fresh | Resume | Finished | Refuse)
    return plan


def test_the_furthest_checkpoint_that_may_not_be_read_is_no_damaged_one() -> None:
    assert isinstance(planned(), Resume)
    NEWEST.chmod(0)
    plan = planned()
    assert isinstance(plan, Refuse) and plan.exit_code == 12
    assert "iter_380.pth (step 380) is the furthest state of this run" in plan.reasons[0]
    assert "Permission denied" in plan.reasons[0] and "ls -l" in plan.ways_out[0] and "--ckpt FILE" in plan.ways_out[1]


@pytest.mark.parametrize("listed", [True, False], ids=["with its manifest", "without"])
def test_none_that_may_be_read_is_refused_as_well(*, listed: bool) -> None:
    for path in FOLDER.glob("*.pth"):
        path.chmod(0)
    if not listed:
        for path in FOLDER.glob("unbroken/manifests/*.json"):
            path.unlink()
    plan = planned()
    assert isinstance(plan, Refuse) and plan.exit_code == 12 and "may be whole" in plan.reasons[0]


def test_an_older_one_that_may_not_be_read_and_a_file_that_is_named_are_no_obstacle() -> None:
    (FOLDER / "iter_200.pth").chmod(0)
    assert isinstance(plan := planned(), Resume) and plan.source.step == 380
    NEWEST.chmod(0)
    assert isinstance(plan := planned(exact=FOLDER / "iter_300.pth"), Resume) and plan.source.step == 300
    assert isinstance(planned(fresh=True), Fresh)
