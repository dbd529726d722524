"""A run that its own loop ended before the length that was asked for: over, until its config says otherwise."""

from __future__ import annotations

from tests.golden.launch_facts import changed, found, job, saved
from unbroken.launch import Facts, Finished, Resume, decide

ENDED = Facts(survey=found(saved(200), saved(100), finished_at=200, finished_early="no better for 5 evaluations"))


def test_a_run_that_its_loop_ended_is_over_though_more_steps_were_asked_for() -> None:
    plan = decide(job(), ENDED)
    assert isinstance(plan, Finished) and plan.early
    assert plan.reasons == (
        "its loop ended the run at step 200 (no better for 5 evaluations); iter_200.pth, verified by whole-file digest",
    )


def test_it_goes_on_under_a_changed_config_and_says_that_it_was_completed() -> None:
    plan = decide(job(config=changed(train__lr=0.02)), ENDED)
    assert isinstance(plan, Resume) and plan.source.step == 200
    assert plan.reasons[-1] == "the run was completed at step 200, and now 400 steps are asked for"
