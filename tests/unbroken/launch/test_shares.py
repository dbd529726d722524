"""Several processes share the samples of a step: what the plan says of it, and what cannot be shared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.golden.launch_facts import found, inside, job, saved
from tests.processes import python
from tests.twin.killing import run_to_end
from tests.twin.together import run_together
from unbroken.errors import UsageError
from unbroken.launch import Environment, Facts, Job, LaunchOptions, decide
from unbroken.launch.explain import explain
from unbroken.launch.job import ProcessOptions
from unbroken.launch.options import require_shares

ROOT = Path(__file__).resolve().parents[3]


def asked(count: int = 1, shards: int | None = None, *, started: int = 1, samples: int = 64, parts: int = 1) -> Job:
    """A job for so many processes."""
    options = LaunchOptions(processes=ProcessOptions(count=count, shards=shards))
    shared: dict[str, Any] = {"samples_per_step": samples, "micro_batches": parts}
    return replace(job(), options=options, environment=Environment(processes=started), **shared)


def said(launch: Job, **recorded: int) -> str:
    """What the plan says of processes when a run goes on that was saved so."""
    plan = decide(launch, Facts(survey=found(saved(300, inside=inside(300, **recorded)))))
    lines = [line for line in explain(launch, plan).lines if "processes:" in line]
    return lines[0].strip() if lines else ""


@pytest.mark.parametrize(
    ("launch", "recorded", "words"),
    [
        (asked(), {}, ""),
        (asked(), {"processes": 1}, ""),
        (asked(2), {"processes": 0}, "processes: 2, of the 64 samples of a step 32 for each"),
        (asked(started=2), {"processes": 2}, "processes: 2, of the 64 samples of a step 32 for each"),
        (
            asked(2),
            {"processes": 4},
            "processes: 4 -> 2, of the 64 samples of a step 32 for each; the same samples in the same order, other "
            "last bits",
        ),
        (asked(), {"processes": 4}, "processes: 4 -> 1; the same samples in the same order, other last bits"),
        (
            asked(3, samples=64, parts=2),
            {"processes": 1},
            "processes: 1 -> 3, of the 64 samples of a step 20 to 22 for each, in 2 micro-batches; the "
            "same samples in the same order, other last bits",
        ),
        (
            asked(started=2),
            {"processes": 4, "shards": 4},
            "processes: 4 -> 2, of the 64 samples of a step 32 for each; in 4 shards, 2 for each, the same bits with "
            "any number of processes",
        ),
        (
            asked(shards=4),
            {"processes": 1, "shards": 4},
            "processes: 1; in 4 shards, 4 for each, the same bits with any number of processes",
        ),
    ],
)
def test_the_plan_says_the_share_of_each_process_and_what_another_number_of_them_means(
    launch: Job, recorded: dict[str, int], words: str
) -> None:
    assert said(launch, **recorded) == words


@pytest.mark.parametrize(
    ("launch", "recorded", "words"),
    [
        (
            asked(99),
            0,
            "--processes: a batch has fewer .* Expected at most 64 processes, .* found 99 processes",
        ),
        (asked(started=99), 0, "WORLD_SIZE=99: a batch has fewer samples .* Expected at most 64 processes"),
        (asked(9, samples=32, parts=4), 0, "--processes: .* Expected at most 8 processes"),
        (
            asked(shards=99),
            0,
            "--exact-processes: a batch has fewer samples than .* Expected at most 64 shards",
        ),
        (asked(99, 99), 0, "--exact-processes: a batch has fewer samples than there are shards"),
        (asked(3, 4), 0, "--processes: 4 shards cannot be dealt out evenly to 3 processes.* divides 4: 1, 2, 4"),
        (asked(started=3), 4, "WORLD_SIZE=3: 4 shards cannot be dealt out evenly to 3 processes.* divides 4: 1, 2, 4"),
        (asked(shards=2), 4, "--exact-processes: the run was begun with 4 shards"),
        (asked(4, started=2), 0, "--processes: a launcher has started 2 processes .* Expected 2, or nothing, found 4"),
    ],
)
def test_what_cannot_be_shared_is_refused_with_the_numbers_that_can(launch: Job, recorded: int, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        require_shares(launch, recorded=recorded)


@pytest.mark.parametrize(("count", "shards", "started"), [(1, None, 1), (64, None, 1), (2, 4, 2), (1, 64, 64)])
def test_what_can_be_shared_is_not_refused(count: int, shards: int | None, started: int) -> None:
    require_shares(asked(count, shards, started=started))


@pytest.mark.parametrize(
    ("options", "started"),
    [
        (["--processes", 99], 1),
        (["--exact-processes", 99], 1),
        (["--processes", 3, "--exact-processes", 4], 1),
        ([], 5),
    ],
)
def test_why_refuses_in_the_words_of_train_and_nothing_is_begun(
    tmp_path: Path, options: list[object], started: int
) -> None:
    words = ("tests.twin.frail:frail", tmp_path / "run", *options)
    told = {"WORLD_SIZE": f"{started}", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
    why = run_to_end(python("-m", "unbroken", "why", *words), cwd=ROOT, **told)
    first, *others = run_together(python("-m", "unbroken", "train", *words), started, cwd=ROOT)
    assert (first.returncode, first.output) == (2, why.output) and why.returncode == 2, (first, why)
    assert len(why.output.splitlines()) == 1 and "Expected" in why.output, why
    assert [(each.returncode, each.output) for each in others] == [(2, "")] * (started - 1)
    assert not (tmp_path / "run").exists()
