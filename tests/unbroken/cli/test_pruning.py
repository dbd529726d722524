"""`prune` and `pin` as they are typed: on a run, on several, on one that is held, on hostile names."""

from __future__ import annotations

import fcntl
import json
import shutil
from pathlib import Path

import pytest

from tests.golden.launch_facts import RECORD
from tests.golden.on_disk import DISK, Then
from tests.golden.retention_on_disk import lay_out
from tests.golden.retention_rows import Row, best, epochs, saves
from tests.mapsage.mmengine_files import FOLDER as MMENGINE
from tests.mapsage.mmengine_files import needs_files
from tests.unbroken.cli.typing_commands import Type, contents, process, reads_well
from unbroken.checkpoint.manifest import SaveFacts
from unbroken.checkpoint.removal import GOING_SUFFIX
from unbroken.checkpoint.store import CheckpointStore
from unbroken.journal import read_events
from unbroken.run import EPOCHS
from unbroken.run.layout import manifests, own
from unbroken.run.record import read_pins
from unbroken.train.state.serialise import write_tree

FIVE = Row(title="", files=saves(10, 20, 30, 40, 50))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run() -> Path:
    run = Path("runs/baseline")
    lay_out(FIVE, run)
    return run


def left(run: Path) -> set[str]:
    return {path.name for path in run.glob("*.pth") if not path.is_symlink()}


# -- prune -------------------------------------------------------------------------------------------------------------


def test_one_run_is_pruned_at_once_and_says_what_went_and_what_stays_and_why(run: Path, type_: Type) -> None:
    answer = type_("prune", run)
    assert answer.code == 0
    first, went, *others = answer.out.splitlines()
    assert first.startswith(f"{run}: 3 files went, ") and first.endswith("; 2 stay")
    assert went == "  went: iter_10.pth, iter_20.pth, iter_30.pth"
    assert others == ["  stays: iter_50.pth (among the last 2)", "  stays: iter_40.pth (among the last 2)"]
    assert left(run) == {"iter_40.pth", "iter_50.pth"}
    events = [event for event in read_events(own(run) / "journal.jsonl") if event["event"] == "removed"]
    assert [(event["file"], event["session"]) for event in events] == [(f"iter_{n}.pth", "") for n in (10, 20, 30)]
    assert all(event["reason"].startswith("pruned: older than the last 2") for event in events)


@pytest.mark.parametrize("option", ["--explain", "--dry-run"])
def test_explaining_and_a_dry_run_change_nothing_and_end_with_the_command_that_does_it(
    run: Path, type_: Type, option: str
) -> None:
    before = contents(run)
    answer = type_("prune", run, "--keep-last", 3, "--keep-every", 20, "--no-keep-best", "--damaged", option)
    assert contents(run) == before
    *_, last = answer.out.splitlines()
    command = f"unbroken prune {run} --keep-last 3 --keep-every 20 --no-keep-best --damaged"
    assert last == f"nothing was changed; to do it: {command}"
    if option == "--explain":
        rows = {line.split()[0]: line for line in answer.out.splitlines()[2:-1]}
        assert set(rows) == {f"iter_{n}.pth" for n in (10, 20, 30, 40, 50)}
        assert " goes " in rows["iter_10.pth"] and rows["iter_20.pth"].endswith("one of every 20 steps")
    type_(*command.split()[1:])
    assert left(run) == {"iter_20.pth", "iter_30.pth", "iter_40.pth", "iter_50.pth"}


def test_a_run_without_two_verified_states_loses_nothing_and_is_told_so(type_: Type) -> None:
    lay_out(Row(title="", files=(*saves(10), best(5), best(10))), Path("young"))
    before = contents(Path("young"))
    answer = type_("prune", "young")
    assert answer.code == 0 and contents(Path("young")) == before
    assert answer.out.startswith("young: nothing goes; 3 files stay (1 verified state is here; 2 have to stay)")


