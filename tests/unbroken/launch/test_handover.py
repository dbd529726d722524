"""From one machine to the next: what a fresh session finds in mounts that scrambled everything but the bytes."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.crash.faulty_disk import Crash, FaultyDisk, UnsyncedDisk
from tests.twin.killing import python, run_to_end
from tests.unbroken.conftest import LOOP
from tests.unbroken.real_runs import contents, job, look, of_another_run, plan, rewrite, save_id, set_record
from unbroken.checkpoint.stamp import read_stamp
from unbroken.clock import SystemClock
from unbroken.journal import read_events, read_steps
from unbroken.launch import Finished, Fresh, Job, Refuse, Resume
from unbroken.launch.discovery import copies
from unbroken.launch.execute import execute, name_on_arrival
from unbroken.launch.explain import explain
from unbroken.launch.job import Environment, Host
from unbroken.launch.options import add_common_options, start_from
from unbroken.option_parser import OptionParser
from unbroken.run import EPOCHS, ITERATIONS, OpenRun, SessionFiles, read_record
from unbroken.run.layout import own
from unbroken.run.survey import survey
from unbroken.storage import Disk
from unbroken.storage.lock import RunLock

SESSION = "20261122_000000"
BEST = "best_loss_iter_100.pth"


@contextmanager
def carried_out(asked: Job, disk: Disk | None = None) -> Iterator[tuple[OpenRun, Resume]]:
    made = plan(asked)
    assert isinstance(made, Resume), made
    disk, clock = disk or Disk(), SystemClock()
    Disk().make_folder(own(asked.directory))
    lock = RunLock(Disk(), own(asked.directory), clock)
    lock.acquire(SESSION)
    files = SessionFiles(
        disk=disk, clock=clock, directory=asked.directory, layout=asked.layout, session=SESSION, lock=lock
    )
    try:
        opened, done = execute(asked, made, files, conditions={"threads": 1})
        assert isinstance(done, Resume)
        try:
            yield opened, done
        finally:
            opened.close()
    finally:
        lock.release()


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    folder = tmp_path / "input"
    folder.mkdir()
    return folder


@pytest.fixture
def fresh(tmp_path: Path, inputs: Path) -> Job:
    """The same launch in an empty working folder, with the mounts to search."""
    return job(tmp_path / "working" / "plain_loop", search=(inputs,))


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def best_of(path: Path, target: Path) -> Path:
    def change(tree: dict) -> None:
        tree["unbroken"]["kind"] = "weights"
        for key in ("optimizer", "param_schedulers"):
            del tree[key]

    return rewrite(path, change, target)


def scramble_times(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    for path in sorted(folder.rglob("*")):
        if not path.is_symlink():
            moment = chance.randint(0, 2_000_000_000)
            os.utime(path, (moment, moment))


def as_mount(run: Path, target: Path, *, last: int = 120) -> Path:
    """An output as a notebook host gives it back: no links, no dot files, any times, read-only."""
    shutil.copytree(run, target, symlinks=True)
    for path in [*target.rglob("*")]:
        step = path.stem.removeprefix("iter_")
        if path.is_symlink() or path.name.startswith(".") or (step.isdigit() and int(step) > last):
            path.unlink()
    scramble_times(target, seed=7)
    return target


def read_only(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)


# -- identity inside the files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["iter_100.pth", "iter_100 (1).pth", "model.pth", "latest.pth", "ITER.PTH", "a.pth.1"])
def test_one_attached_file_is_found_whatever_it_and_its_folder_are_called(
    run: Path, inputs: Path, fresh: Job, name: str
) -> None:
    target = inputs / "数据 集" / "versions" / "3" / name
    target.parent.mkdir(parents=True)
    shutil.copyfile(run / "iter_100.pth", target)
    (target.parent / "mit_b0.pth").write_bytes(b"PK\x03\x04 somebody else's weights")
    with carried_out(fresh) as (opened, made):
        assert made.source.path == fresh.directory / "iter_100.pth"
        assert opened.record.id == read_stamp(target)["run"]["id"]
    found = look(fresh.directory)
    assert found.newest_good is not None and found.newest_good.step == 100


def test_a_name_that_tells_another_step_is_not_believed(run: Path, inputs: Path, fresh: Job) -> None:
    shutil.copyfile(run / "iter_50.pth", inputs / "iter_9000.pth")
    shutil.copyfile(run / "iter_100.pth", inputs / "iter_10.pth")
    with carried_out(fresh) as (_, made):
        assert made.source.path == fresh.directory / "iter_100.pth"


def test_files_of_other_recipes_and_tags_are_not_of_this_run(run: Path, inputs: Path, fresh: Job) -> None:
    def renamed(tree: dict) -> None:
        tree["unbroken"]["run"]["tag"] = "another"

    rewrite(run / "iter_100.pth", renamed, inputs / "iter_100.pth")
    assert isinstance(plan(fresh), Fresh)


def test_the_lost_folder_of_records_is_no_obstacle_and_what_is_archived_beside_is_not_taken(
    run: Path, inputs: Path, fresh: Job
) -> None:
    mounted = as_mount(run, inputs / "renamed by the host")
    shutil.rmtree(own(mounted))
    (mounted / "archive" / "20261101_000000").mkdir(parents=True)
    of_another_run(run / "iter_120.pth", mounted / "archive" / "20261101_000000" / "iter_120.pth")
    made = plan(fresh)
    assert isinstance(made, Resume) and made.source.step == 120 and made.copy_from == mounted
    assert any("the history of the steps before stays behind" in reason for reason in made.reasons)


def test_the_record_alone_lost_the_journal_still_comes_along(run: Path, inputs: Path, fresh: Job) -> None:
    mounted = as_mount(run, inputs / "out")
    (own(mounted) / "run.json").unlink()
    with carried_out(fresh) as (opened, made):
        assert made.records_from == mounted
        assert opened.record.id == read_stamp(run / "iter_120.pth")["run"]["id"]
    assert len(read_events(own(fresh.directory) / "journal.jsonl")) > 10


def test_a_folder_of_links_is_read_once_each(run: Path, inputs: Path, fresh: Job, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    shutil.copyfile(run / "iter_100.pth", blobs / "3f2a")
    for name in ("iter_100.pth", "latest.pth"):
        (inputs / name).symlink_to(blobs / "3f2a")
    (found,) = copies(fresh, survey(fresh.directory, ITERATIONS))
    assert len(found.candidates) == 1 and found.newest_good is not None


@pytest.mark.parametrize("name", ["latest_model.pth", "checkpoint_epoch_3.pth", "download.pth"])
def test_in_a_run_by_epochs_the_folder_of_the_checkpoints_tells_where_the_run_is(
    run: Path, inputs: Path, fresh: Job, name: str
) -> None:
    target = inputs / "out" / "ckpt" / name
    target.parent.mkdir(parents=True)
    shutil.copyfile(run / "iter_100.pth", target)
    by_epochs = replace(fresh, layout=EPOCHS)
    (found,) = copies(by_epochs, survey(fresh.directory, EPOCHS))
    assert found.directory == inputs / "out" and found.newest_good is not None
    assert name_on_arrival(EPOCHS, found.newest_good) in ("latest_model.pth", "checkpoint_epoch_3.pth")
    assert name_on_arrival(EPOCHS, replace(found.newest_good, kind="foreign checkpoint")) == name


# -- what comes along -------------------------------------------------------------------------------------------------


def test_the_whole_history_comes_along_but_no_pictures(run: Path, inputs: Path, fresh: Job) -> None:
    session = read_events(own(run) / "journal.jsonl")[0]["session"]
    (run / session / "vis_data").mkdir(parents=True, exist_ok=True)
    (run / session / "vis_data" / "scalars.json").write_text('{"step": 1}\n')
    (run / session / "vis_data" / "prediction.png").write_bytes(b"\x89PNG")
    best_of(run / "iter_100.pth", run / BEST)
    mounted = as_mount(run, inputs / "out")
    with carried_out(fresh):
        pass
    here, there = contents(fresh.directory), contents(mounted)
    grows = {"unbroken/journal.jsonl", "unbroken/metrics.jsonl", "unbroken/logged.jsonl"}
    of_the_lock = {"unbroken/lock", "unbroken/holder.json"}
    checkpoints = {name for name in there if name.startswith("iter_")} - {"iter_120.pth"}
    expected = set(there) - grows - of_the_lock - checkpoints - {f"{session}/vis_data/prediction.png"}
    assert {name: here.get(name) for name in expected} == {name: there[name] for name in expected}
    assert BEST in here and f"{session}/{session}.log" in expected
    assert list(read_steps(own(fresh.directory) / "metrics.jsonl")) == list(read_steps(own(mounted) / "metrics.jsonl"))


def test_best_weights_of_the_same_run_come_along_and_those_of_another_do_not(
    run: Path, inputs: Path, fresh: Job
) -> None:
    shutil.copyfile(run / "iter_100.pth", inputs / "iter_100.pth")
    best_of(run / "iter_50.pth", inputs / "best_loss_iter_50.pth")
    other = best_of(run / "iter_60.pth", inputs / "best_loss_iter_60.pth")
    rewrite(other, lambda tree: tree["unbroken"]["run"].update(id="77aa00bb11cc22dd", tag="another"))
    with carried_out(fresh):
        pass
    assert [path.name for path in fresh.directory.glob("best_*")] == ["best_loss_iter_50.pth"]


def test_records_come_from_an_older_output_when_only_a_file_is_further(run: Path, inputs: Path, fresh: Job) -> None:
    older = as_mount(run, inputs / "output of the first session", last=60)
    (inputs / "upload").mkdir()
    shutil.copyfile(run / "iter_100.pth", inputs / "upload" / "weights (2).pth")
    with carried_out(fresh) as (opened, made):
        assert made.source.step == 100 and made.records_from == older
        assert opened.record == read_record(older)


def test_the_same_script_goes_on_from_a_renamed_file_and_ends_where_an_unbroken_run_ended(
    run: Path, tmp_path: Path
) -> None:
    inputs = tmp_path / "input"
    inputs.mkdir()
    shutil.copyfile(run / "iter_80.pth", inputs / "model (1).pth")
    read_only(inputs)
    before = contents(inputs)
    script = tmp_path / "loop.py"
    text = LOOP.read_text("utf-8")
    script.write_text(text.replace("save_every=10)", f"save_every=10, search=[{str(inputs)!r}])", 1), "utf-8")
    assert script.read_text("utf-8") != text
    session = run_to_end(python(script, tmp_path / "working", 0))
    assert session.returncode == 0, session.output
    assert "it is copied here" in session.output
    here = tmp_path / "working" / "plain_loop"
    done = {record["step"]: record["loss"] for record in read_steps(own(here) / "metrics.jsonl")}
    before_it = {record["step"]: record["loss"] for record in read_steps(own(run) / "metrics.jsonl")}
    assert done and done == {step: loss for step, loss in before_it.items() if step > 80}
    assert contents(inputs) == before


# -- damage -----------------------------------------------------------------------------------------------------------


def test_a_cut_off_output_is_said_and_the_next_copy_used(run: Path, inputs: Path, fresh: Job) -> None:
    newest = as_mount(run, inputs / "tuesday")
    for path in newest.glob("iter_*.pth"):
        cut_off(path)
    as_mount(run, inputs / "monday", last=90)
    made = plan(fresh)
    assert isinstance(made, Resume) and made.source.step == 90
    assert any("iter_120.pth is damaged: the 30 steps up to it are done again" in reason for reason in made.reasons)
    assert any(item.damaged and item.path == newest / "iter_120.pth" for item in made.rejected)
    said = [line for line in explain(fresh, made).lines if line.startswith("  damaged: ")]
    assert said and all(line.startswith(f"  damaged: {newest}/iter_") for line in said), said


def test_a_cut_off_file_alone_still_says_whose_it_is_and_is_never_a_silent_start_from_nothing(
    run: Path, inputs: Path, fresh: Job
) -> None:
    shutil.copyfile(run / "iter_100.pth", inputs / "model.pth")
    cut_off(inputs / "model.pth")
    made = plan(fresh)
    assert isinstance(made, Refuse) and made.exit_code == 12
    assert read_stamp(inputs / "model.pth")["step"] == 100


def test_strangers_and_ruins_have_no_stamp(tmp_path: Path) -> None:
    for number, head in enumerate((b"", b"PK\x03\x04", b"PK\x03\x04" + bytes(60), b"\x80\x02}q\x00.", b"PK" * 500)):
        path = tmp_path / f"{number}.pth"
        path.write_bytes(head)
        assert read_stamp(path) == {}
    assert read_stamp(tmp_path / "none.pth") == {}


def test_every_length_of_a_cut_off_file_is_either_ours_or_nothing(run: Path, tmp_path: Path) -> None:
    whole, path = (run / "iter_100.pth").read_bytes(), tmp_path / "x.pth"
    answers = set()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        answers.add(str(read_stamp(path).get("step")))
    assert answers == {"None", "100"}


# -- which one --------------------------------------------------------------------------------------------------------


def other_run(folder: Path) -> Path:
    set_record(folder, id="77aa00bb11cc22dd")
    for path in folder.glob("*.pth"):
        of_another_run(path)
    shutil.rmtree(own(folder) / "manifests")
    return folder


def test_two_runs_of_one_name_are_refused_with_both_and_naming_one_folder_is_the_way_out(
    run: Path, inputs: Path, fresh: Job
) -> None:
    first, second = as_mount(run, inputs / "a", last=60), other_run(as_mount(run, inputs / "b"))
    made = plan(fresh)
    assert isinstance(made, Refuse) and made.exit_code == 10
    words = "\n".join((*made.reasons, *made.ways_out))
    record = read_record(first)
    assert record is not None
    for text in (str(first), str(second), record.id, "77aa00bb11cc22dd", "step 60", "step 120", "written 20"):
        assert text in words
    assert not fresh.directory.exists()
    chosen = plan(job(fresh.directory, search=(first,)))
    assert isinstance(chosen, Resume) and chosen.source.step == 60
    by_file = plan(job(fresh.directory, search=(inputs,), exact=second / "iter_120.pth"))
    assert isinstance(by_file, Resume) and by_file.source.step == 120


def test_a_run_with_a_local_record_only_takes_copies_of_itself(run: Path, inputs: Path, fresh: Job) -> None:
    first, _ = as_mount(run, inputs / "a", last=60), other_run(as_mount(run, inputs / "b"))
    with carried_out(job(fresh.directory, search=(first,))):
        pass
    (fresh.directory / "iter_60.pth").unlink()
    made = plan(fresh)
    assert isinstance(made, Resume) and made.copy_from == first


def test_identical_copies_are_no_ambiguity(run: Path, inputs: Path, fresh: Job) -> None:
    as_mount(run, inputs / "a")
    (inputs / "b").mkdir()
    shutil.copyfile(run / "iter_120.pth", inputs / "b" / "x.pth")
    made = plan(fresh)
    assert isinstance(made, Resume) and made.copy_from == inputs / "a"


def test_two_sessions_that_did_not_know_of_each_other_are_not_chosen_between(
    run: Path, inputs: Path, fresh: Job
) -> None:
    for name, session in (("a", "20261121_080000"), ("b", "20261121_090000")):
        (inputs / name).mkdir()

        def by_that_session(tree: dict, session: str = session) -> None:
            tree["unbroken"].update(session=session, save=f"save{session[-6:]}")

        rewrite(run / "iter_120.pth", by_that_session, inputs / name / "iter_120.pth")
    assert save_id(inputs / "a" / "iter_120.pth") != save_id(inputs / "b" / "iter_120.pth")
    made = plan(fresh)
    assert isinstance(made, Refuse) and made.exit_code == 10
    assert "20261121_080000" in made.reasons[1] and "20261121_090000" in made.reasons[2]


# -- mounts are left alone --------------------------------------------------------------------------------------------


def test_nothing_below_a_mount_is_written_or_locked(run: Path, inputs: Path, fresh: Job) -> None:
    mounted = as_mount(run, inputs / "out")
    read_only(inputs)
    before = contents(inputs)
    times = {path: path.stat().st_mtime_ns for path in inputs.rglob("*")}
    (found,) = copies(fresh, survey(fresh.directory, ITERATIONS))
    assert not found.held
    with carried_out(fresh):
        pass
    assert contents(inputs) == before
    assert {path: path.stat().st_mtime_ns for path in inputs.rglob("*")} == times
    assert found.directory == mounted


def test_killed_at_any_request_while_a_copy_comes_in_the_same_command_goes_on(
    run: Path, tmp_path: Path, inputs: Path
) -> None:
    best_of(run / "iter_100.pth", run / BEST)
    for path in run.glob("unbroken/manifests/*.json"):
        if "iter_120" not in path.name:
            path.unlink()
    as_mount(run, inputs / "out")
    before, number, over = contents(inputs), 0, False
    while not over:
        asked = job(tmp_path / f"working{number}" / "plain_loop", search=(inputs,))
        disk = FaultyDisk(crash_at=number, when=("before", "torn", "after")[number % 3])
        try:
            with carried_out(asked, disk):
                over = number >= len(disk.requests)
        except Crash:
            disk.bury()
        if not over:
            again = plan(asked)
            assert isinstance(again, Resume | Finished), (number, again)
            if isinstance(again, Resume) and again.copy_from is not None:
                with carried_out(asked, UnsyncedDisk()):
                    pass
        found = look(asked.directory)
        assert found.newest_good is not None and found.newest_good.step == 120, number
        shutil.rmtree(asked.directory.parent)
        number += 1
    assert number > 30
    assert contents(inputs) == before


def test_a_folder_that_unpack_is_still_filling_is_no_copy(run: Path, inputs: Path, fresh: Job) -> None:
    as_mount(run, inputs / "plain_loop.partial")
    assert isinstance(plan(fresh), Fresh)


def test_a_folder_that_is_named_is_searched_instead_of_those_of_the_environment(tmp_path: Path) -> None:
    parser = OptionParser()
    add_common_options(parser)
    surroundings = Environment(host=Host(search=(Path("/kaggle/input"), Path("/mnt"))))
    assert start_from(parser.parse_args([]), surroundings).search == (Path("/kaggle/input"), Path("/mnt"))
    named = parser.parse_args(["--search", "a", "--search", "b"])
    assert start_from(named, surroundings).search == (Path("a"), Path("b"))
