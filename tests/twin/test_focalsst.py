"""The sonar detector killed anywhere - also inside its saves - ends bit-identical to a training nobody touched."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.processes import PATIENCE_S, PIPE, STDOUT, Popen, environment, python
from tests.twin.killing import (
    Session,
    assert_twins,
    evaluations,
    events,
    kill_inside_a_save,
    kill_until_done,
    lines_in,
    run_to_end,
    step_records,
)
from tests.twin.sonar import EPOCHS, FRAMES, STEPS_PER_EPOCH, write_job
from unbroken.run import EPOCHS as LAYOUT
from unbroken.run.survey import survey
from unbroken.train import read_checkpoint

LAST = f"ckpt/checkpoint_epoch_{EPOCHS}.pth"
SAVING = ["--ckpt_save_interval", 1, "--max_ckpt_save_num", 3, "--ckpt_save_time_interval", 1]
# They are half of what a session costs; test_tensorboard.py kills trainings that draw.
WITHOUT_PICTURES = ["--pictures", 0]


def train(config: Path, run: Path, *options: object) -> list[str]:
    """The command of a session whose run is `run`, a folder two below that of the config's runs."""
    output, tag = run.parents[2], run.name
    assert run == output / config.parent.name / config.stem / tag
    asked = ["--cfg_file", config, "--extra_tag", tag, "--output", output, *SAVING, *WITHOUT_PICTURES, *options]
    return python("-m", "unbroken", "train", "focalsst", *asked)


def place(folder: Path, config: Path, tag: str) -> Path:
    return folder / "output" / config.parent.name / config.stem / tag


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard shows of a curve."""
    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    assert tag in reader.Tags()["scalars"], reader.Tags()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def assert_each_once_per_epoch(run: Path, *, without: Sequence[int] = ()) -> None:
    used: dict[int, list[int]] = {}
    for _, record in sorted(step_records(run).items()):
        used.setdefault(record["epoch"], []).extend(record["samples"])
    assert sorted(used) == list(range(EPOCHS))
    for epoch, samples in used.items():
        assert sorted(samples) == [frame for frame in range(FRAMES) if frame not in without], f"epoch {epoch}"


def assert_curves(run: Path) -> None:
    """Each step once and in order, as recorded; each epoch's mAP once."""
    records = step_records(run)
    shown = scalars(run / "tensorboard", "train/loss")
    assert [step for step, _ in shown] == sorted(records)
    assert [value for _, value in shown] == pytest.approx([records[step]["loss"] for step, _ in shown])
    judged = scalars(run / "eval/eval_with_train/tensorboard_val", "mAP")
    assert [epoch for epoch, _ in judged] == list(range(1, EPOCHS + 1))


def assert_same_outcome(run: Path, twin: Path) -> None:
    assert_twins(run, twin, LAST)
    best = [{path.name for path in (folder / "ckpt").glob("best_mAP*")} for folder in (run, twin)]
    assert best[0] == best[1] != set()
    results = [folder / f"eval/eval_with_train/epoch_{EPOCHS}/val/result.npz" for folder in (run, twin)]
    assert results[0].read_bytes() == results[1].read_bytes()
    assert evaluations(run).keys() == evaluations(twin).keys()
    assert len(evaluations(run)) == EPOCHS


CASES = [
    # seed, kills, accumulation, options of a session chosen at random each time, options of all
    pytest.param(201, 5, 4, [["--workers", 2], ["--workers", 0]], [], id="accumulation 4, workers change"),
    pytest.param(202, 5, 1, [["--workers", 0]], ["--fp16"], id="workers 0, bfloat16"),
]


