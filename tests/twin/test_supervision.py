"""A training that crashes is started again by its parent and ends as its twin, or is given up with reasons."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest

from tests.processes import PATIENCE_S, PIPE, STDOUT, Popen, python
from tests.twin.frail import STEPS
from tests.twin.killing import Session, assert_twins, events, lines_in, run_to_end, step_records

ROOT = Path(__file__).resolve().parents[2]
SHAKY = ["--dropout", 0.3]
SUPERVISED = ["--restarts", 3, "--backoff", "0.1s"]


def command(run: Path, *options: object) -> list[str]:
    return python("-m", "unbroken", "train", "tests.twin.frail:frail", run, *SHAKY, *options)


def train(run: Path, *options: object) -> Session:
    return run_to_end(command(run, *options), cwd=ROOT)


def begin(run: Path, *options: object) -> Popen:
    return Popen(command(run, *options), cwd=ROOT, stdout=PIPE, stderr=STDOUT, text=True)


def wait_for(run: Path, *, steps: int) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while lines_in(run / "unbroken/metrics.jsonl") < steps and time.monotonic() < give_up:
        time.sleep(0.01)
    assert lines_in(run / "unbroken/metrics.jsonl") >= steps


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The training that nothing happens to."""
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train(run).returncode == 0
    return run


@pytest.mark.parametrize(
    ("crash", "words"),
    [
        ("segv@8", "was killed by signal 11 (SIGSEGV), a fault in native code, in step 8"),
        ("kill@1", "was killed by signal 9 (SIGKILL), perhaps because the machine ran out of memory, in step 1"),
        ("raise@16", "ended with exit code 1, for the reason printed above, in step 16"),
    ],
)
def test_after_a_crash_it_goes_on_as_if_there_had_been_none(
    tmp_path: Path, whole: Path, crash: str, words: str
) -> None:
    run = tmp_path / "run"
    done = train(run, *SUPERVISED, "--crash", crash)
    assert done.returncode == 0, done.output
    said = "it starts again in 0.1 s (restart 1 of 3 without a further checkpoint)"
    assert f"unbroken: the training {words}; {said}" in done.output
    assert f"started again: the session before {words} (restart 1 of 3" in done.output
    assert_twins(run, whole, f"iter_{STEPS}.pth")
    restarted = [event["environment"].get("restarted") for event in events(run, "session")]
    assert restarted[0] is None and restarted[1]["step"] == int(crash.partition("@")[2]) and len(restarted) == 2


def test_three_crashes_in_one_step_end_it_with_the_samples_named(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    done = train(run, "--restarts", 9, "--backoff", "0.1s", "--crash", "segv@8", "--times", 99, "--workers", 1)
    assert done.returncode == 128 + signal.SIGSEGV
    read = ", ".join(str(sample) for sample in step_records(whole)[8]["samples"])
    assert "in step 8; it is not started again: it failed 3 times in step 8\n" in done.output
    assert f"step 8 reads samples {read} of epoch 1 (places in the training set, counted from 0)" in done.output
    assert re.search(r"the last checkpoint is of step [36]; to continue, run: .*unbroken train \S+ \S+", done.output)
    assert len(events(run, "session")) == 3
    assert train(run).returncode == 0
    assert_twins(run, whole, f"iter_{STEPS}.pth")


def test_the_samples_are_named_also_when_reading_them_is_what_crashes(tmp_path: Path, whole: Path) -> None:
    bad = step_records(whole)[8]["samples"][0]
    done = train(tmp_path / "run", *SUPERVISED, "--deadly", bad, "--save-every", 5)
    assert done.returncode == 128 + signal.SIGSEGV
    first = next(step for step, record in sorted(step_records(whole).items()) if bad in record["samples"])
    read = ", ".join(str(sample) for sample in step_records(whole)[first]["samples"])
    assert f"step {first} reads samples {read} of epoch 0" in done.output


@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 75), ("SIGINT", 75), ("SIGUSR1", 75)])
def test_a_signal_to_the_parent_stops_the_child_in_order(tmp_path: Path, whole: Path, number: str, code: int) -> None:
    run = tmp_path / "run"
    process = begin(run, *SUPERVISED, "--slow", 0.2)
    wait_for(run, steps=3)
    process.send_signal(getattr(signal, number))
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, output
    assert f"stopped by {number}" in output and "starts again" not in output
    assert re.search(r"to continue, run: .*unbroken train \S+ \S+ .*--restarts 3", output)
    assert train(run, *SUPERVISED).returncode == 0
    assert_twins(run, whole, f"iter_{STEPS}.pth")


def test_a_signal_while_it_waits_to_start_again_ends_it(tmp_path: Path) -> None:
    process = begin(tmp_path / "run", "--restarts", 3, "--backoff", "5m", "--crash", "kill@5")
    assert process.stdout is not None
    for line in process.stdout:
        if "it starts again in 300 s" in line:
            break
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 75 and "stopped by SIGTERM; what was saved is whole" in output


def test_the_child_goes_on_alone_when_its_parent_is_killed(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    process = begin(run, *SUPERVISED, "--slow", 0.05)
    wait_for(run, steps=3)
    process.kill()
    process.communicate(timeout=PATIENCE_S)
    give_up = time.monotonic() + PATIENCE_S
    while not events(run, "finished") and time.monotonic() < give_up:
        time.sleep(0.05)
    assert_twins(run, whole, f"iter_{STEPS}.pth")


def test_starting_over_is_meant_once(tmp_path: Path, whole: Path) -> None:
    run = tmp_path / "run"
    assert train(run, "--steps", 5).returncode == 0
    done = train(run, *SUPERVISED, "--fresh", "--crash", "segv@8", "--save-every", 4)
    assert done.returncode == 0, done.output
    assert len(list((run / "archive").iterdir())) == 1
    done = train(run, "--fresh", "--restarts", 0, "--steps", 2)
    assert done.returncode == 0 and len(list((run / "archive").iterdir())) == 2


def test_an_old_file_is_named_again_until_something_was_saved(tmp_path: Path, whole: Path) -> None:
    """`--ckpt` of another folder: a crash before the first save begins with that file once more, not with nothing."""
    run = tmp_path / "run"
    file = whole / "iter_12.pth"
    done = train(run, *SUPERVISED, "--ckpt", file, "--crash", "kill@14", "--save-every", 15)
    assert done.returncode == 0, done.output
    assert min(step_records(run)) == 13 and max(step_records(run)) == STEPS
    later = train(tmp_path / "later", *SUPERVISED, "--ckpt", whole / "iter_9.pth", "--crash", "kill@15")
    assert later.returncode == 0, later.output
    assert [event["plan"]["step"] for event in events(tmp_path / "later", "session")] == [9, 12]


def test_what_ends_with_a_meaning_is_not_started_again(tmp_path: Path) -> None:
    for options, code in ((["--bad", 3], 10), (["--no-such-option"], 2)):
        done = train(tmp_path / "run", *SUPERVISED, *options)
        assert (done.returncode, "starts again" in done.output) == (code, False)
