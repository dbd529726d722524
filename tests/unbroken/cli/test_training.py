"""`train` as it is typed: every option, every exit code, and what is printed where."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import stat
import sys
from itertools import count
from pathlib import Path

import pytest
from torch.optim.optimizer import register_optimizer_step_post_hook

from tests.processes import PIPE, STDOUT, Popen, environment
from tests.twin.killing import events, step_records
from tests.unbroken.cli.typing_commands import Type, contents, process, reads_well
from unbroken.run import read_record
from unbroken.train import read_checkpoint

RUN = Path("work_dirs/small")
TRAIN = ["train", "mapsage", "small.py"]
CHANGED = "model.decode_head.channels=16"


def steps_of(run: Path) -> list[int]:
    return sorted(step_records(run))


# -- to the end --------------------------------------------------------------------------------------------------------


def test_it_resumes_to_the_end_in_plain_lines_and_then_says_that_it_is_finished(here: Path, type_: Type) -> None:
    answer = type_(*TRAIN)
    assert answer.code == 0 and answer.err == ""
    assert "\x1b" not in answer.out and "\r" not in answer.out
    lines = answer.out.splitlines()
    assert lines[0].startswith(f"plan: RESUME - continue {RUN} at step 5 of 8")
    assert f"load checkpoint from {RUN / 'iter_4.pth'}" in lines
    assert "resumed epoch: 1, iter: 4" in lines
    assert [line.split("]")[0] for line in lines if line.startswith("Iter(train)")] == [
        f"Iter(train) [{step}/8" for step in (5, 6, 7, 8)
    ]
    assert lines[-1] == f"finished: 8 steps, {RUN}"
    before = contents(here)

    again = type_(*TRAIN)

    assert again.code == 0 and again.out.startswith(f"plan: FINISHED - {RUN} is complete, nothing to do")
    changed = {name for name, what in contents(here).items() if before.get(name) != what}
    assert changed <= {f"{RUN}/unbroken/holder.json", f"{RUN}/unbroken/lock"}


def test_a_recipe_by_its_address_is_the_same_recipe(here: Path, type_: Type) -> None:
    answer = type_("train", "mapsage.recipes:mapsage", "small.py", "--workers", "1")
    assert answer.code == 0 and "continue work_dirs/small at step 5 of 8" in answer.out


def test_tag_and_work_dir_name_the_run(here: Path, type_: Type) -> None:
    short = ["--cfg-options", "train_cfg.max_iters=1"]
    assert type_(*TRAIN, "--tag", "second", *short).code == 0
    assert type_(*TRAIN, "--work-dir", "elsewhere/third", *short).code == 0
    assert type_(*TRAIN, "--work-dir", "fourth", "--tag", "named", *short).code == 0
    found = {run["folder"]: (run["tag"], run["step"]) for run in type_("ls", "--json").data}
    assert found == {
        "elsewhere/third": ("third", 1),
        "fourth": ("named", 1),
        "work_dirs/second": ("second", 1),
        "work_dirs/small": ("small", 4),
    }


def test_the_seed_is_of_the_run_and_kept(here: Path, type_: Type) -> None:
    one = ["--tag", "seeded", "--cfg-options", "train_cfg.max_iters=1"]
    two = ["--tag", "seeded", "--cfg-options", "train_cfg.max_iters=2"]
    assert type_(*TRAIN, "--seed", "7", *one).code == 0
    record = read_record(Path("work_dirs/seeded"))
    assert record is not None and record.seed == 7
    answer = type_(*TRAIN, "--seed", "8", *two)
    assert answer.code == 0
    assert "seed 8 is for a first launch; this run keeps its seed 7" in answer.out
    assert "randomness.seed: 7 -> 8 (data)" in answer.out


# -- refusals ----------------------------------------------------------------------------------------------------------


def test_a_config_of_another_shape_is_refused_with_keys_and_ways_out(here: Path, type_: Type) -> None:
    before = contents(here)
    answer = type_(*TRAIN, "--cfg-options", CHANGED)
    assert answer.code == 13 and answer.out == "" and reads_well(answer)
    assert "plan: REFUSE (exit 13, incompatible config)" in answer.err
    assert "changed: model.decode_head.channels: 8 -> 16 (shape)" in answer.err
    ways = [line for line in answer.err.splitlines() if "way out:" in line]
    assert len(ways) == 3
    assert "--tag small_channels_16" in ways[0]
    assert f"--pretrained_model {RUN / 'iter_4.pth'}" in ways[1]
    assert "model.decode_head.channels=8" in ways[2]
    changed = {name for name, what in contents(here).items() if before.get(name) != what}
    assert changed <= {f"{RUN}/unbroken/holder.json", f"{RUN}/unbroken/lock"}
    assert type_(*TRAIN, "--cfg-options", CHANGED, "--tag", "small_channels_16").code == 0, "the first way out works"


def test_a_config_of_another_meaning_is_refused_unless_the_change_is_accepted(here: Path, type_: Type) -> None:
    meaning = ["--cfg-options", "model.backbone.drop_rate=0.3"]
    answer = type_(*TRAIN, *meaning)
    assert answer.code == 13
    assert "model.backbone.drop_rate: 0.1 -> 0.3 (meaning)" in answer.err
    accepted = type_("why", *TRAIN[1:], *meaning, "--accept-change", "model.backbone.drop_rate")
    assert accepted.code == 0 and "plan: RESUME" in accepted.out


def test_a_changed_schedule_goes_on_and_is_said_in_numbers(here: Path, type_: Type) -> None:
    stopped_at_6(type_)
    answer = type_(*TRAIN, "--cfg-options", "optim_wrapper.optimizer.lr=0.004")
    assert answer.code == 0
    assert "  changed: optim_wrapper.optimizer.lr: 0.002 -> 0.004 (schedule)" in answer.out
    (said,) = [line for line in answer.out.splitlines() if line.startswith("  learning rate: ")]
    before, after = float(said.split()[2]), float(said.split()[5])
    assert after == pytest.approx(2 * before, rel=1e-4)
    assert f"[7/8]  lr: {after:.4e}" in answer.out


def stopped_at_6(type_: Type) -> None:
    """Two steps of the four that are left, then a SIGTERM."""
    taken = count(1)

    def stop(*_: object) -> None:
        if next(taken) == 2:
            signal.raise_signal(signal.SIGTERM)

    handle = register_optimizer_step_post_hook(stop)
    try:
        assert type_(*TRAIN).code == 75
    finally:
        handle.remove()


@pytest.mark.parametrize("policy", ["stretch", "rewarm"])
def test_a_finished_training_made_longer_under_another_schedule_says_its_course(
    here: Path, type_: Type, policy: str
) -> None:
    options = ["--cfg-options", "optim_wrapper.optimizer.lr=0.004"]
    answer = type_(*TRAIN, *([] if policy == "rewarm" else ["--on-extend", policy]), *options)
    assert answer.code == 0
    (said,) = [line for line in answer.out.splitlines() if line.startswith("  extended from 4 to 8 steps by")]
    assert f"by {policy}: learning rate" in said and said.endswith("at the end")
    assert f"the schedule is extended by {policy} from step 5 on" in answer.out
    last = float(said.split(" -> ")[-1].split()[0])
    assert f"[8/8]  lr: {last:.4e}"[:-6] in answer.out


def test_changed_data_goes_on_and_says_that_exactness_starts_anew(here: Path, type_: Type) -> None:
    answer = type_(*TRAIN, "--cfg-options", "train_dataloader.batch_size=1")
    assert answer.code == 0
    assert "because the data settings changed: bit-exactness starts anew at this step" in answer.out
    assert "train_dataloader.batch_size: 2 -> 1 (data)" in answer.out


def test_weights_are_no_state_to_resume_from(here: Path, type_: Type) -> None:
    best = next(RUN.glob("best_*.pth"))
    answer = type_(*TRAIN, "--ckpt", best)
    assert answer.code == 10 and reads_well(answer)
    assert "without optimizer state, training cannot continue from it" in answer.err
    tuned = type_(*TRAIN, "--tag", "tuned", "--pretrained_model", best, "--cfg-options", "train_cfg.max_iters=1")
    assert tuned.code == 0 and "124 of 124 tensors loaded" in tuned.out
    assert json.loads(type_("show", "work_dirs/tuned", "--json").out)["parent"]["file"] == str(best)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(here: Path, type_: Type) -> None:
    for file in RUN.glob("iter_*.pth"):
        file.write_bytes(file.read_bytes()[:1000])
    answer = type_(*TRAIN)
    assert answer.code == 12 and reads_well(answer)
    assert "damaged" in answer.err and "--fresh" in answer.err


# -- where to start from -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--ckpt", "--resume"])
def test_a_named_file_is_resumed_from_and_later_ones_are_kept(finished: Path, type_: Type, option: str) -> None:
    later = (RUN / "iter_8.pth").read_bytes()
    answer = type_(*TRAIN, option, RUN / "iter_4.pth")
    assert answer.code == 0
    assert f"load checkpoint from {RUN / 'iter_4.pth'}" in answer.out
    assert "superseded" in answer.out
    assert later in [file.read_bytes() for file in RUN.glob("archive/*/iter_8.pth")]
    one, other = (read_checkpoint(path) for path in (RUN / "iter_8.pth", next(RUN.glob("archive/*/iter_8.pth"))))
    assert one["state_dict"].keys() == other["state_dict"].keys()


def test_resume_as_a_flag_may_stand_before_the_config(here: Path, type_: Type) -> None:
    answer = type_("train", "mapsage", "--resume", "small.py")
    assert answer.code == 0 and "at step 5 of 8" in answer.out


def test_fresh_starts_over_and_archives(finished: Path, type_: Type) -> None:
    before = {name: what for name, what in contents(RUN).items() if name.endswith(".pth") and "link" not in what}
    answer = type_(*TRAIN, "--fresh", "--cfg-options", "train_cfg.max_iters=2")
    assert answer.code == 0
    assert "plan: FRESH" in answer.out and "what is here moves into archive/, nothing is deleted" in answer.out
    (archive,) = (RUN / "archive").iterdir()
    kept = contents(archive)
    assert all(kept[name] == what for name, what in before.items())
    assert steps_of(RUN) == [1, 2] and steps_of(archive) == list(range(1, 9))
    assert "--fresh" not in json.loads(type_("show", RUN, "--json").out)["command"], "going on is not starting over"


@pytest.mark.parametrize("way", ["--search", "UNBROKEN_SEARCH_PATH"])
def test_a_read_only_copy_elsewhere_is_found_and_gone_on_with_here(
    here: Path, type_: Type, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    mounted = here / "input" / "last-night" / "small"
    shutil.copytree(RUN, mounted)
    shutil.rmtree("work_dirs")
    _forbid_writing(mounted)
    before = contents(here / "input")
    if way == "UNBROKEN_SEARCH_PATH":
        monkeypatch.setenv(way, str(here / "input"))

    answer = type_(*TRAIN, *(["--search", "input"] if way == "--search" else []))

    assert answer.code == 0, answer.err
    assert "small holds this run at step 4, verified by whole-file digest" in answer.out
    assert steps_of(RUN) == list(range(1, 9))
    assert contents(here / "input") == before
    original, record = read_record(mounted), read_record(RUN)
    assert original is not None and record is not None and original.id == record.id
    told = type_("audit", RUN)
    assert told.code == 0 and "is not in the journal" not in told.out, told.out


# -- being stopped -----------------------------------------------------------------------------------------------------


def stop_when(text: str, *words: str) -> tuple[int, str]:
    """Start a command, send it SIGTERM when it prints `text`; its exit code and output."""
    child = Popen(
        [sys.executable, "-m", "unbroken", *words], env=environment(),
        stdout=PIPE, stderr=STDOUT, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    lines = []
    for line in child.stdout:
        lines.append(line)
        if text in line:
            child.send_signal(signal.SIGTERM)
            break
    rest, _ = child.communicate(timeout=120)
    return child.returncode, "".join(lines) + rest


def test_sigterm_ends_with_75_and_the_same_command_ends_with_0(here: Path) -> None:
    words = [*TRAIN, "--tag", "stopped", "--cfg-options", "train_cfg.max_iters=200"]
    code, said = stop_when("Iter(train) [  3/200]", *words)
    assert code == 75, said
    (event,) = events(Path("work_dirs/stopped"), "stopped")
    step = event["step"]
    assert f"stopped by SIGTERM after step {step}: everything is saved" in said
    assert "unbroken train mapsage small.py --tag stopped --cfg-options train_cfg.max_iters=200" in said
    assert Path(f"work_dirs/stopped/iter_{step}.pth").is_file()

    answer = process(
        "train", "mapsage", "small.py", "--tag", "stopped", "--cfg-options", f"train_cfg.max_iters={step + 2}"
    )

    assert answer.code == 0, answer.err
    assert f"at step {step + 1} of {step + 2}" in answer.out
    assert steps_of(Path("work_dirs/stopped")) == list(range(1, step + 3))


def test_at_a_terminal_there_is_a_bar_and_the_log_stays_plain(here: Path) -> None:
    child, terminal = pty.fork()
    if child == 0:
        os.execve(
            sys.executable,
            [sys.executable, "-m", "unbroken", *TRAIN],
            {**environment(), "TERM": "xterm", "COLUMNS": "120"},
        )
    shown = b""
    while True:
        try:
            block = os.read(terminal, 65536)
        except OSError:
            break
        if not block:
            break
        shown += block
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, shown.decode()
    text = shown.decode()
    assert "training" in text and "8/8" in text and "\x1b[?25l" in text, "a bar was drawn"
    assert text.rstrip().endswith("\x1b[2K") or "\x1b[?25h" in text, "the cursor is back"
    assert f"finished: 8 steps, {RUN}" in text
    (log,) = [path for path in RUN.glob("*/*.log") if "Iter(train) [8/8]" in path.read_text()]
    assert "\x1b" not in log.read_text() and "training \u2501" not in log.read_text()
    assert all(" - unbroken - INFO - " in line for line in log.read_text().splitlines())


def _forbid_writing(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
