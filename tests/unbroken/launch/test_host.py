"""How long a session may be, by the variables that hosts document."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from unbroken import OptionParser
from unbroken.errors import UsageError
from unbroken.launch.host import host_limit, host_quota, processes_said, search_folders, up_s
from unbroken.launch.job import Environment, Host, Limit
from unbroken.launch.options import add_common_options, session_limit

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_slurm_says_when_the_job_ends_in_seconds_since_1970() -> None:
    limit = host_limit({"SLURM_JOB_ID": "7", "SLURM_JOB_END_TIME": str(int(NOW.timestamp()) + 7200)}, NOW)
    assert limit is not None and limit.left_s == 7200 and limit.reserve_s == 60
    assert "SLURM_JOB_END_TIME" in limit.source


@pytest.mark.parametrize("kind", ["Batch", "Interactive"])
def test_kaggle_gives_twelve_hours_from_when_its_machine_began(kind: str) -> None:
    limit = host_limit({"KAGGLE_KERNEL_RUN_TYPE": kind}, NOW, up_s=1800.0)
    assert limit is not None and limit.left_s == 12 * 3600 - 1800 and limit.reserve_s == 600
    tpu = host_limit({"KAGGLE_KERNEL_RUN_TYPE": kind, "TPU_WORKER_ID": "0"}, NOW)
    assert tpu is not None and tpu.left_s == 9 * 3600


@pytest.mark.parametrize("end", ["2026-11-22T13:00:00+00:00", str(NOW.timestamp() + 3600)])
def test_anybody_can_say_when_a_session_ends(end: str) -> None:
    limit = host_limit({"UNBROKEN_SESSION_END": end, "SLURM_JOB_END_TIME": "1"}, NOW)
    assert limit is not None and limit.left_s == 3600 and limit.reserve_s == 0


@pytest.mark.parametrize(
    "environment",
    [{}, {"SLURM_JOB_ID": "7"}, {"SLURM_JOB_END_TIME": "soon"}, {"COLAB_GPU": "1"}, {"UNBROKEN_SESSION_END": ""}],
)
def test_where_no_limit_is_named_there_is_none(environment: dict[str, str]) -> None:
    assert host_limit(environment, NOW) is None


@pytest.mark.parametrize("said", ["x", "12", "12h", "12:00:00", "2026-11-31T10:00", "tomorrow"])
def test_a_moment_or_a_size_that_cannot_be_read_is_a_mistake_and_not_passed_over(said: str) -> None:
    with pytest.raises(UsageError, match="UNBROKEN_SESSION_END: this is no moment"):
        host_limit({"UNBROKEN_SESSION_END": said}, NOW)
    with pytest.raises(UsageError, match="UNBROKEN_QUOTA: this is no size"):
        host_quota({"UNBROKEN_QUOTA": said}, Path.cwd())


@pytest.mark.parametrize(("kept", "starts"), [("True", "1"), ("False", "0")])
def test_starts_are_told_apart_by_their_number_only_where_they_meet_at_a_place_that_is_kept(
    kept: str, starts: str
) -> None:
    """The agents of two machines count each its own: of one start their processes would look for each other in vain."""
    rendezvous = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "node1", "MASTER_PORT": "29500"}
    said = {**rendezvous, "TORCHELASTIC_RESTART_COUNT": "1", "TORCHELASTIC_USE_AGENT_STORE": kept}
    assert processes_said(said).starts == starts


def test_how_long_a_machine_has_been_up_is_seen_from_its_first_process(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    after_the_name = ["S", *["0"] * 18, "50000", "0"]  # the 22nd field of /proc/1/stat: 500 s after the boot
    (tmp_path / "1/stat").write_text(f"1 (a (strange) name) {' '.join(after_the_name)}\n", "ascii")
    (tmp_path / "uptime").write_text("9500.25 100.0\n", "ascii")
    assert up_s(tmp_path) == 9000.25
    assert up_s(tmp_path / "nothing") is None


def asked(*words: str, host: Limit | None = None) -> Limit | None:
    parser = OptionParser(prog="train.py")
    add_common_options(parser)
    return session_limit(parser.parse_args(words), Environment(host=Host(limit=host)))


HOST = Limit(left_s=7200.0, reserve_s=60.0, source="Slurm")


def test_an_option_counts_more_than_the_host() -> None:
    assert asked(host=HOST) == HOST
    assert asked("--session", "1h", host=HOST) == Limit(left_s=3600.0, reserve_s=0.0, source="--session")
    assert asked("--reserve", "5m", host=HOST) == Limit(left_s=7200.0, reserve_s=300.0, source="Slurm")
    assert asked("--until-done", host=HOST) is None
    assert asked() is None


def test_a_session_shorter_than_its_reserve_is_a_mistake_and_one_that_is_over_is_none() -> None:
    with pytest.raises(UsageError, match="no time is left to train in"):
        asked("--session", "10m", "--reserve", "10m")
    over = Limit(left_s=30.0, reserve_s=60.0, source="Slurm")
    assert asked(host=over) == over  # the launch says so: a finished run needs no time
    with pytest.raises(UsageError, match="contradicts"):
        asked("--session", "1h", "--until-done")


def test_copies_are_looked_for_where_the_environment_says_and_where_a_notebook_host_mounts_them(tmp_path: Path) -> None:
    named = {"UNBROKEN_SEARCH_PATH": f"/a{os.pathsep}{os.pathsep}/b"}
    assert search_folders(named, inputs=tmp_path / "not_there") == (Path("/a"), Path("/b"))
    assert search_folders(named, inputs=tmp_path) == (Path("/a"), Path("/b"), tmp_path)
    assert search_folders({}, inputs=tmp_path / "not_there") == ()