def test_several_runs_are_only_looked_at_until_yes_is_typed(run: Path, type_: Type) -> None:
    lay_out(Row(title="", files=epochs(1, 2, 3), layout=EPOCHS), Path("runs/deep/er/sonar"))
    before = contents(Path())
    answer = type_("prune", "runs")
    assert contents(Path()) == before
    *_, sums, last = answer.out.splitlines()
    assert sums.startswith("2 runs: 4 files would go, ")
    assert last == "nothing was changed; to do it: unbroken prune runs --keep-last 2 --yes"
    assert contents(Path()) == before
    assert type_("prune", run, "runs/deep/er/sonar", run).out.splitlines()[-1].endswith("--yes")
    assert contents(Path()) == before
    done = type_("prune", "runs", "--yes", "--json").data
    assert [(Path(item["run"]).name, item["done"]) for item in done] == [("baseline", True), ("sonar", True)]
    assert left(run) == {"iter_40.pth", "iter_50.pth"} and len(left(Path("runs/deep/er/sonar/ckpt"))) == 2


def test_a_run_that_a_live_process_holds_is_refused_and_among_several_left_out(run: Path, type_: Type) -> None:
    lay_out(FIVE, Path("runs/other"))
    with (own(run) / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = contents(run)
        for words in (["prune", run], ["prune", run, "--explain"]):
            answer = type_(*words)
            assert answer.code == 11 and reads_well(answer) and "held" in answer.err
        several = type_("prune", "runs", "--yes")
        assert (
            several.code == 0 and f"{run}: left out: " in several.out and "2 runs, 1 left out: 3 files" in several.out
        )
        assert contents(run) == before and len(left(Path("runs/other"))) == 2
        assert "left_out" in type_("prune", "runs", "--json").data[0]


def test_pruning_is_no_session_and_leaves_the_word_on_who_worked_on_the_run_last(finished: Path, type_: Type) -> None:
    small = Path("work_dirs/small")
    shutil.copytree(finished / small, small) if not small.exists() else None
    holder = (own(small) / "holder.json").read_bytes() if (own(small) / "holder.json").exists() else None
    before = type_("ls", "work_dirs", "--json").data[0]
    goes = type_("prune", small, "--keep-last", 1, "--json").data[0]
    after = type_("ls", "work_dirs", "--json").data[0]
    changed = {key for key in before if before[key] != after[key]}
    assert changed <= {"size_bytes"}, goes
    if holder is not None:
        assert (own(small) / "holder.json").read_bytes() == holder
    assert type_("audit", small).code == 0


def test_a_removal_that_was_cut_off_is_ended_by_the_next_prune_and_can_be_undone_before(run: Path, type_: Type) -> None:
    (run / "iter_10.pth").rename(run / f"iter_10.pth{GOING_SUFFIX}")
    (run / f"mine.pth{GOING_SUFFIX}").write_bytes(b"of a user")
    told = type_("prune", run, "--keep-last", 5, "--explain").out
    assert f"iter_10.pth{GOING_SUFFIX}" in told and "rename it to iter_10.pth" in told
    assert "ended a removal that was cut off: iter_10.pth.going" in type_("prune", run, "--keep-last", 5).out
    assert not (run / f"iter_10.pth{GOING_SUFFIX}").exists() and not (manifests(run) / "iter_10.pth.json").exists()
    assert (run / f"mine.pth{GOING_SUFFIX}").exists(), "a name that this run would not write"
    assert len(left(run)) == 4


def test_what_a_cut_off_removal_left_stays_while_there_are_no_two_states(type_: Type) -> None:
    lay_out(Row(title="", files=saves(10, 20)), Path("young"))
    Path("young/iter_10.pth").rename(Path("young/iter_10.pth.going"))
    answer = type_("prune", "young")
    assert Path("young/iter_10.pth.going").exists() and "take .going away" in answer.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["prune", "nowhere"], "there is no such file or folder"),
        (["prune", "."], "this is not a run"),
        (["prune", "runs/baseline", "--keep-last", "0"], "--keep-last: this keeps nothing"),
        (["prune", "runs/baseline", "--keep-every", "-3"], "--keep-every: this keeps nothing"),
        (["prune", "runs/baseline", "--keep-last", "two"], "expected a whole number"),
        (["prune"], "Missing argument"),
    ],
)
def test_mistakes_are_answered_and_nothing_goes(words: list[str], expected: str, type_: Type) -> None:
    if "runs/baseline" in words:
        lay_out(FIVE, Path("runs/baseline"))
    before = contents(Path())
    answer = type_(*words)
    assert answer.code == 2 and expected in answer.err and reads_well(answer)
    assert contents(Path()) == before


