"""Curves, read back as TensorBoard reads them."""

from __future__ import annotations

import errno
import math
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator, ScalarEvent
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator as ServersAccumulator
from torch.utils.tensorboard import SummaryWriter

from tests.crash.faulty_disk import FaultyDisk
from tests.processes import PIPE, Popen, run_command
from unbroken.errors import Refused
from unbroken.storage import Disk
from unbroken.train.record.tensorboard import TensorBoardCurves

NEVER_S = 3600.0
SOON_S = 0.05


class At:
    """A clock that stands."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic_s(self) -> float:
        return 0.0


def open_curves(
    folder: Path,
    *,
    at: float = 1_700_000_000.7,
    after: int = -1,
    session: str = "one",
    disk: Disk | None = None,
    every_s: float = NEVER_S,
) -> TensorBoardCurves:
    return TensorBoardCurves(disk or Disk(), folder, At(at), session=session, after=after, follow_every_s=every_s)


def add_steps(curves: TensorBoardCurves, first: int, last: int, *, offset: float = 0.0) -> None:
    for step in range(first, last + 1):
        curves.add(step, {"train/loss": step + offset}, wall_time_s=float(step))


def read(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()


def points(folder: Path, tag: str = "train/loss") -> list[tuple[int, float]]:
    """What the reader for programs and the one of the server show, which heed START events differently."""
    found = read(folder)
    events = found.Scalars(tag) if tag in found.Tags()["scalars"] else []
    server = ServersAccumulator(str(folder), size_guidance={"tensors": 0}).Reload()
    shown = server.Tensors(tag) if tag in server.Tags()["tensors"] else []
    assert [(event.step, event.wall_time) for event in shown] == [(event.step, event.wall_time) for event in events]
    return [(event.step, event.value) for event in events]


def wait_for(path: Path, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not list(path.parent.glob(path.name)):
        assert time.monotonic() < end, f"{path} does not appear"
        time.sleep(0.01)


def test_values_steps_tags_and_times_come_back(tmp_path: Path) -> None:
    curves = open_curves(tmp_path / "new" / "logs")
    curves.add(1, {"loss": 0.25, "lr": 1e-3}, wall_time_s=100.5)
    curves.add(2, {"loss": 0.125}, wall_time_s=101.5)
    curves.flush()
    curves.add(2, {"val/mAP": 50.0}, wall_time_s=102.5)
    curves.close()
    found = read(tmp_path / "new" / "logs")
    assert sorted(found.Tags()["scalars"]) == ["loss", "lr", "val/mAP"]
    assert found.Scalars("loss") == [ScalarEvent(100.5, 1, 0.25), ScalarEvent(101.5, 2, 0.125)]
    assert found.Scalars("lr") == [ScalarEvent(100.5, 1, pytest.approx(1e-3))]
    assert found.Scalars("val/mAP") == [ScalarEvent(102.5, 2, 50.0)]
    assert found.file_version == 2.0


def test_nan_and_infinities_are_written_as_they_are(tmp_path: Path) -> None:
    curves = open_curves(tmp_path)
    for step, value in enumerate([math.nan, math.inf, -math.inf, 1e300]):
        curves.add(step, {"loss": value}, wall_time_s=0.0)
    curves.close()
    values = [value for _, value in points(tmp_path, "loss")]
    assert math.isnan(values[0]) and values[1:] == [math.inf, -math.inf, math.inf]


def test_the_file_is_named_as_tensorboard_names_its_own_and_there_is_none_without_points(tmp_path: Path) -> None:
    open_curves(tmp_path / "empty").close()
    assert not (tmp_path / "empty").exists()
    curves = open_curves(tmp_path, session="20240101_120000")
    add_steps(curves, 1, 1)
    curves.close()
    [name] = [path.name for path in tmp_path.glob("events*")]
    assert name.startswith("events.out.tfevents.1700000000.") and name.endswith(".20240101_120000")


SESSION_THAT_IS_KILLED = """
import sys, time
from pathlib import Path
from unbroken.storage import Disk
from unbroken.train.record.tensorboard import TensorBoardCurves
from unbroken.clock import SystemClock

curves = TensorBoardCurves(Disk(), Path(sys.argv[1]), SystemClock(), session="killed", after=-1, follow_every_s=0.05)
for step in range(1, 151):
    curves.add(step, {"train/loss": step + 0.5}, wall_time_s=float(step))
    if step == 100:
        curves.flush()
