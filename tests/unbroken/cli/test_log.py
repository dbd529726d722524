"""The record of experiments, kept by real sessions of both applications and of anyone's loop, and by `unbroken log`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.mapsage.mmengine_files import FOLDER as MMENGINE
from tests.mapsage.mmengine_files import needs_files
from tests.processes import PIPE, Popen, environment, python
from tests.twin import sonar
from tests.twin.killing import kill_after_steps, run_to_end
from tests.unbroken.cli.typing_commands import Type, contents, process
from tests.unbroken.logbook.test_book import GUIDE
from unbroken.logbook.file import book_for
from unbroken.logbook.table import Book

LOOP = """
import sys, time
import torch
from unbroken.train import open_run

group, _, tag = sys.argv[1].rpartition("/")
lr, steps, stop = float(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
with open_run(f"runs/{group}", tag=tag, config={"lr": lr, "batch_size": 4, "steps": steps}, save_every=2) as run:
    model = torch.nn.Linear(2, 1)
    run.track(model=model, optimizer=torch.optim.SGD(model.parameters(), lr=lr))
    for _ in run.steps(steps):
        run.end_step(loss=model(torch.ones(2)).mean())
        if run.step % 2 == 0:
            run.record_evaluation(best="score", score=run.step / 10)
        if run.step == stop:
            run.stop("a test")
        if stop < 0:
            time.sleep(0.1)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "loop.py").write_text(LOOP)
    return tmp_path


def loop(project: Path, tag: str, *, lr: float = 0.1, steps: int = 4, stop: int = 0, code: int = 0) -> str:
    done = run_to_end(python("loop.py", tag, lr, steps, stop), cwd=project)
    assert done.returncode == code, done.output
    return done.output


def book(project: Path) -> Path:
    return project / "experiments_log.txt"


def rows(project: Path) -> dict[str, list[str]]:
    return {row[1]: row for row in Book(book(project).read_text("utf-8")).rows}


# -- what sessions do --------------------------------------------------------------------------------------------------


def test_every_session_of_a_loop_keeps_its_row(project: Path) -> None:
    loop(project, "baseline")
    assert rows(project)["baseline"][2:] == ["batch_size=4, LR=0.1, steps=4, baseline", "score: 0.4 (step 4)"]
    loop(project, "slow", lr=0.05, stop=2, code=75)
    assert rows(project)["slow"][2:] == ["LR=0.05", "score: 0.2 (step 2), stopped at 2/4 steps"]
    book(project).write_text(book(project).read_text("utf-8").replace("2/4 steps", "2/4 steps, 待复现"), "utf-8")
    loop(project, "slow", lr=0.05)
    assert rows(project)["slow"][3] == "score: 0.4 (step 4), 待复现"
    assert not list(project.rglob("*.partial")) and not list(project.rglob("*.lock"))


def test_a_killed_session_runs_in_the_file_until_the_next_look(project: Path) -> None:
    command = python(project / "loop.py", "baseline", 0.1, 40, -1)
    here = Path.cwd()
    os.chdir(project)
    try:
        kill_after_steps(project / "runs" / "baseline", command, steps=5)
        assert rows(project)["baseline"][3].startswith("running since 20")
        answer = process("log", ".")
    finally:
        os.chdir(here)
    assert answer.code == 0 and "1 updated" in answer.out
    assert "killed at" in rows(project)["baseline"][3] and "running" not in rows(project)["baseline"][3]


def test_both_front_doors_fill_in_the_file_that_the_guide_lets_the_user_write(tmp_path: Path) -> None:
    sonar.write_job(tmp_path, frames=4, epochs=1, pasting=False)
    book(tmp_path).write_text(GUIDE, "utf-8")
    train = ["train.py", "--cfg_file", "cfgs/sonar_models/tiny.yaml", "--workers", 0]
    first = run_to_end(python(*train, "--extra_tag", "baseline_bs2"), cwd=tmp_path)
    assert first.returncode == 0, first.output
    slower = ["--set", "OPTIMIZATION.GRAD_ACCUMULATION_STEPS", 4, "OPTIMIZATION.LR", 0.0005]
    for tag in ("grad_accum_x4", "mine"):
        assert run_to_end(python(*train, "--extra_tag", tag, *slower), cwd=tmp_path).returncode == 0
    found = rows(tmp_path)
    assert found["baseline_bs2"][:3] == ["2026-02-05", "baseline_bs2", "batch_size=2, workers=4, 基线"]
    assert found["baseline_bs2"][3].startswith("mAP: ") and "第 1 轮" in found["baseline_bs2"][3]
    assert found["grad_accum_x4"][2] == "梯度累积x4, LR=0.0005" == found["mine"][2]
    assert found["voxel_0.15"][3] == "mAP: 0.xx"
    assert [*found][:4] == ["baseline_bs2", "grad_accum_x4", "small_model_d96", "voxel_0.15"]
    assert process("log", tmp_path, "--json").data["others"] == 2