@pytest.mark.parametrize(("seed", "kills", "accumulate", "choices", "always"), CASES)
def test_a_training_killed_anywhere_is_its_twin(
    tmp_path: Path, seed: int, kills: int, accumulate: int, choices: list[list[object]], always: list[object]
) -> None:
    print(f"seed {seed}")
    config = write_job(tmp_path, accumulate=accumulate)
    run, twin = place(tmp_path / "cut", config, "t"), place(tmp_path / "whole", config, "t")
    whole = run_to_end(train(config, twin, *always, *choices[0]))
    assert whole.returncode == 0, whole.output

    commands = [train(config, run, *always, *chosen) for chosen in choices]
    chance = random.Random(seed)
    cut = kill_until_done(run, commands, chance, kills=kills, steps_apart=max(12 // accumulate, 4))

    assert cut.sessions[-1].returncode == 0, cut.sessions[-1].output
    assert cut.kills >= kills // 2, "the kills came too late to mean anything"
    print(f"{cut.kills} kills, {cut.kills_in_saves} of them inside a save")
    assert_same_outcome(run, twin)
    for folder in (run, twin):
        assert_each_once_per_epoch(folder)
        assert_curves(folder)
    verdicts = [event["verdict"] for event in events(run, "replayed")]
    assert all("bit-identical" in verdict for verdict in verdicts), verdicts


def test_a_training_that_leaves_unreadable_frames_out_is_its_twin_as_well(tmp_path: Path) -> None:
    """So many that batches are lost whole, and steps with them."""
    seed, bad = 203, range(0, FRAMES, 2)
    print(f"seed {seed}")
    config = write_job(tmp_path, accumulate=2, pasting=False)
    points = tmp_path / "data" / "sonar" / "points_binary"
    ids = (points.parent / "ImageSets" / "train.txt").read_text("utf-8").split()
    for index in bad:
        (points / f"{ids[index]}.bin").write_bytes(b"")
    run, twin = place(tmp_path / "cut", config, "t"), place(tmp_path / "whole", config, "t")
    skip = ["--on-bad-frame", "skip", "--workers"]
    whole = run_to_end(train(config, twin, *skip, 0))
    assert whole.returncode == 0, whole.output

    commands = [train(config, run, *skip, workers) for workers in (0, 2)]
    cut = kill_until_done(run, commands, random.Random(seed), kills=3, steps_apart=5)

    assert cut.sessions[-1].returncode == 0, cut.sessions[-1].output
    assert cut.kills >= 2
    assert_same_outcome(run, twin)
    for folder in (run, twin):
        assert_each_once_per_epoch(folder, without=bad)
        assert_curves(folder)
    assert read_checkpoint(run / LAST)["unbroken"]["skipped"] == EPOCHS * len(bad)
    assert {event["sample"] for event in events(run, "skipped")} == set(bad)


def test_a_kill_inside_a_save_resumes_from_the_previous_checkpoint_and_says_so(tmp_path: Path) -> None:
    config = write_job(tmp_path, pasting=False)
    run = next(
        run
        for attempt in range(12)  # a save takes milliseconds, so a kill can come too late
        if kill_inside_a_save(
            run := place(tmp_path, config, f"t{attempt}"),
            train(config, run, "--workers", 0),
            after_steps=STEPS_PER_EPOCH + 1,
        )
    )
    before = survey(run, LAYOUT).newest_good
    assert before is not None

    resumed = run_to_end(train(config, run, "--workers", 0))

    assert resumed.returncode == 0, resumed.output
    assert "a save was cut off (" in resumed.output
    assert f"load checkpoint from {before.path}" in resumed.output
    assert f"resumed epoch: {before.inside['epoch']}, iter: {before.step}" in resumed.output
    assert not list(run.rglob("*.partial"))
    assert_each_once_per_epoch(run)


def stop_after(run: Path, command: Sequence[str], *, steps: int, sent: int = signal.SIGTERM) -> Session:
    """Start a command, send it a signal once it has recorded so many steps, and wait for its end."""
    process = Popen(command, env=environment(), stdout=PIPE, stderr=STDOUT, text=True, start_new_session=True)
    give_up = time.monotonic() + PATIENCE_S
    while process.poll() is None and time.monotonic() < give_up:
        if lines_in(run / "unbroken" / "metrics.jsonl") >= steps:
            process.send_signal(sent)
            break
        time.sleep(0.002)
    output, _ = process.communicate(timeout=PATIENCE_S)
    return Session(process.returncode, output)


def files(run: Path) -> set[str]:
    return {path.name for path in (run / "ckpt").glob("*.pth")}


def inside(run: Path, name: str) -> dict[str, Any]:
    return read_checkpoint(run / "ckpt" / name)


def test_a_stop_in_mid_epoch_saves_and_a_users_backup_confuses_nothing(tmp_path: Path) -> None:
    """The guide's habit: `cp ckpt/checkpoint_epoch_N.pth ckpt/best_model_backup.pth` makes the newest file time."""
    config = write_job(tmp_path, pasting=False)
    run, twin = place(tmp_path / "cut", config, "t"), place(tmp_path / "whole", config, "t")
    rarely = ["--ckpt_save_time_interval", 600, "--max_ckpt_save_num", 2, "--workers", 0]
    per_epoch = STEPS_PER_EPOCH
    assert run_to_end(train(config, twin, *rarely)).returncode == 0

    # each evaluation is a line of the record as well
    stopped = stop_after(run, train(config, run, *rarely), steps=3 * (per_epoch + 1) + 4)
    assert stopped.returncode == 75, stopped.output
    assert "everything is saved" in stopped.output and "to continue, run: " in stopped.output
    assert files(run) >= {"checkpoint_epoch_2.pth", "checkpoint_epoch_3.pth", "latest_model.pth"}
    assert "checkpoint_epoch_1.pth" not in files(run), "two epochs are kept, and latest_model is none of them"
    assert (inside(run, "checkpoint_epoch_3.pth")["epoch"], inside(run, "latest_model.pth")["epoch"]) == (3, 3)
    reached = inside(run, "latest_model.pth")["it"]
    assert 3 * per_epoch < reached < 4 * per_epoch

    backup = run / "ckpt" / "best_model_backup.pth"
    shutil.copy(run / "ckpt" / "checkpoint_epoch_2.pth", backup)
    os.utime(backup, (time.time() + 3600,) * 2)
    why = run_to_end(python("-m", "unbroken", "why", *train(config, run, *rarely)[4:]))
    assert why.returncode == 0 and "latest_model.pth" in why.output, why.output
    resumed = run_to_end(train(config, run, *rarely))

    assert resumed.returncode == 0, resumed.output
    assert f"resumed epoch: 3, iter: {reached}" in resumed.output
    assert_same_outcome(run, twin)
    assert_each_once_per_epoch(run)
    assert backup.exists(), "what a user put there stays there"
    assert {"checkpoint_epoch_3.pth", "checkpoint_epoch_4.pth"} <= files(run)
    assert inside(run, "checkpoint_epoch_3.pth")["it"] == 3 * per_epoch


def test_another_batch_size_goes_on_at_the_same_place_in_the_data(tmp_path: Path) -> None:
    config = write_job(tmp_path, pasting=False)
    run = place(tmp_path, config, "t")
    stopped = stop_after(run, train(config, run, "--workers", 0), steps=STEPS_PER_EPOCH + 6)
    assert stopped.returncode == 75, stopped.output

    changed = run_to_end(train(config, run, "--workers", 2, "--batch_size", 5))

    assert changed.returncode == 0, changed.output
    assert "BATCH_SIZE_PER_GPU" in changed.output and "the schedule is the config's from here on" in changed.output
    assert_each_once_per_epoch(run)
    sizes = [len(record["samples"]) for _, record in sorted(step_records(run).items())]
    assert sizes[0] == 2 and sizes[-2] == 5, sizes


def test_a_session_of_seconds_ends_in_time_and_the_next_one_goes_on(tmp_path: Path) -> None:
    config = write_job(tmp_path, pasting=False, epochs=500)
    run = place(tmp_path, config, "t")
    command = train(config, run, "--workers", 0, "--session", "6s", "--reserve", "2s", "--eval_interval", 5)
    reached = 0
    for _ in range(2):
        ended = run_to_end(command)
        assert ended.returncode == 75, ended.output
        assert "stopped by the end of the session" in ended.output
        begun, stopped = events(run, "session")[-1], events(run, "stopped")[-1]
        took = datetime.fromisoformat(stopped["time"]) - datetime.fromisoformat(begun["time"])
        assert took.total_seconds() <= 6.0
        assert stopped["step"] > reached
        reached = stopped["step"]
    assert max(step_records(run)) == reached
    assert sorted(step_records(run)) == list(range(1, reached + 1))
