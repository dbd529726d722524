"""The launch decision, row by row, against a file a person can read.

After a change of wording, write it anew with `python -m tests.golden.test_launch_table` and read the difference.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from tests.golden.launch_facts import OTHER, RUN, best, foreign, found, job, newer, saved
from tests.golden.launch_rows import ROWS
from tests.golden.row import Row
from unbroken.config import Effect
from unbroken.errors import UnbrokenError
from unbroken.launch import Facts, FineTune, Finished, Fresh, Plan, Refuse, Resume, decide
from unbroken.launch.explain import explain, refusal

GOLDEN = Path(__file__).with_name("launch_table.md")
HEAD = """# The launch table

What a launch does, for every situation of the contract: the words a person reads, the exit code, and the same as data
(`--json`). `tests/golden/test_every_row_is_done.py` makes each situation on a real disk, asks `why`, and does it.
Written by `python -m tests.golden.test_launch_table`, compared by the tests.
"""


def exit_code(plan: Plan) -> int:
    """What `why` ends with, and `train` when it is done."""
    return plan.exit_code if isinstance(plan, Refuse) else 0


def as_text(row: Row) -> str:
    plan = decide(row.job, row.facts)
    words = "\n".join((*explain(row.job, plan).lines, f"exit {exit_code(plan)}"))
    data = json.dumps(explain(row.job, plan).data, ensure_ascii=False, separators=(", ", ": "))
    return f"\n## {row.title}\n\n```\n{words}\n```\n\n`{data}`\n"


def sections(text: str) -> dict[str, str]:
    parts = re.split(r"(?m)^## ", text)[1:]
    return {part.split("\n", 1)[0]: part.split("\n", 1)[1].strip() for part in parts}


@pytest.fixture(scope="module")
def golden() -> dict[str, str]:
    return sections(GOLDEN.read_text("utf-8"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
def test_the_launch_table_says_what_it_said(row: Row, golden: dict[str, str]) -> None:
    assert sections(as_text(row))[row.title] == golden[row.title]


def test_the_golden_file_has_every_row_once_and_no_other(golden: dict[str, str]) -> None:
    titles = [row.title for row in ROWS]
    assert list(golden) == titles
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
def test_every_verdict_explains_itself(row: Row) -> None:
    plan = decide(row.job, row.facts)
    assert plan.reasons and all(reason.strip() for reason in plan.reasons)
    assert json.loads(json.dumps(explain(row.job, plan).data, allow_nan=False))["verdict"] == plan.name
    if isinstance(plan, Refuse):
        assert plan.ways_out, "a refusal without a way out helps nobody"
        error = refusal(row.job, plan)
        assert isinstance(error, UnbrokenError)
        assert error.exit_code == plan.exit_code
        assert str(error).splitlines()[0].startswith("plan: REFUSE")
        assert str(error).endswith(f"nothing was changed in {row.job.directory}")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.title)
def test_a_damaged_file_is_named_in_every_plan_that_does_not_move_everything(row: Row) -> None:
    plan = decide(row.job, row.facts)
    damaged = {item.path for item in row.facts.survey.candidates if item.state == "damaged"}
    assert damaged == {item.path for item in plan.rejected if item.damaged and item.path in damaged}


def by_title(title: str) -> Row:
    return next(row for row in ROWS if row.title == title)


EXPECTED = {
    "nothing on disk": (Fresh, 0),
    "good checkpoints, same config": (Resume, 300),
    "newest damaged, older good": (Resume, 200),
    "every checkpoint damaged": (Refuse, 12),
    "finished": (Finished, 400),
    "finished + --fresh": (Fresh, 0),
    "held by a live process": (Refuse, 11),
    "schedule changed: LR now -> LR next": (Resume, 200),
    "shape changed": (Refuse, 13),
    "meaning changed": (Refuse, 13),
    "--ckpt an older checkpoint, newer ones exist": (Resume, 200),
    "--pretrained_model + empty run": (FineTune, 80),
    "--pretrained_model + run with own history": (Resume, 300),
    "--pretrained_model + run with own history + --fresh": (FineTune, 80),
    "load_from with resume=True, weights only": (Refuse, 10),
    "empty here, a copy in a mounted input": (Resume, 200),
    "two copies: the furthest step": (Resume, 300),
    "copies elsewhere, all damaged: no silent start from nothing": (Refuse, 12),
    "only a file is attached, under another name": (Resume, 200),
    "only a file is attached, and the upload cut it off: no silent start from nothing": (Refuse, 12),
    "two different runs of one name, one further than the other: only the user can know": (Refuse, 10),
    "two different runs of one name, and the record of one is here": (Resume, 200),
    "one run that two sessions continued to the same step: only the user can know": (Refuse, 10),
    "one run whose second session did the last steps of the first again": (Resume, 200),
    "a checkpoint of a newer format": (Refuse, 14),
    "a checkpoint of another run was copied in": (Resume, 200),
    "journal lost, a foreign checkpoint further than ours": (Resume, 300),
    "a foreign checkpoint, own saves all damaged": (Refuse, 12),
    "unbroken/ lost entirely, checkpoints of two runs": (Refuse, 12),
    "checkpoints deleted by hand, best weights still here": (Refuse, 12),
    "--ckpt and --fresh": (Refuse, 2),
}


@pytest.mark.parametrize("title", EXPECTED)
def test_the_verdicts_of_the_contract_cannot_change_with_the_wording(title: str) -> None:
    row = by_title(title)
    plan = decide(row.job, row.facts)
    kind, number = EXPECTED[title]
    assert isinstance(plan, kind)
    match plan:
        case Refuse():
            assert plan.exit_code == number
        case Resume() | FineTune() | Finished():
            assert plan.source.step == number


def test_a_refused_change_names_each_key_with_old_and_new_and_three_ways_out() -> None:
    row = by_title("shape, meaning and schedule changed")
    plan = decide(row.job, row.facts)
    assert isinstance(plan, Refuse)
    assert [(item.key, item.effect) for item in plan.changes] == [
        ("model.width", Effect.SHAPE),
        ("model.classes", Effect.MEANING),
        ("train.lr", Effect.SCHEDULE),
    ]
    assert len(plan.ways_out) == 3
    assert "--tag baseline_width_128" in plan.ways_out[0]
    assert "--pretrained_model" in plan.ways_out[1]
    assert "model.width=64" in plan.ways_out[2]


def test_what_was_learned_of_memory_is_said() -> None:
    row = by_title("good checkpoints, same config")
    first, *others = row.facts.survey.candidates
    learned = {**first.inside, "divisions": [{"step": 61, "micro_batch": 2, "recompute": False}]}
    survey = replace(row.facts.survey, candidates=(replace(first, inside=learned), *others))
    plan = decide(row.job, replace(row.facts, survey=survey))
    assert (
        "at most 2 samples at once, learned in step 61, where memory ran out; --on-oom fail takes whole micro-batches "
        "again" in plan.notes
    )


def test_a_script_is_told_arguments_and_never_flags() -> None:
    for row in ROWS:
        if row.job.is_script:
            lines = explain(row.job, decide(row.job, row.facts)).lines
            assert not re.search(r"(^|\s)--\w", "\n".join(lines)), row.title


def test_whatever_is_found_a_run_with_own_saves_never_starts_fresh_unasked() -> None:
    """Every combination of three files in any state: Fresh only when it was asked for."""
    makers = (saved, lambda step: saved(step, "damaged"), foreign, newer, best, lambda step: saved(step, run=OTHER))
    for made, total in product(product(makers, repeat=3), (None, 400, 50)):
        files = [maker(step) for maker, step in zip(made, (40, 390, 200))]
        plan = decide(job(total=total), Facts(survey=found(*files, saves_ever=1)))
        assert not isinstance(plan, Fresh | FineTune), files
        if isinstance(plan, Resume):
            good = [
                item.step for item in files if item.kind == "checkpoint" and item.state == "good" and item.run == RUN
            ]
            assert plan.source.step == max(good)
            assert not any(item.set_aside and item.path == plan.source.path for item in plan.rejected)


if __name__ == "__main__":
    GOLDEN.write_text(HEAD + "".join(as_text(row) for row in ROWS), "utf-8")
