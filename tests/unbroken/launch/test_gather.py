"""From a real folder to a plan: looking at everything, changing nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.unbroken.real_runs import (
    CONFIG,
    contents,
    drop_manifests,
    job,
    newest,
    of_a_newer_format,
    of_another_run,
    plan,
    rewrite,
    set_record,
)
from unbroken.clock import SystemClock
from unbroken.errors import UsageError
from unbroken.launch import FineTune, Finished, Fresh, Refuse, Resume, gather
from unbroken.launch.explain import explain
from unbroken.storage import Disk
from unbroken.storage.lock import RunLock


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def weights_of(path: Path, target: Path) -> Path:
    def change(tree: dict) -> None:
        tree["unbroken"]["kind"] = "weights"
        for key in ("optimizer", "param_schedulers"):
            del tree[key]

    return rewrite(path, change, target)


def test_a_damaged_newest_checkpoint_is_named_with_its_damage_and_the_older_one_used(run: Path) -> None:
    damage(newest(run))
    before = contents(run)
    made = plan(job(run))
    assert isinstance(made, Resume) and made.source.step == 110
    words = "\n".join(explain(job(run), made).lines)
    assert "damaged: iter_120.pth - the file is cut off" in words
    assert "the 10 steps up to it are done again" in words
    assert contents(run) == before


def test_of_a_command_that_holds_the_run_nobody_is_told_that_it_saves_when_it_is_stopped(run: Path) -> None:
    ready, holds = os.pipe()
    waits, ends = os.pipe()
    if (holder := os.fork()) == 0:
        RunLock(Disk(), run / "unbroken", SystemClock()).acquire("unpack")
        os.write(holds, b"1")
        os.close(ends)
        os.read(waits, 1)
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"1"
        made = plan(job(run))
    finally:
        os.write(ends, b"1")
        os.waitpid(holder, 0)
    assert isinstance(made, Refuse) and made.exit_code == 11
    assert made.reasons[0].startswith("the run is held by `unbroken unpack` (process ")
    assert made.ways_out[0] == "wait until it ends" and not any("unbroken stop" in way for way in made.ways_out)


def test_all_damaged_is_refused_and_nothing_is_erased(run: Path) -> None:
    for path in run.glob("iter_*.pth"):
        damage(path)
    before = contents(run)
    made = plan(job(run))
    assert isinstance(made, Refuse) and made.exit_code == 12
    assert "all 12 checkpoints here are damaged" in made.reasons[0]
    assert contents(run) == before


def test_a_path_that_is_missing_names_what_is_near_it(run: Path) -> None:
    for start in ({"exact": run / "iter_121.pth"}, {"weights": run / "deep" / "er" / "x.pth", "fresh": True}):
        with pytest.raises(UsageError) as caught:
            gather(job(run, **start))
        assert caught.value.exit_code == 2
        assert "there is no such file" in str(caught.value)
        assert str(run) in caught.value.found and "iter_10.pth" in caught.value.found


def test_of_a_path_whose_disk_is_not_attached_the_sentence_is_whole(run: Path) -> None:
    with pytest.raises(UsageError) as caught:
        gather(job(run, weights=Path("/no such disk/deep/er/x.pth"), fresh=True))
    assert "Found nothing of that path but /. Check the path, and that the data set or disk is attached." in str(
        caught.value
    )


def test_a_folder_given_as_a_file_names_what_is_in_it(run: Path) -> None:
    with pytest.raises(UsageError, match=r"this is a folder, not a file.*iter_10\.pth"):
        gather(job(run, exact=run))


def test_latest_given_by_name_is_the_checkpoint_it_points_to(run: Path) -> None:
    made = plan(job(run, exact=run / "latest.pth"))
    assert isinstance(made, Resume)
    assert made.source.name == "iter_120.pth"
    assert made.source.reason == "verified by whole-file digest"


def test_an_exact_older_file_supersedes_the_later_ones_however_it_is_spelled(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    made = plan(job(run, exact=Path(run.name) / "iter_100.pth"))
    assert isinstance(made, Resume) and made.source.step == 100
    assert [path.name for path in made.superseded] == ["iter_120.pth", "iter_110.pth"]
    assert "iter_100.pth" not in [item.path.name for item in made.rejected]


def test_a_finished_run_with_the_same_config_is_finished(run: Path) -> None:
    assert isinstance(plan(job(run)), Finished)


def test_resuming_from_weights_only_is_refused_and_fine_tuning_from_them_is_not(run: Path, tmp_path: Path) -> None:
    weights = weights_of(newest(run), tmp_path / "best_loss_iter_120.pth")
    refused = plan(job(tmp_path / "new", exact=weights))
    assert isinstance(refused, Refuse) and refused.exit_code == 10
    tuned = plan(job(tmp_path / "new", weights=weights))
    assert isinstance(tuned, FineTune) and tuned.source.step == 120


def test_a_pretrained_model_is_only_for_the_first_launch(run: Path, tmp_path: Path) -> None:
    (run / "iter_120.pth").unlink()
    made = plan(job(run, weights=tmp_path / "gone by now.pth"))
    assert isinstance(made, Resume) and made.source.step == 110
    assert any("for the first launch only" in note for note in made.notes)


def test_an_empty_run_is_found_in_a_mounted_folder_however_deep(run: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "input" / "some-user" / "archive" / "output" / "plain_loop"
    shutil.copytree(run, mounted, symlinks=False)
    before = contents(mounted)
    made = plan(job(tmp_path / "working" / "plain_loop", search=(tmp_path / "input",)))
    assert isinstance(made, Resume) and made.copy_from == mounted and made.source.step == 120
    assert contents(mounted) == before


def test_of_several_copies_the_furthest_good_one_is_taken(run: Path, tmp_path: Path) -> None:
    for day, last in (("monday", 60), ("tuesday", 90)):
        copied = tmp_path / "input" / day
        shutil.copytree(run, copied)
        (copied / "latest.pth").unlink()
        for step in range(last + 10, 130, 10):
            (copied / f"iter_{step}.pth").unlink()
    made = plan(job(tmp_path / "working", search=(tmp_path / "input",)))
    assert isinstance(made, Resume) and made.source.step == 90
    assert any("monday holds it too, at step 60" in note for note in made.notes)


def test_copies_that_are_all_damaged_never_lead_to_a_silent_start_from_nothing(run: Path, tmp_path: Path) -> None:
    for path in run.glob("*.pth"):
        damage(path)
    made = plan(job(tmp_path / "working", search=(run.parent,)))
    assert isinstance(made, Refuse) and made.exit_code == 12
    assert str(run) in made.reasons[0]


def test_a_copy_of_another_run_under_the_same_tag_does_not_continue_a_damaged_one(run: Path, tmp_path: Path) -> None:
    other = tmp_path / "input" / "plain_loop"
    shutil.copytree(run, other)
    set_record(other, id="77aa00bb11cc22dd")
    for path in run.glob("iter_*.pth"):
        damage(path)
    made = plan(job(run, search=(tmp_path / "input",)))
    assert isinstance(made, Refuse) and made.exit_code == 12


def test_what_a_fresh_start_archived_is_not_found_again_by_searching(run: Path) -> None:
    archived = run / "archive" / "20261120_000000"
    archived.mkdir(parents=True)
    for path in list(run.iterdir()):
        if path.name != "archive":
            path.rename(archived / path.name)
    made = plan(job(run, search=(run.parent,)))
    assert isinstance(made, Fresh)


def test_a_folder_to_search_that_is_not_there_is_said(tmp_path: Path) -> None:
    made = plan(job(tmp_path / "working", search=(tmp_path / "input",)))
    assert isinstance(made, Fresh)
    assert made.notes == (f"{tmp_path / 'input'} was to be searched and is not there",)


def test_a_mistyped_tag_is_answered_with_the_tag_that_has_this_config(run: Path) -> None:
    made = plan(job(run.with_name("plain_lop")))
    assert isinstance(made, Fresh)
    assert made.notes == (f"tag `plain_loop` has this config at step 120: {run}",)


def test_a_neighbour_with_another_config_is_no_near_miss(run: Path) -> None:
    for path in (run / "unbroken" / "configs").iterdir():
        path.write_text(json.dumps({**CONFIG, "width": 32}))
    assert plan(job(run.with_name("plain_lop"))).notes == ()


def test_a_broken_neighbour_is_no_reason_to_fail(run: Path) -> None:
    for path in (run / "unbroken" / "configs").iterdir():
        path.write_text("{")
    (run.with_name("other") / "unbroken").mkdir(parents=True)
    (run.with_name("other") / "unbroken" / "run.json").write_text("[1]")
    assert plan(job(run.with_name("plain_lop"))).notes == ()


def test_a_newer_format_is_refused(run: Path) -> None:
    of_a_newer_format(newest(run))
    made = plan(job(run))
    assert isinstance(made, Refuse) and made.exit_code == 14


def test_checkpoints_of_two_runs_without_a_record_are_not_guessed_between(run: Path) -> None:
    of_another_run(newest(run), run / "iter_500.pth")
    drop_manifests(run)
    (run / "unbroken" / "run.json").unlink()
    made = plan(job(run))
    assert isinstance(made, Refuse) and made.exit_code == 12
    assert "2 different runs" in made.reasons[0]


def test_deciding_changes_nothing_whatever_is_asked(run: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    for start in (
        {},
        {"fresh": True},
        {"exact": run / "iter_10.pth"},
        {"weights": run / "iter_10.pth"},
        {"weights": run / "iter_10.pth", "fresh": True},
        {"origin": run / "iter_10.pth"},
        {"search": (tmp_path,)},
    ):
        plan(job(run, **start))
        plan(job(tmp_path / "new", **start))
    assert contents(tmp_path) == before
