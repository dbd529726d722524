"""Carrying a plan out on a real folder: what is in the way moves, nothing is lost, nothing is overwritten."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unbroken.real_runs import as_mmengine, contents, job, look, newest, of_another_run, plan
from unbroken.clock import SystemClock
from unbroken.journal import read_events
from unbroken.launch import FineTune, Fresh, Job, Refuse, Resume
from unbroken.launch.execute import execute
from unbroken.run import OpenRun, SessionFiles, read_record
from unbroken.run.layout import own
from unbroken.storage import Disk
from unbroken.storage.lock import RunLock

SESSION = "20261122_000000"


@contextmanager
def carried_out(asked: Job) -> Iterator[tuple[OpenRun, Fresh | Resume | FineTune]]:
    made = plan(asked)
    assert isinstance(made, Fresh | Resume | FineTune), made
    disk, clock = Disk(), SystemClock()
    disk.make_folder(own(asked.directory))
    lock = RunLock(disk, own(asked.directory), clock)
    lock.acquire(SESSION)
    files = SessionFiles(
        disk=disk, clock=clock, directory=asked.directory, layout=asked.layout, session=SESSION, lock=lock
    )
    opened, made = execute(asked, made, files, conditions={"threads": 1})
    try:
        yield opened, made
    finally:
        opened.close()


def digests(folder: Path) -> set[str]:
    return set(contents(folder).values())


def events(run: Path, name: str) -> list[dict]:
    return [event for event in read_events(run / "unbroken" / "journal.jsonl") if event["event"] == name]


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


def test_a_damaged_file_moves_aside_and_the_journal_says_why(run: Path) -> None:
    damage(newest(run))
    before = contents(run)["iter_120.pth"]
    with carried_out(job(run)):
        pass
    assert contents(run)[f"archive/{SESSION}/iter_120.pth"] == before
    (event,) = events(run, "set aside")
    assert event["file"] == "iter_120.pth" and event["reason"].startswith("damaged: the file is cut off")


def test_a_further_file_of_another_run_is_not_overwritten_later(run: Path) -> None:
    of_another_run(newest(run), run / "iter_500.pth")
    newest(run).unlink()
    with carried_out(job(run)) as (_, made):
        assert isinstance(made, Resume) and made.source.step == 110
    assert (run / "archive" / SESSION / "iter_500.pth").exists()
    assert not (run / "iter_500.pth").exists()


def test_superseded_checkpoints_are_kept_in_the_archive(run: Path) -> None:
    with carried_out(job(run, exact=run / "iter_100.pth")):
        pass
    assert sorted(path.name for path in (run / "archive" / SESSION).iterdir()) == ["iter_110.pth", "iter_120.pth"]
    found = look(run)
    assert found.newest_good is not None and found.newest_good.step == 100


def test_superseding_everything_and_dying_before_the_first_save_is_never_a_silent_start_from_nothing(
    run: Path, tmp_path: Path
) -> None:
    outside = Path(shutil.copy(run / "iter_10.pth", tmp_path / "kept.pth"))
    (run / "iter_10.pth").unlink()
    with carried_out(job(run, exact=outside)):
        pass
    made = plan(job(run))
    assert isinstance(made, Refuse) and made.exit_code == 12


def test_fresh_moves_everything_and_deletes_nothing(run: Path) -> None:
    grows = ("lock", "holder.json", "journal.jsonl")
    before = {name: digest for name, digest in contents(run).items() if not name.endswith(grows)}
    journal = (run / "unbroken" / "journal.jsonl").read_bytes()
    with carried_out(job(run, fresh=True)) as (opened, _):
        new = opened.record.id
    after = contents(run)
    assert {f"archive/{SESSION}/{name}": digest for name, digest in before.items()}.items() <= after.items()
    assert (run / "archive" / SESSION / "unbroken" / "journal.jsonl").read_bytes().startswith(journal)
    old = read_record(run / "archive" / SESSION)
    assert old is not None and old.id != new
    assert not list(run.glob("*.pth"))
    assert isinstance(plan(job(run)), Fresh)


def test_fresh_with_a_pretrained_model_fine_tunes_and_archives(run: Path) -> None:
    with carried_out(job(run, fresh=True, weights=run / "iter_50.pth")) as (opened, made):
        assert isinstance(made, FineTune) and made.archive
        assert opened.record.parent is not None and opened.record.parent["step"] == 50
    assert (run / "archive" / SESSION / "iter_120.pth").exists()


def test_a_copy_from_elsewhere_brings_its_records_and_stays_untouched(run: Path, tmp_path: Path) -> None:
    mounted, here = run, tmp_path / "working" / "plain_loop"
    for path in [mounted, *mounted.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o555 if path.is_dir() else 0o444)
    before = contents(mounted)
    with carried_out(job(here, search=(run.parent,))) as (opened, made):
        assert isinstance(made, Resume) and made.source.path == here / "iter_120.pth"
        assert opened.record == read_record(mounted)
    assert contents(mounted) == before
    assert len(events(here, "saved")) == 12
    found = look(here)
    assert found.newest_good is not None and found.newest_good.step == 120


def test_a_copy_that_replaces_damaged_files_keeps_both(run: Path, tmp_path: Path) -> None:
    """The damaged file has the very name of the good one that comes in."""
    here = tmp_path / "working" / "plain_loop"
    shutil.copytree(run, here)
    for path in here.glob("*.pth"):
        damage(path)
    before = {digest for name, digest in contents(here).items() if not name.endswith(("lock", "holder.json"))}
    with carried_out(job(here, search=(run.parent,))) as (_, made):
        assert isinstance(made, Resume) and made.source.path == here / "iter_120.pth"
        found = look(here)
        assert found.newest_good is not None and found.newest_good.step == 120
    assert before <= digests(here)


def test_a_kill_while_a_copy_comes_in_never_leads_to_a_start_from_nothing(run: Path, tmp_path: Path) -> None:
    """The checkpoint is the last to arrive: whatever had arrived before it, the next launch knows of the history."""
    here = tmp_path / "working" / "plain_loop"
    with carried_out(job(here, search=(run.parent,))):
        pass
    (here / "iter_120.pth").unlink()
    again = plan(job(here, search=(run.parent,)))
    assert isinstance(again, Resume) and again.copy_from == run
    alone = plan(job(here))
    assert isinstance(alone, Refuse) and alone.exit_code == 12


def test_a_real_copy_of_latest_moves_aside_before_the_link_comes(run: Path) -> None:
    (run / "latest.pth").unlink()
    shutil.copy(run / "iter_110.pth", run / "latest.pth")
    (run / "iter_120.pth").unlink()
    with carried_out(job(run)) as (_, made):
        assert isinstance(made, Resume) and made.source.name == "iter_110.pth"
    assert (run / "archive" / SESSION / "latest.pth").exists()


def test_a_copy_that_has_only_latest_arrives_under_the_name_of_its_step(run: Path, tmp_path: Path) -> None:
    mounted = tmp_path / "input" / "plain_loop"
    shutil.copytree(run, mounted)
    for path in mounted.glob("iter_*.pth"):
        path.unlink()
    with carried_out(job(tmp_path / "new", search=(mounted,))) as (_, made):
        assert isinstance(made, Resume) and made.source.path == tmp_path / "new" / "iter_120.pth"


def test_what_a_cut_off_save_left_is_removed_and_recorded(run: Path) -> None:
    newest(run).rename(run / "iter_120.pth.partial")
    with carried_out(job(run)):
        pass
    assert not list(run.glob("*.partial"))
    assert [event["file"] for event in events(run, "removed")] == ["iter_120.pth.partial"]


def test_the_first_resume_from_another_programs_file_records_where_it_came_from(run: Path, tmp_path: Path) -> None:
    foreign = as_mmengine(newest(run), tmp_path / "iter_20000.pth", step=20_000)
    with carried_out(job(tmp_path / "new", origin=foreign)) as (opened, _):
        assert opened.record.parent == {
            "file": str(foreign),
            "sha256": hashlib.sha256(foreign.read_bytes()).hexdigest(),
            "size_bytes": foreign.stat().st_size,
            "written_by": "MMEngine checkpoint",
            "step": 20_000,
            "run": "",
            "tag": "",
        }
    again = plan(job(tmp_path / "new", origin=foreign))
    assert isinstance(again, Resume) and again.source.step == 20_000


def test_the_journal_is_strict_json_whatever_the_numbers_are(run: Path) -> None:
    def no_constants(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    newest(run).unlink()
    with carried_out(job(run)) as (opened, _):
        opened.journal.write("evaluated", step=1, metrics={"mIoU": float("nan"), "worst": [float("-inf")]})
    last = (run / "unbroken" / "journal.jsonl").read_text().splitlines()[-1]
    assert json.loads(last, parse_constant=no_constants)["metrics"] == {"mIoU": "nan", "worst": ["-inf"]}