curves.add(120, {"val/mAP": 1.0}, wall_time_s=120.0)
if sys.argv[2] == "exits":
    sys.exit(7)
while True:
    if not curves._waiting:
        print("all is written", flush=True)
    time.sleep(0.05)
"""


def killed_session(folder: Path) -> None:
    """A session that saved at step 100, wrote up to step 150 and was killed."""
    process = Popen([sys.executable, "-c", SESSION_THAT_IS_KILLED, str(folder), "stays"], stdout=PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "all is written\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert len(points(folder)) == 150


def test_after_a_kill_each_step_is_shown_once_in_order_and_nothing_beyond_the_save_survives(tmp_path: Path) -> None:
    killed_session(tmp_path)
    assert points(tmp_path, "val/mAP") == [(120, 1.0)]
    curves = open_curves(tmp_path, at=time.time(), after=100, session="second")
    add_steps(curves, 101, 130)
    curves.close()
    assert points(tmp_path) == [*((n, n + 0.5) for n in range(1, 101)), *((n, n) for n in range(101, 131))]
    assert points(tmp_path, "val/mAP") == []


def test_a_torn_last_record_does_not_disturb_the_next_session(tmp_path: Path) -> None:
    killed_session(tmp_path)
    [path] = tmp_path.glob("events*")
    path.write_bytes(path.read_bytes()[:-7])
    curves = open_curves(tmp_path, at=time.time(), after=100, session="second")
    add_steps(curves, 101, 130)
    curves.close()
    assert [step for step, _ in points(tmp_path)] == list(range(1, 131))


def test_a_session_that_does_not_resume_drops_nothing(tmp_path: Path) -> None:
    for session, after in (("one", -1), ("two", -1)):
        curves = open_curves(tmp_path, after=after, session=session)
        add_steps(curves, 1, 3)
        curves.close()
    assert [step for step, _ in points(tmp_path)] == [1, 2, 3, 1, 2, 3]


def test_the_first_session_in_a_folder_drops_nothing(tmp_path: Path) -> None:
    curves = open_curves(tmp_path, after=10)
    add_steps(curves, 5, 12)
    curves.close()
    assert [step for step, _ in points(tmp_path)] == list(range(5, 13))


@pytest.mark.parametrize("at", [1_700_000_000.0, 1_600_000_000.0], ids=["the same second", "a clock that is behind"])
def test_a_later_session_is_read_later_whatever_the_clocks_say(tmp_path: Path, at: float) -> None:
    for number in range(12):
        curves = open_curves(tmp_path, at=at if number else 1_700_000_000.0, after=10 * number, session=f"s_{number}")
        add_steps(curves, 10 * number + 1, 10 * number + 15, offset=number / 16)
        curves.close()
    assert [step for step, _ in points(tmp_path)] == list(range(1, 126))


def test_points_of_another_program_are_dropped_beyond_the_step_a_session_goes_on_from(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in range(1, 16):
            writer.add_scalar("train/loss", step + 0.5, step)
    curves = open_curves(tmp_path, after=10)
    add_steps(curves, 11, 12)
    curves.close()
    assert points(tmp_path) == [*((n, n + 0.5) for n in range(1, 11)), (11, 11.0), (12, 12.0)]


def test_curves_in_two_folders_do_not_meet(tmp_path: Path) -> None:
    one, two = open_curves(tmp_path / "one"), open_curves(tmp_path / "two")
    add_steps(one, 1, 3)
    add_steps(two, 1, 4, offset=0.5)
    one.close()
    two.close()
    assert points(tmp_path / "one") == [(1, 1.0), (2, 2.0), (3, 3.0)]
    assert points(tmp_path / "two") == [(1, 1.5), (2, 2.5), (3, 3.5), (4, 4.5)]


def test_a_thread_writes_while_the_training_goes_on(tmp_path: Path) -> None:
    curves = open_curves(tmp_path, every_s=SOON_S)
    add_steps(curves, 1, 3)
    wait_for(tmp_path / "events*")
    reader = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    end = time.monotonic() + 60
    while time.monotonic() < end and "train/loss" not in reader.Reload().Tags()["scalars"]:
        time.sleep(0.01)
    assert [event.step for event in reader.Scalars("train/loss")] == [1, 2, 3]
    add_steps(curves, 4, 5)
    while time.monotonic() < end and len(reader.Reload().Scalars("train/loss")) < 5:
        time.sleep(0.01)
    assert [event.step for event in reader.Scalars("train/loss")] == [1, 2, 3, 4, 5]
    curves.close()


def test_points_added_while_others_are_written_are_neither_lost_nor_doubled(tmp_path: Path) -> None:
    curves = open_curves(tmp_path, every_s=0.001)
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for step in range(20_000):
            curves.add(step, {"train/loss": float(step)}, wall_time_s=0.0)
            if step % 100 == 0:
                time.sleep(0.0005)
            if step % 3000 == 0:
                curves.flush()
    finally:
        sys.setswitchinterval(usual_s)
    curves.close()
    assert points(tmp_path) == [(step, step) for step in range(20_000)]


def test_nothing_is_written_after_close(tmp_path: Path) -> None:
    curves = open_curves(tmp_path, every_s=SOON_S)
    add_steps(curves, 1, 3)
    curves.close()
    curves.close()
    add_steps(curves, 4, 4)
    with pytest.raises(ValueError, match="is closed"):
        curves.flush()
    time.sleep(3 * SOON_S)
    assert [step for step, _ in points(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("kind", ["make_folder", "open_append", "write", "sync"])
def test_a_full_disk_is_explained(tmp_path: Path, kind: str) -> None:
    look = FaultyDisk()
    curves = open_curves(tmp_path / "look" / "logs", disk=look)
    add_steps(curves, 1, 3)
    curves.close()
    number = next(n for n, request in enumerate(look.requests) if request.kind == kind)

    disk = FaultyDisk(fail_at=number, errno=errno.ENOSPC)
    curves = open_curves(tmp_path / "full" / "logs", disk=disk)
    add_steps(curves, 1, 3)
    with pytest.raises(Refused, match=r"(?s)curves for TensorBoard.*No space left on device"):
        curves.flush()
    add_steps(curves, 4, 4)
    curves.close()  # there is room again
    curves.close()
    assert not disk.open_files
    assert [step for step, _ in points(tmp_path / "full" / "logs")] == [1, 2, 3, 4]


def test_what_the_thread_cannot_write_waits_and_the_next_flush_raises(tmp_path: Path) -> None:
    disk = FaultyDisk(fail_at=0, errno=errno.ENOSPC, stays_full=True)
    curves = open_curves(tmp_path / "logs", disk=disk, every_s=SOON_S)
    add_steps(curves, 1, 3)
    give_up = time.monotonic() + 60
    while not disk.requests and time.monotonic() < give_up:
        time.sleep(SOON_S)
    with pytest.raises(Refused, match="No space left on device"):
        curves.flush()
    with pytest.raises(Refused, match="No space left on device"):
        curves.close()


@pytest.mark.parametrize("kind", ["write", "sync"])
def test_after_a_torn_record_the_points_go_on_in_a_file_of_their_own(tmp_path: Path, kind: str) -> None:
    look = FaultyDisk()
    curves = open_curves(tmp_path / "look" / "logs", disk=look)
    for first in (1, 4):
        add_steps(curves, first, first + 2)
        curves.flush()
    curves.close()
    second = [n for n, request in enumerate(look.requests) if request.kind == kind][1]

    disk = FaultyDisk(fail_at=second, errno=errno.ENOSPC)
    curves = open_curves(tmp_path / "full" / "logs", disk=disk)
    add_steps(curves, 1, 3)
    curves.flush()
    add_steps(curves, 4, 6)
    with pytest.raises(Refused, match="No space left on device"):
        curves.flush()
    add_steps(curves, 7, 7)
    curves.close()
    assert len(list((tmp_path / "full" / "logs").iterdir())) == 2
    assert [step for step, _ in points(tmp_path / "full" / "logs")] == [1, 2, 3, 4, 5, 6, 7]


def test_a_value_that_is_no_number_is_raised_and_spoils_no_file(tmp_path: Path) -> None:
    curves = open_curves(tmp_path)
    add_steps(curves, 1, 2)
    curves.flush()
    curves.add(3, {"train/loss": "much"}, wall_time_s=0.0)  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        curves.flush()
    with pytest.raises(TypeError):
        curves.close()
    assert [step for step, _ in points(tmp_path)] == [1, 2]


def test_curves_left_open_do_not_keep_a_process_from_ending(tmp_path: Path) -> None:
    done = run_command(
        [sys.executable, "-c", SESSION_THAT_IS_KILLED, str(tmp_path), "exits"],
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (7, "")
    assert len(points(tmp_path)) >= 100


def test_importing_curves_does_not_load_tensorboard() -> None:
    program = "import sys, unbroken.train.record.tensorboard; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"tensorboard", "google.protobuf", "absl"} & set(done.stdout.split())
