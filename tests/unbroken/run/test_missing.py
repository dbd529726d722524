"""What the records of a run know of and its folder has not: named wherever one looks; links to checkpoints count."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.golden.launch_facts import FOLDER, best, found, job, saved
from tests.golden.on_disk import lay_out
from tests.golden.row import row
from unbroken.checkpoint.store import CheckpointStore
from unbroken.cli import entry
from unbroken.clock import SystemClock
from unbroken.journal import Journal
from unbroken.keep.archive import move_all
from unbroken.launch import Refuse, Resume, decide, gather
from unbroken.launch.explain import explain
from unbroken.run import EPOCHS
from unbroken.run.layout import manifests, own
from unbroken.run.survey import survey
from unbroken.storage import Disk

OTHER_DISK = Path("other_disk")
NEWEST = FOLDER / "iter_380.pth"
LINKS = {
    "absolute": lambda target: target.absolute(),
    "relative": lambda target: Path(os.path.relpath(target, FOLDER)),
    "by way of another link": lambda target: _by_way(target),
}


def _by_way(target: Path) -> Path:
    link = target.with_name("called_otherwise.pth")
    link.symlink_to(target.name)
    return link.absolute()


@pytest.fixture(autouse=True)
def run_of_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with the steps 380, 300 and 200 and its best weights, in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("UNBROKEN_SEARCH_PATH", raising=False)
    lay_out(row("", found(saved(380), saved(300), saved(200), best(250))))
    record("saved", file="best_mIoU_iter_250.pth", kind="weights", step=250)
    OTHER_DISK.mkdir()


def record(event: str, **facts: object) -> None:
    journal = Journal(Disk(), own(FOLDER) / "journal.jsonl", clock=SystemClock(), session="20261120_200000")
    journal.write(event, **facts)
    journal.close()


def plan() -> Resume:
    decided = decide(job(), gather(job()))
    assert isinstance(decided, Resume)
    return decided


def missing() -> dict[str, str]:
    return {item.name: item.words for item in survey(FOLDER, job().layout).missing}


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str]:
    code = entry.main([*words])
    return code, capsys.readouterr().out


def moved(name: str = NEWEST.name) -> Path:
    """Move a file to another disk; where it lies now."""
    return (FOLDER / name).rename(OTHER_DISK / name)


def test_the_newest_checkpoint_that_is_gone_is_named_by_everybody(capsys: pytest.CaptureFixture[str]) -> None:
    NEWEST.unlink()
    said = "\n".join(explain(job(), plan()).lines)
    assert "iter_380.pth (step 380), which the journal records as saved at 2026-11-20 22:00:00 +0000" in said
    assert "the 80 steps after 300 are done again" in said
    assert "has the furthest recorded step of this run" not in said
    code, words = asked(capsys, "verify", str(FOLDER))
    assert (code, "missing" in words, words.splitlines()[-1]) == (
        12,
        True,
        "all 3 are whole; 1 that the run needs to be whole is missing",
    )
    code, words = asked(capsys, "verify", str(FOLDER), "--json")
    assert {item["file"]: item["state"] for item in json.loads(words)}[str(NEWEST)] == "missing"
    code, words = asked(capsys, "audit", str(FOLDER), "--json")
    assert (code, "iter_380.pth" in str(json.loads(words)["findings"])) == (12, True)
    code, words = asked(capsys, "show", str(FOLDER), "--json")
    assert {item["file"]: item["state"] for item in json.loads(words)["files"]}["iter_380.pth"] == "missing"
    assert "missing" in asked(capsys, "show", str(FOLDER))[1]


def test_a_backup_and_what_is_restored_from_it_say_what_they_lack(capsys: pytest.CaptureFixture[str]) -> None:
    NEWEST.unlink()
    code, words = asked(capsys, "backup", str(FOLDER), str(OTHER_DISK))
    assert (code, words.count("  missing: iter_380.pth (step 380), which the journal records")) == (0, 1)
    assert json.loads(asked(capsys, "backup", str(FOLDER), str(OTHER_DISK), "--json")[1])["missing"] == [NEWEST.name]
    code, words = asked(capsys, "restore", "restored/baseline", "--from", str(OTHER_DISK))
    assert (code, words.count("  missing: iter_380.pth (step 380), which the journal records")) == (0, 1), words


def test_best_weights_that_are_gone_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    (FOLDER / "best_mIoU_iter_250.pth").unlink()
    (words,) = plan().warnings
    assert words.startswith("best_mIoU_iter_250.pth (step 250), which the journal records")
    assert asked(capsys, "verify", str(FOLDER))[0] == 12


def test_an_older_checkpoint_that_somebody_removed_is_listed_and_no_loss(capsys: pytest.CaptureFixture[str]) -> None:
    (FOLDER / "iter_200.pth").unlink()
    assert plan().warnings == ()
    assert "iter_380.pth has the furthest recorded step of this run" in plan().reasons[0]
    code, words = asked(capsys, "verify", str(FOLDER))
    assert (code, "all 3 are whole; 1 of earlier steps is not here any more" in words) == (0, True)


@pytest.mark.parametrize("kind", LINKS)
def test_a_checkpoint_that_was_moved_to_another_disk_is_followed(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    NEWEST.symlink_to(LINKS[kind](moved()))
    found_here = plan()
    assert (found_here.source.path, found_here.source.reason) == (NEWEST, "verified by whole-file digest")
    assert (found_here.warnings, missing()) == ((), {})
    assert asked(capsys, "verify", str(FOLDER), str(NEWEST))[0] == 0
    assert asked(capsys, "verify", str(NEWEST), "--json")[1].count("whole-file digest") == 1
    assert "missing" not in asked(capsys, "audit", str(FOLDER))[1].replace("metrics.jsonl: missing", "")


@pytest.mark.parametrize("target", ["/nowhere/iter_380.pth", "../nowhere.pth", "iter_380.pth", "/dev/zero"])
def test_a_link_that_leads_to_nothing_is_named(target: str, capsys: pytest.CaptureFixture[str]) -> None:
    NEWEST.unlink()
    NEWEST.symlink_to(target)
    why = "which is not a file" if target == "/dev/zero" else "which is not there"
    assert missing() == {
        "iter_380.pth": f"is a link to {target}, {why}, though the journal records it as saved at "
        "2026-11-20 22:00:00 +0000"
    }
    assert f"is a link to {target}, {why}: the 80 steps after 300 are done again" in plan().warnings[0]
    assert asked(capsys, "verify", str(FOLDER))[0] == 12
    named = job(exact=NEWEST)
    with pytest.raises(Exception, match=f"this is a link to {target}, which"):
        gather(named)


def test_second_names_of_files_that_are_here_are_no_files() -> None:
    (FOLDER / "the_best_one.pth").symlink_to("iter_300.pth")
    (FOLDER / "folder.pth").mkdir()
    os.mkfifo(FOLDER / "pipe.pth")
    assert [item.name for item in survey(FOLDER, job().layout).candidates] == [
        "iter_380.pth",
        "iter_300.pth",
        "best_mIoU_iter_250.pth",
        "iter_200.pth",
    ]
    assert missing() == {}


@pytest.mark.parametrize("event", ["removed", "set aside"])
def test_what_the_run_itself_took_away_is_not_missing(event: str) -> None:
    NEWEST.unlink()
    record(event, file=NEWEST.name, reason="for a reason", to="archive/20261121_080000")
    manifest = manifests(FOLDER) / "iter_380.pth.json"
    assert manifest.exists() and missing() == {}


def test_a_removal_that_is_under_way_is_none_of_it() -> None:
    NEWEST.rename(FOLDER / "iter_380.pth.going")
    assert missing() == {}


def test_a_state_under_another_name_is_not_missing() -> None:
    NEWEST.rename(FOLDER / "kept_by_me.pth")
    assert missing() == {}


def test_what_only_manifests_or_links_know_is_never_a_silent_beginning() -> None:
    (own(FOLDER) / "journal.jsonl").unlink()
    NEWEST.unlink()
    assert missing() == {
        "iter_380.pth": "is not here, though its manifest records it as saved at 2026-11-20 20:00:00 +0000"
    }
    for path in FOLDER.glob("*.pth"):
        path.unlink()
    lost = decide(job(), gather(job()))
    assert isinstance(lost, Refuse) and lost.exit_code == 12
    assert "iter_380.pth (step 380)" in lost.reasons[1]


def test_a_rolling_file_that_was_replaced_is_not_missing_and_one_that_an_older_copy_replaced_is() -> None:
    rolling = FOLDER / EPOCHS.checkpoint_folder / EPOCHS.rolling_name
    rolling.parent.mkdir()
    moved("iter_300.pth").rename(rolling)
    for path in FOLDER.glob("*.pth"):
        path.unlink()
    (own(FOLDER) / "journal.jsonl").unlink()
    for step in (100, 200, 300):
        record("saved", file=rolling.name, kind="checkpoint", step=step)
    for path in manifests(FOLDER).iterdir():
        path.unlink()
    assert survey(FOLDER, EPOCHS).missing == ()
    record("saved", file=rolling.name, kind="checkpoint", step=350)
    (item,) = survey(FOLDER, EPOCHS).losses
    assert (item.name, item.step, item.reason) == (
        rolling.name,
        350,
        "is not here: the file of that name is of step 300",
    )


def test_pruning_counts_no_link_and_removes_none(capsys: pytest.CaptureFixture[str]) -> None:
    """With the newest on another disk, the two states on this one stay, whatever is asked for."""
    NEWEST.symlink_to(moved().absolute())
    target = OTHER_DISK / NEWEST.name
    code, words = asked(capsys, "prune", str(FOLDER), "--keep-last", "1", "--explain")
    assert code == 0
    asked(capsys, "prune", str(FOLDER), "--keep-last", "1")
    assert NEWEST.is_symlink() and target.is_file()
    assert (FOLDER / "iter_300.pth").is_file() and (FOLDER / "iter_200.pth").is_file(), words


def test_the_retention_of_a_training_counts_no_link_and_removes_none() -> None:
    store = CheckpointStore(
        Disk(),
        FOLDER,
        manifests=manifests(FOLDER),
        record=lambda *_words, **_facts: None,
        pointer="latest.pth",
        keep_last=1,
    )
    target = moved()
    NEWEST.symlink_to(target.absolute())
    assert store.make_room() == []
    NEWEST.unlink()
    target.rename(NEWEST)
    assert store.make_room() == ["iter_200.pth"]


def test_a_link_that_moves_aside_still_leads_to_its_file() -> None:
    NEWEST.symlink_to(LINKS["relative"](moved()))
    content = NEWEST.read_bytes()
    archive = FOLDER / "archive" / "20261121_080000"
    archive.mkdir(parents=True)
    move_all(Disk(), [NEWEST, FOLDER / "latest.pth"], archive)
    assert (archive / NEWEST.name).read_bytes() == content
    assert (archive / "latest.pth").readlink() == Path("iter_380.pth")
    assert not NEWEST.is_symlink()