def test_hostile_names_in_the_folder_are_kept_and_shown_harmlessly(run: Path, type_: Type) -> None:
    names = ("\x1b[2Jiter_5.pth", "iter_5\n.pth", "<script>.pth", "iter_٥.pth", "iter_1e3.pth", "-rf.pth")
    for name in names:
        shutil.copy(run / "iter_10.pth", run / name)
    answer = type_("prune", run, "--explain")
    assert answer.code == 0 and "\x1b" not in answer.out
    assert type_("prune", run).code == 0
    assert left(run) == {"iter_40.pth", "iter_50.pth", *names}


@needs_files
def test_a_folder_of_the_real_mmengine_is_verified_by_content_and_still_left_by_it_afterwards(type_: Type) -> None:
    run = Path("work_dirs/real")
    shutil.copytree(MMENGINE, run)
    for path in run.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    run.chmod(0o755)
    (told,) = type_("prune", run, "--explain", "--json").data
    assert {item["file"] for item in told["files"]} == {"iter_10.pth", "iter_20.pth", "best_mIoU_iter_10.pth"}
    assert told["verified_states"] == 2 and all(item["keep"] for item in told["files"])
    shutil.copy(run / "iter_20.pth", run / "iter_30.pth")  # a copy: its step is 20
    assert type_("prune", run, "--keep-last", 1, "--json").data[0]["verified_states"] == 2
    assert type_("ls", "work_dirs", "--json").data[0]["status"] == "left by MMEngine"


# -- pin ---------------------------------------------------------------------------------------------------------------


def test_pinned_files_stay_are_listed_and_marked_and_can_be_let_go_again(run: Path, type_: Type) -> None:
    assert type_("pin", run).out == f"nothing is pinned in {run}\n"
    type_("pin", run, 10, "iter_20.pth", "--note", "学习率下降之前")
    assert [line.split()[0] for line in type_("pin", run).out.splitlines()] == ["pinned", "iter_10.pth", "iter_20.pth"]
    assert "pinned: 学习率下降之前" in type_("show", run).out
    assert type_("show", run, "--json").data["pinned"] == {
        "iter_10.pth": "学习率下降之前",
        "iter_20.pth": "学习率下降之前",
    }
    type_("prune", run)
    assert left(run) == {"iter_10.pth", "iter_20.pth", "iter_40.pth", "iter_50.pth"}
    type_("pin", run, run / "iter_20.pth", "--remove")
    type_("prune", run)
    assert left(run) == {"iter_10.pth", "iter_40.pth", "iter_50.pth"}
    kinds = [event["event"] for event in read_events(own(run) / "journal.jsonl") if "pinned" in event["event"]]
    assert kinds == ["pinned", "pinned", "unpinned"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["11"], "iter_10.pth"),
        (["iter_5.pth"], "iter_50.pth"),
        (["../other/iter_10.pth"], "only checkpoints of the run itself can be pinned"),
        (["/etc/passwd"], "only checkpoints of the run itself can be pinned"),
        (["latest.pth"], "Pin iter_50.pth instead"),
        (["9" * 5000], "there is no such file"),
        (["iter_10.pth", "--note", "x" * 100_000], "the note is too long"),
        (["iter_10.pth", "--remove"], "this is not pinned"),
        (["--remove"], "no file was named"),
    ],
)
def test_what_cannot_be_pinned_is_answered_with_what_is_near(
    run: Path, type_: Type, words: list[str], expected: str
) -> None:
    (run / "latest.pth").symlink_to("iter_50.pth")
    answer = type_("pin", run, *words)
    assert answer.code == 2 and expected in answer.err and reads_well(answer)
    assert read_pins(run) == {}


