"""A run in short: real, killed, running, foreign and garbled ones."""

from __future__ import annotations

import json
import math
import random
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tests.mapsage.mmengine_files import FOLDER, needs_files
from tests.processes import DEVNULL, PATIENCE_S, STDOUT, Popen, environment, python
from tests.twin.killing import lines_in
from tests.unbroken.report.runs import KILLED, LOOP, session
from tests.unbroken.run.runs_in_short import Writer, append, finished
from unbroken.journal import Event
from unbroken.run.history import how_it_ended
from unbroken.run.record import read_record
from unbroken.run.summary import Score, find_runs, summary_of
from unbroken.run.view import RunView

SEED = 20_261_122


def wait_for_lines(run: Path, count: int) -> None:
    """Wait until a live process has recorded so many steps and evaluations."""
    give_up_s = time.monotonic() + PATIENCE_S
    while lines_in(run / "unbroken/metrics.jsonl") < count:
        assert time.monotonic() < give_up_s
        time.sleep(0.02)


@pytest.fixture(scope="session")
def killed_twice(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run, killed in its second epoch and finished by its second session."""
    folder = tmp_path_factory.mktemp("killed")
    session(folder, ends=KILLED, kill_at=9, evaluate=4)
    return session(folder, evaluate=4)


def test_a_real_run_that_was_killed_and_went_on(killed_twice: Path) -> None:
    seen = summary_of(killed_twice)
    assert (seen.label, seen.tag, seen.recipe, seen.status) == ("tiny", "tiny", "open_run", "finished")
    assert (seen.step, seen.total, seen.sessions) == (18, 18, 2)
    assert seen.best == Score(metric="score", value=0.16, step=16)
    assert (seen.last_step, seen.last) == (16, {"score": 0.16})
    record = read_record(killed_twice)
    assert record is not None and seen.id == record.id and seen.parent is None
    assert seen.began < seen.last_seen and seen.trained_s is not None and seen.trained_s > 0
    every = [path for path in killed_twice.rglob("*") if path.is_file() and not path.is_symlink()]
    assert seen.size_bytes == sum(path.stat().st_size for path in every)
    assert RunView(killed_twice).config == {"batch_size": 4}


def test_a_killed_session_is_told_from_a_running_and_a_stopped_one(tmp_path: Path) -> None:
    command = python(LOOP, tmp_path, json.dumps({"steps": 10_000, "epochs": None, "pause_s": 0.01, "evaluate": 4}))
    with Popen(command, env=environment(), stdout=DEVNULL, stderr=STDOUT) as process:
        run = tmp_path / "tiny"
        wait_for_lines(run, 20)
        seen = summary_of(run)
        assert (seen.status, seen.total) == ("running", 10_000) and seen.step >= 15
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE_S)
    after = summary_of(run)
    assert after.status == "killed" and after.step % 4 == 0
    assert after.best is not None and after.best.step <= after.step + 4
    stopped = json.dumps({"steps": 10_000, "epochs": None, "pause_s": 0.01})
    with Popen(python(LOOP, tmp_path, stopped), env=environment(), stdout=DEVNULL, stderr=STDOUT) as process:
        wait_for_lines(run, lines_in(run / "unbroken/metrics.jsonl") + 20)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 75
    assert summary_of(run).status == "stopped" and summary_of(run).sessions == 2


def test_a_session_that_ctrl_c_ended_at_once_did_not_fail() -> None:
    assert how_it_ended([Event.of({"event": "failed", "step": 3, "error": "KeyboardInterrupt: "})]) == "interrupted"
    assert (
        how_it_ended([Event.of({"event": "failed", "step": 3, "error": "ValueError: no"})]) == "failed: ValueError: no"
    )


def test_no_checkpoint_of_the_right_size_is_lost(tmp_path: Path) -> None:
    writer = finished(tmp_path / "run")
    (tmp_path / "run" / "iter_100.pth").write_bytes(b"half")
    assert summary_of(writer.folder).status == "lost"
    (tmp_path / "run" / "iter_100.pth").unlink()
    assert summary_of(writer.folder).status == "lost"
    assert summary_of(writer.folder).best == Score(metric="mIoU", value=40.0, step=100)


def test_a_file_whose_manifest_a_kill_prevented_still_counts(killed_twice: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(killed_twice, tmp_path / "tiny"))
    (run / "unbroken/manifests/iter_18.pth.json").unlink()
    assert summary_of(run).step == 18
    shutil.copyfile(run / "iter_4.pth", run / "best_model_backup.pth")
    assert summary_of(run).step == 18


def test_what_a_session_did_not_go_on_from_is_no_best(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run")
    writer.session()
    for step, score in ((10, 30.0), (20, 50.0)):
        writer.save(step)
        writer.evaluate(step, mIoU=score)
    writer.session(plan={"verdict": "Resume", "step": 10})
    seen = summary_of(writer.folder)
    assert seen.best == Score(metric="mIoU", value=30.0, step=10) and seen.last_step == 10
    writer.session(plan={"verdict": "Resume", "step": 10}, best={"metric": "mIoU", "value": 33.0, "step": 7})
    assert summary_of(writer.folder).best == Score(metric="mIoU", value=33.0, step=7)
    writer.end()


def test_time_is_that_of_the_sessions_not_between_them(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run")
    writer.session()
    writer.save(10)
    writer.clock.pause_s(86_400)
    writer.session(plan={"verdict": "Resume", "step": 10})
    writer.save(20)
    writer.end("stopped", step=20)
    assert summary_of(writer.folder).trained_s == 1200.0


def test_a_copied_or_renamed_folder_is_called_by_its_name(tmp_path: Path) -> None:
    finished(tmp_path / "baseline")
    copy = Path(shutil.copytree(tmp_path / "baseline", tmp_path / "baseline_backup_20260205"))
    first, second = summary_of(tmp_path / "baseline"), summary_of(copy)
    assert first.id == second.id and second.tag == "baseline"
    assert (first.label, second.label) == ("baseline", "baseline_backup_20260205")


def test_an_older_journal_without_the_name_of_the_metric_has_a_best_all_the_same(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run")
    journal = writer.session()
    writer.save(10)
    journal.write("evaluated", step=10, metrics={"mAP": 0.5}, best=True)
    writer.end()
    assert summary_of(writer.folder).best == Score(metric="mAP", value=0.5, step=10)


def test_numbers_that_are_none_stay_what_they_are(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "run")
    writer.session()
    writer.save(10)
    writer.evaluate(10, mIoU=math.nan, other=math.inf)
    writer.end()
    seen = summary_of(writer.folder)
    assert seen.best is not None and math.isnan(seen.best.value) and seen.last["other"] == math.inf


GARBLED = (
    "", "{", "[]", "null", '{"event": 3}', '{"event": "session"}', '{"event": "session", "plan": []}',
    '{"event": "saved", "step": "x", "kind": "checkpoint"}',
    '{"event": "evaluated", "step": 1e400, "metrics": {"a": 1}}',
    '{"event": "evaluated", "step": 3, "metrics": [1], "best": true, "metric": "a"}',
    '{"event": "evaluated", "step": 5, "metrics": {"a": ' + "9" * 400 + '}, "best": true}',
    '{"event": "finished", "step": -1}', '{"event": "timing", "total": true}', '{"time": 5, "event": "stopped"}',
    '{"time": "yesterday", "session": "s", "event": "session"}', '{"event": {}}', "[" * 5000,
    '{"event": "session", "best": {"metric": 3, "value": "nan", "step": 2}}',
)  # fmt: skip


def test_garbled_records_are_passed_over(tmp_path: Path) -> None:
    writer = finished(tmp_path / "run")
    for line in GARBLED:
        append(writer.folder, line)
        seen = summary_of(writer.folder)
        assert seen.step == 100 and seen.id == writer.id, line
    for content in ("", "{", "[1]", '{"id": 7, "tag": ["x"], "layout": {"checkpoint_folder": "../.."}, "parent": 3}'):
        (writer.folder / "unbroken/run.json").write_text(content)
        seen = summary_of(writer.folder)
        assert seen.tag == "run" and seen.parent is None and seen.step == 100, content


def test_a_journal_with_random_bytes_changed_never_stops_the_summary(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    writer = finished(tmp_path / "run")
    files = [writer.folder / "unbroken" / name for name in ("journal.jsonl", "run.json", "manifests/iter_100.pth.json")]
    whole = {file: file.read_bytes() for file in files}
    for _ in range(150):
        for file, data in whole.items():
            garbled = bytearray(data)
            for _ in range(chance.choice([0, 1, 1, 5])):
                garbled[chance.randrange(len(garbled))] = chance.randrange(256)
            file.write_bytes(garbled)
        summary_of(writer.folder)
        assert isinstance(RunView(writer.folder).config, Mapping)


def test_records_that_are_folders_or_cannot_be_read_are_as_if_they_were_not_there(tmp_path: Path) -> None:
    writer = finished(tmp_path / "run")
    for name in ("journal.jsonl", "run.json", "metrics.jsonl"):
        (writer.folder / "unbroken" / name).unlink()
        (writer.folder / "unbroken" / name).mkdir()
    assert summary_of(writer.folder).tag == "run" and RunView(writer.folder).config == {"optimizer": {"lr": 0.01}}
    assert summary_of(tmp_path / "none").step == 0


def test_a_hostile_session_name_leads_nowhere(tmp_path: Path) -> None:
    writer = finished(tmp_path / "run")
    (tmp_path / "secret.json").write_text('{"stolen": 1}')
    append(writer.folder, {"event": "session", "session": "../../../secret"})
    assert RunView(writer.folder).config == {"optimizer": {"lr": 0.01}}


def test_runs_are_found_sorted_and_not_inside_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b/two", "b/one", "a", "b/one/archive/old", "archive/older", "c.partial/x"):
        finished(tmp_path / name)
    (tmp_path / "ours/ckpt").mkdir(parents=True)
    (tmp_path / "ours/ckpt/checkpoint_epoch_3.pth").write_bytes(b"x")
    (tmp_path / "not/ckpt").mkdir(parents=True)
    (tmp_path / "not/iter_best.pth").write_bytes(b"x")
    (tmp_path / "linked").symlink_to(tmp_path / "a")
    assert [str(run.relative_to(tmp_path)) for run in find_runs(tmp_path)] == ["a", "b/one", "b/two", "ours"]
    assert list(find_runs(tmp_path / "a")) == [tmp_path / "a"] and list(find_runs(tmp_path / "nowhere")) == []
    monkeypatch.chdir(tmp_path)
    assert list(find_runs(Path())) == [Path("a"), Path("b/one"), Path("b/two"), Path("ours")]


# -- of other programs -------------------------------------------------------------------------------------------------


@needs_files
def test_a_folder_that_mmengine_left_says_what_can_be_known(tmp_path: Path) -> None:
    run = Path(shutil.copytree(FOLDER, tmp_path / "segformer"))
    seen = summary_of(run)
    assert (seen.label, seen.status, seen.step, seen.total) == ("segformer", "left by MMEngine", 20, None)
    assert seen.best == Score(metric="mIoU", value=pytest.approx(6.79), step=10)
    assert seen.last_step == 20 and seen.last["mIoU"] == pytest.approx(6.71) and "time" not in seen.last
    assert RunView(run).config["model"]["backbone"]["embed_dims"] == 4
    (run / "best_mIoU_iter_10.pth").unlink()
    assert summary_of(run).best == Score(metric="mIoU", value=pytest.approx(6.79), step=10)
    for path in run.rglob("*.json*"):
        path.write_bytes(b"\xff{")
    assert summary_of(run).best == Score(metric="best_score", value=pytest.approx(6.79), step=20)


def test_a_folder_that_openpcdet_left_says_what_can_be_known(tmp_path: Path) -> None:
    run = tmp_path / "output" / "baseline"
    (run / "ckpt").mkdir(parents=True)
    for epoch in (9, 10):
        state = {"epoch": epoch, "it": epoch * 7, "model_state": {"w": torch.zeros(2)}, "version": "pcdet+0.6.0"}
        state["optimizer_state"] = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1).state_dict()
        torch.save(state, run / "ckpt" / f"checkpoint_epoch_{epoch}.pth", _use_new_zipfile_serialization=False)
    (run / "focal_sst.yaml").write_text("OPTIMIZATION:\n  LR: 0.003\n")
    seen = summary_of(run)
    assert (seen.label, seen.status, seen.step, seen.best) == ("baseline", "left by OpenPCDet", 70, None)
    assert seen.last_seen and RunView(run).config == {"OPTIMIZATION": {"LR": 0.003}}
    (run / "ckpt" / "checkpoint_epoch_10.pth").write_bytes(b"half of it")
    assert summary_of(run).step == 63


def test_a_long_reason_is_shortened_between_words_and_that_is_seen() -> None:
    error = "UnreadableSample: data/Train/images_png/tile_0030.png: the file is truncated. Found 300 bytes."
    said = how_it_ended([Event.of({"event": "failed", "error": error})])
    assert said == "failed: UnreadableSample: data/Train/images_png/tile_0030.png: the file is ..."
    assert how_it_ended([Event.of({"event": "failed", "error": "RuntimeError: no"})]) == "failed: RuntimeError: no"
