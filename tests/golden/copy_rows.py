"""The rows of the launch table in which copies of the run lie elsewhere."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tests.golden.launch_facts import (
    INPUTS,
    NOTHING,
    OTHER,
    RECORD,
    attached,
    best,
    copy,
    found,
    gone,
    job,
    newer,
    saved,
    written,
)
from tests.golden.row import row
from unbroken.launch import Facts
from unbroken.run import Candidate

FIRST, MONDAY, TUESDAY = "20261116_200000", "20261117_200000", "20261118_200000"


def renamed(item: Candidate, name: str) -> Candidate:
    return replace(item, path=item.path.with_name(name))


def by(session: str, item: Candidate) -> Candidate:
    """A checkpoint of that session, in a save of its own."""
    return replace(item, inside=written(item.step, by=session, save=f"save_of_{session[:8]}"))


COPY_ROWS = (
    row(
        "empty here, and the copy lacks the newest checkpoint that its journal records",
        Facts(
            survey=NOTHING,
            elsewhere=(copy("kaggle/input/last-night", saved(200), missing=(gone(300),)),),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "the newest checkpoint is not here, and a copy of the run has it",
        Facts(
            survey=found(saved(200), missing=(gone(300),)),
            elsewhere=(copy("kaggle/input/last-night", saved(300)),),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "the newest checkpoint is not here, and no copy of the run is further",
        Facts(
            survey=found(saved(200), missing=(gone(300),)),
            elsewhere=(copy("kaggle/input/last-night", saved(100)),),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "empty here, a copy in a mounted input",
        Facts(
            survey=NOTHING,
            elsewhere=(copy("kaggle/input/last-night", saved(200), saved(100, "unchecked")),),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "two copies: the furthest step",
        Facts(
            survey=NOTHING,
            elsewhere=(copy("kaggle/input/monday", saved(200)), copy("kaggle/input/tuesday", saved(300))),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "a copy whose newest checkpoint was truncated by the upload",
        Facts(
            survey=NOTHING,
            elsewhere=(copy("kaggle/input/last-night", saved(300, "damaged"), saved(200)),),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "copies elsewhere, all damaged: no silent start from nothing",
        Facts(
            survey=NOTHING,
            elsewhere=(copy("kaggle/input/last-night", saved(300, "damaged")),),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "damaged here, a good copy elsewhere",
        Facts(
            survey=found(saved(300, "damaged")),
            elsewhere=(copy("mnt/backup/baseline", saved(200)),),
        ),
        job(search=(Path("mnt/backup"),)),
    ),
    row("a folder to search is not there", Facts(survey=NOTHING, missing=(INPUTS,)), job(search=(INPUTS,))),
    row(
        "a copy elsewhere of a newer format",
        Facts(
            survey=NOTHING,
            elsewhere=(copy("kaggle/input/last-night", newer(300), saved(200)),),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "only a file is attached, under another name",
        Facts(
            survey=NOTHING,
            elsewhere=(attached("kaggle/input/my-upload", renamed(saved(200, listed=False), "model (1).pth")),),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "only files are attached: latest.pth became a real copy, best weights beside it, the newest was cut off",
        Facts(
            survey=NOTHING,
            elsewhere=(
                attached(
                    "kaggle/input/my-upload",
                    saved(300, "damaged"),
                    renamed(saved(200, listed=False), "latest.pth"),
                    best(150),
                ),
            ),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "only a file is attached, and the upload cut it off: no silent start from nothing",
        Facts(survey=NOTHING, elsewhere=(attached("kaggle/input/my-upload", saved(300, "damaged")),)),
        job(search=(INPUTS,)),
    ),
    row(
        "a file is attached, and an older output with the records",
        Facts(
            survey=NOTHING,
            elsewhere=(
                copy("kaggle/input/last-night", saved(200)),
                attached("kaggle/input/my-upload", saved(300, listed=False)),
            ),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "two copies, the furthest checkpoint is damaged in one",
        Facts(
            survey=NOTHING,
            elsewhere=(copy("kaggle/input/monday", saved(200)), copy("kaggle/input/tuesday", saved(300, "damaged"))),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "the same output attached twice",
        Facts(
            survey=NOTHING,
            elsewhere=(
                copy("kaggle/input/last-night", saved(200)),
                attached("kaggle/input/my-upload", saved(200, listed=False)),
            ),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "two different runs of one name, one further than the other: only the user can know",
        Facts(
            survey=NOTHING,
            elsewhere=(
                copy("kaggle/input/monday", by(MONDAY, saved(200))),
                copy(
                    "kaggle/input/tuesday",
                    by(TUESDAY, saved(300, run=OTHER)),
                    record=replace(RECORD, id=OTHER),
                    saves_ever=1,
                ),
            ),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "files of two different runs in one folder",
        Facts(
            survey=NOTHING,
            elsewhere=(
                attached("kaggle/input/my-upload", by(MONDAY, saved(200, listed=False))),
                attached("kaggle/input/my-upload", by(TUESDAY, saved(300, run=OTHER, listed=False))),
            ),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "two different runs of one name, and the record of one is here",
        Facts(
            survey=found(saves_ever=0),
            elsewhere=(
                copy("kaggle/input/monday", saved(200)),
                copy("kaggle/input/tuesday", saved(300, run=OTHER), record=replace(RECORD, id=OTHER), saves_ever=1),
            ),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "one run that two sessions continued to the same step: only the user can know",
        Facts(
            survey=NOTHING,
            elsewhere=(
                copy("kaggle/input/monday", by(MONDAY, saved(200)), sessions=(FIRST, MONDAY)),
                copy("kaggle/input/tuesday", by(TUESDAY, saved(200)), sessions=(FIRST, TUESDAY)),
            ),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "one run whose second session did the last steps of the first again",
        Facts(
            survey=NOTHING,
            elsewhere=(
                copy("kaggle/input/monday", by(MONDAY, saved(200)), sessions=(FIRST, MONDAY)),
                copy("kaggle/input/tuesday", by(TUESDAY, saved(200)), sessions=(FIRST, MONDAY, TUESDAY)),
            ),
        ),
        job(search=(INPUTS,)),
    ),
    row(
        "one run that two sessions continued, one of them further",
        Facts(
            survey=NOTHING,
            elsewhere=(
                copy("kaggle/input/monday", by(MONDAY, saved(200)), sessions=(FIRST, MONDAY)),
                copy("kaggle/input/tuesday", by(TUESDAY, saved(300)), sessions=(FIRST, TUESDAY)),
            ),
        ),
        job(search=(INPUTS,)),
    ),
)