def test_a_file_that_the_next_save_replaces_is_not_pinned(type_: Type) -> None:
    lay_out(Row(title="", files=(*epochs(1, 2), saves(7)[0]), layout=EPOCHS), Path("sonar"))
    shutil.copy("sonar/ckpt/checkpoint_epoch_1.pth", "sonar/ckpt/latest_model.pth")
    answer = type_("pin", "sonar", "latest_model.pth")
    assert answer.code == 2 and "checkpoint_epoch_N.pth" in answer.err
    assert type_("pin", "sonar", "2").code == 0 and set(read_pins(Path("sonar"))) == {"checkpoint_epoch_2.pth"}


def test_pins_that_cannot_be_read_stop_every_removal_and_are_named(run: Path, type_: Type) -> None:
    for garbled in ("", "[1, 2]", '{"iter_10.pth"', "[" * 100_000):
        (own(run) / "pins.json").write_text(garbled)
        before = contents(run)
        answer = type_("prune", run)
        assert answer.code == 12 and "pins.json" in answer.err and reads_well(answer)
        assert contents(run) == before
        assert "pins.json" in type_("show", run).out
    (own(run) / "pins.json").write_text('{"iter_10.pth": 7, "\\u001b[2J": null}')
    assert type_("prune", run).code == 0 and "iter_10.pth" in left(run)
    assert "\x1b" not in type_("pin", run).out


def test_two_processes_that_pin_at_once_lose_no_pin(run: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda step: process("pin", run.absolute(), step), (10, 20, 30, 40, 50)))
    assert [answer.code for answer in answers] == [0] * 5, answers
    assert set(read_pins(run)) == {f"iter_{step}.pth" for step in (10, 20, 30, 40, 50)}


# -- the training that runs --------------------------------------------------------------------------------------------


def store_of(run: Path, events: list[dict[str, object]]) -> CheckpointStore:
    return CheckpointStore(
        DISK,
        run,
        manifests=manifests(run),
        record=lambda event, **facts: events.append({"event": event, **facts}),
        pointer="",
        keep_last=2,
        pinned=lambda: read_pins(run),
        writes=lambda name: name.startswith("iter_"),
    )


def save(store: CheckpointStore, step: int) -> None:
    facts = SaveFacts(
        file=f"iter_{step}.pth", kind="checkpoint", run=RECORD.id, save=str(step), session="s", step=step, epoch=0,
        time=Then().now().isoformat(),
    )  # fmt: skip
    store.save(facts, lambda file: write_tree(file, {"step": step, "save": facts.save}))


def test_a_training_respects_a_pin_from_the_next_save_on_and_ends_removals_that_were_cut_off(
    run: Path, type_: Type
) -> None:
    events: list[dict[str, object]] = []
    store = store_of(run, events)
    type_("pin", run, 20)
    (run / "iter_10.pth").rename(run / "iter_10.pth.going")
    save(store, 60)
    assert left(run) == {"iter_20.pth", "iter_50.pth", "iter_60.pth"} and not list(run.glob("*.going"))
    type_("pin", run, 20, "--remove")
    save(store, 70)
    assert left(run) == {"iter_60.pth", "iter_70.pth"}
    (own(run) / "pins.json").write_text("garbled")
    save(store, 80)
    save(store, 90)
    assert left(run) == {"iter_60.pth", "iter_70.pth", "iter_80.pth", "iter_90.pth"}
    assert [event["event"] for event in events].count("nothing removed") == 1
    assert json.dumps(events)