def test_the_aerial_application_keeps_a_row_too(finished: Path, type_: Type, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = type_("log", finished, "--lang", "zh")
    assert answer.code == 0, answer.err
    assert rows(finished)["small"][2].startswith("batch_size=2, 梯度累积x2, LR=0.002, iters=8")
    assert rows(finished)["small"][3].startswith("mIoU: ")
    monkeypatch.chdir(finished)  # the guide's project root
    assert type_("log").out.endswith("\nexperiments_log.txt: 0 added, 0 updated, 1 unchanged\n")


def test_what_cannot_be_written_warns_and_the_training_goes_on(project: Path) -> None:
    book(project).write_bytes(GUIDE.encode("gbk"))
    said = loop(project, "baseline")
    assert "warning: this run is not noted" in said and "iconv" in said and "finished: 4 steps" in said
    assert book(project).read_bytes() == GUIDE.encode("gbk")
    answer = process("log", project)
    assert answer.code == 2 and "iconv" in answer.err and book(project).read_bytes() == GUIDE.encode("gbk")
    book(project).unlink()
    book(project).mkdir()
    assert "warning: this run is not noted" in loop(project, "other")


def test_a_file_marked_read_only_is_left_alone(project: Path) -> None:
    book(project).write_text(GUIDE, "utf-8")
    book(project).chmod(0o444)
    assert "marked as read-only" in loop(project, "baseline")
    assert book(project).read_text("utf-8") == GUIDE


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_that_powershell_wrote_stays_one(project: Path, encoding: str) -> None:
    book(project).write_bytes(GUIDE.replace("\n", "\r\n").encode(encoding))
    loop(project, "grad_accum_x4")
    data = book(project).read_bytes()
    assert data.startswith("\ufeff".encode("utf-16-le" if encoding == "utf-16" else "utf-8"))
    text = data.decode(encoding)
    assert "梯度累积x4, LR=0.0005            | score: 0.4 (第 4 步)\r\n" in text and "\r\r" not in text


def test_ten_writers_at_once_lose_no_row(project: Path) -> None:
    for number in range(10):
        loop(project, f"run{number}", stop=2, code=75)
    book(project).unlink()
    program = "\n".join(
        [
            "import sys; from pathlib import Path",
            "from unbroken.logbook.entry import note_run",
            "from unbroken.storage import Disk; from unbroken.clock import SystemClock",
            "note_run(Disk(), SystemClock(), Path('runs') / sys.argv[1], print)",
        ]
    )
    writers = [
        Popen([sys.executable, "-c", program, f"run{n}"], cwd=project, env=environment(), stdout=PIPE)
        for n in range(10)
    ]
    said = [writer.communicate(timeout=120)[0] for writer in writers]
    assert said == [b""] * 10
    assert sorted(rows(project)) == [f"run{number}" for number in range(10)]
    assert sorted(path.name for path in project.iterdir()) == ["experiments_log.txt", "loop.py", "runs"]


# -- which file, which row ---------------------------------------------------------------------------------------------


def test_the_nearest_file_above_the_run_is_the_one(tmp_path: Path) -> None:
    run = tmp_path / "output" / "group" / "baseline"
    run.mkdir(parents=True)
    assert book_for(run, tmp_path) == tmp_path / "experiments_log.txt"
    assert book_for(run, tmp_path / "elsewhere") == run.parent / "experiments_log.txt"
    (run.parents[1] / "experiments_log.txt").touch()
    assert book_for(run, tmp_path) == run.parents[1] / "experiments_log.txt"
    assert book_for(run, tmp_path / "elsewhere") == run.parents[1] / "experiments_log.txt"


def test_two_runs_of_one_name_have_rows_of_their_own(project: Path) -> None:
    loop(project, "a/baseline")
    loop(project, "b/baseline", lr=0.2)
    assert set(rows(project)) == {"baseline", "b/baseline"}
    before = book(project).read_bytes()
    assert process("log", project).code == 0
    assert book(project).read_bytes() == before
    book(project).unlink()
    for run in (project / "runs").glob("*/baseline"):
        (run / "unbroken" / "logged.jsonl").unlink()
    assert process("log", project).code == 0
    assert set(rows(project)) == {"a/baseline", "b/baseline"}


def test_a_backup_has_no_row_beside_that_of_its_run_and_stands_for_one_that_is_gone(project: Path) -> None:
    loop(project, "baseline")
    assert process("backup", project / "runs" / "baseline", project / "spare").code == 0
    before = book(project).read_bytes()
    assert process("log", project).code == 0
    assert book(project).read_bytes() == before
    book(project).unlink()
    shutil.rmtree(project / "runs")
    assert process("log", project).code == 0
    assert set(rows(project)) == {"baseline"}


def test_a_fresh_start_has_a_row_of_its_own_and_the_old_one_stays(project: Path) -> None:
    loop(project, "baseline", steps=6)
    script = (project / "loop.py").read_text().replace("save_every=2)", "save_every=2, fresh=True)")
    (project / "fresh.py").write_text(script)
    assert run_to_end(python("fresh.py", "baseline", 0.1, 4, 0), cwd=project).returncode == 0
    results = [row[3] for row in Book(book(project).read_text("utf-8")).rows]
    assert results == ["score: 0.6 (step 6)", "score: 0.4 (step 4)"]


@needs_files
def test_runs_of_the_original_programs_are_listed_and_not_changed(tmp_path: Path, type_: Type) -> None:
    shutil.copytree(MMENGINE, tmp_path / "work_dirs" / "theirs")
    sonar_run = tmp_path / "output" / "models" / "focal" / "old"
    (sonar_run / "ckpt").mkdir(parents=True)
    shutil.copy(next(MMENGINE.glob("iter_*.pth")), sonar_run / "ckpt" / "checkpoint_epoch_3.pth")
    before = contents(tmp_path)
    answer = type_("log", tmp_path)
    assert answer.code == 0 and {"theirs", "old"} <= set(rows(tmp_path)), answer.out + answer.err
    after = contents(tmp_path)
    assert {name for name in after if before.get(name) != after[name]} == {"experiments_log.txt"}
    assert type_("log", tmp_path).out.endswith("0 added, 0 updated, 2 unchanged\n")


def test_hostile_names_and_records_do_no_harm(project: Path, type_: Type) -> None:
    loop(project, "baseline")
    runs = project / "runs"
    for number, tag in enumerate(["<b>|x", "\x1b[31mred", "../../../etc/passwd", "y" * 100_000]):
        copy = shutil.copytree(runs / "baseline", runs / f"copy{number}")
        (copy / "unbroken" / "logged.jsonl").write_text('{"label": ["x"], "place": 3, "result": {"a": 1}}\n')
        record = json.loads((copy / "unbroken" / "run.json").read_text())
        record |= {"id": f"{number:016x}", "tag": tag, "recipe": [tag], "created": 7}
        (copy / "unbroken" / "run.json").write_text(json.dumps(record))
        for config in (copy / "unbroken" / "configs").iterdir():
            config.write_text(json.dumps({tag: tag, "lr": float("nan"), "a": [[["|\n"]]]}))
    garbled = runs / "garbled"
    shutil.copytree(runs / "baseline", garbled)
    for file in (garbled / "unbroken").rglob("*.json*"):
        file.write_bytes(b'\xff\xfe{"a":' + os.urandom(200))
    answer = type_("log", project)
    assert answer.code == 0, answer.err
    assert "\x1b" not in answer.out and "\x1b" not in book(project).read_text("utf-8")
    assert len(book(project).read_text("utf-8").splitlines()) == 2 + len(rows(project))
    assert {"copy0", "copy1", "copy2", "copy3"} <= set(rows(project))
    assert not (project.parent / "etc").exists()


def test_mistakes_are_answered(type_: Type, tmp_path: Path) -> None:
    assert type_("log", tmp_path / "nowhere").code == 2
    assert "zh or en" in type_("log", tmp_path, "--lang", "fr").err
    assert type_("log", tmp_path).out.endswith("0 added, 0 updated, 0 unchanged\n")
    assert not list(tmp_path.iterdir()), "no file for no runs"
