"""What TensorBoard shows of sessions that were really killed and resumed, read back by its own readers."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as ServersAccumulator
from tensorboard.plugins.hparams import metadata

from tests.processes import python, run_command
from unbroken.journal.file import read_lines
from unbroken.run.layout import EPOCHS
from unbroken.train.record.hparams import FILE

LOOP = Path(__file__).with_name("board_loop.py")
KILLED, STOPPED = -signal.SIGKILL, 75


def session(folder: Path, *, ends: int = 0, **arguments: Any) -> Path:
    command = python(LOOP, folder, json.dumps(arguments))
    done = run_command(command)
    assert done.returncode == ends, done.stdout + done.stderr
    return folder / "tiny"


def shown(run: Path, tag: str) -> list[tuple[int, float]]:
    """What both of TensorBoard's readers in Python show of a curve, which heed restarts differently."""
    folder = str(run / "tensorboard")
    found = EventAccumulator(folder, size_guidance={"scalars": 0}).Reload()
    points = [(event.step, event.value) for event in found.Scalars(tag)] if tag in found.Tags()["scalars"] else []
    server = ServersAccumulator(folder, size_guidance={"tensors": 0}).Reload()
    tensors = server.Tensors(tag) if tag in server.Tags()["tensors"] else []
    assert [event.step for event in tensors] == [step for step, _ in points]
    return points


def settings(run: Path) -> dict[str, Any]:
    reader = ServersAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    content = reader.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    info = metadata.parse_session_start_info_plugin_data(content)
    found = {}
    for name, value in info.hparams.items():
        found[name] = getattr(value, str(value.WhichOneof("kind")))
    return {"group": info.group_name, **found}


def is_finished(run: Path) -> bool:
    reader = ServersAccumulator(str(run / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    return metadata.SESSION_END_INFO_TAG in reader.Tags()["tensors"]


def rewinds(run: Path) -> list[tuple[int, int]]:
    records = read_lines(run / "unbroken" / "metrics.jsonl")
    return [(record["rewound"]["to"], record["rewound"]["from"]) for record in records if "rewound" in record]


def assert_whole(run: Path, twin: Path, steps: int = 20) -> None:
    """Every curve is that of a training that nobody touched, each step of it once and in order."""
    assert [step for step, _ in shown(run, "train/loss")] == list(range(1, steps + 1))
    for tag in ("train/loss", "train/lr", "val/score", "best/score"):
        assert shown(run, tag) == shown(twin, tag), tag


@pytest.fixture
def twin(tmp_path: Path) -> Path:
    return session(tmp_path / "whole")


def test_a_training_killed_twice_shows_the_curves_of_its_twin(tmp_path: Path, twin: Path) -> None:
    session(tmp_path, ends=KILLED, die_after=7)
    session(tmp_path, ends=KILLED, die_after=15)
    run = session(tmp_path)
    assert_whole(run, twin)
    assert shown(run, "val/score") == [(8, 8.0), (16, -84.0), (20, 20.0)]
    assert shown(run, "best/score") == [(8, 8.0), (16, 8.0), (20, 20.0)]
    assert rewinds(run) == [(4, 7), (12, 15)]
    assert rewinds(twin) == []


def test_two_kills_at_the_same_place_rewind_to_the_same_step_twice(tmp_path: Path, twin: Path) -> None:
    session(tmp_path, ends=KILLED, die_after=11)
    session(tmp_path, ends=KILLED, die_after=10)
    run = session(tmp_path)
    assert rewinds(run) == [(8, 11), (8, 10)]
    assert_whole(run, twin)


def test_a_kill_before_the_first_save_rewinds_to_the_beginning(tmp_path: Path, twin: Path) -> None:
    session(tmp_path, ends=KILLED, die_after=3)
    run = session(tmp_path)
    assert rewinds(run) == [(0, 3)]
    assert_whole(run, twin)


def test_a_kill_between_an_evaluation_and_its_save_shows_it_once(tmp_path: Path, twin: Path) -> None:
    run = session(tmp_path, ends=KILLED, die_in_evaluation=8)
    assert shown(run, "val/score") == [(8, 8.0)], "it was shown before the kill"
    session(tmp_path, ends=KILLED, die_in_evaluation=16)
    session(tmp_path)
    assert_whole(run, twin)
    assert rewinds(run) == [], "no step was lost"


def test_sessions_without_a_single_step_change_nothing(tmp_path: Path, twin: Path) -> None:
    session(tmp_path, ends=STOPPED, stop_after=10)
    before = sorted(path.name for path in (tmp_path / "tiny" / "tensorboard").iterdir())
    for _ in range(2):
        run = session(tmp_path, ends=STOPPED, stop_after=-1)
    assert sorted(path.name for path in (run / "tensorboard").iterdir()) == before
    session(tmp_path)
    assert_whole(run, twin)
    assert rewinds(run) == []


def test_a_resume_from_an_older_checkpoint_drops_what_came_after_it(tmp_path: Path, twin: Path) -> None:
    run = session(tmp_path, ends=STOPPED, stop_after=18)
    session(tmp_path, ckpt=str(run / "iter_8.pth"))
    assert rewinds(run) == [(8, 18)]
    assert_whole(run, twin)


def test_fresh_moves_the_old_curves_into_the_archive_and_begins_new_ones(tmp_path: Path) -> None:
    run = session(tmp_path, ends=STOPPED, stop_after=18)
    old = {path.name for path in (run / "tensorboard").iterdir()}
    session(tmp_path, fresh=True, steps=9)
    [archived] = (run / "archive").glob("*/tensorboard")
    assert {path.name for path in archived.iterdir()} == old
    assert [step for step, _ in shown(run, "train/loss")] == list(range(1, 10))
    assert rewinds(run) == []


def test_the_settings_of_the_newest_session_are_the_row_of_the_run(tmp_path: Path) -> None:
    run = session(tmp_path, ends=KILLED, die_after=9)
    first = settings(run)
    assert first["lr"] == 0.01 and first["steps"] == 20 and first["sizes"] == "[1, 2]"
    assert first["name"] == "<b>\N{REPLACEMENT CHARACTER}[31m", "no escape reaches a terminal"
    assert not is_finished(run)
    session(tmp_path, lr=0.02, steps=24)
    assert settings(run) == {**first, "lr": 0.02, "steps": 24}
    assert first["group"].startswith("tiny (") and is_finished(run)
    session(tmp_path, ends=STOPPED, lr=0.02, steps=30, stop_after=26)
    assert settings(run)["steps"] == 30 and not is_finished(run)


def test_the_settings_are_read_before_all_sessions(tmp_path: Path) -> None:
    run = session(tmp_path, ends=STOPPED, stop_after=5)
    names = sorted(path.name for path in (run / "tensorboard").iterdir())
    assert names[0] == FILE and len(names) == 2


def test_a_run_that_was_begun_without_curves_gets_them_from_its_next_session_on(tmp_path: Path) -> None:
    """Its record has the layout of its time; what is read of it goes on being read."""
    run = session(tmp_path, ends=STOPPED, stop_after=6)
    record = run / "unbroken" / "run.json"
    known = json.loads(record.read_text("utf-8"))
    assert known["layout"]["curves"] == "tensorboard"
    known["layout"] |= {"curves": ""}
    del known["layout"]["predictions"]
    record.write_text(json.dumps(known), "utf-8")
    for path in (run / "tensorboard").iterdir():
        path.unlink()
    (run / "tensorboard").rmdir()
    session(tmp_path)
    assert [step for step, _ in shown(run, "train/loss")] == list(range(7, 21))
    assert EPOCHS.predictions == "predictions"
