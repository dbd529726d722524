"""One training on several processes, killed, stopped and continued by other numbers of them: as if nothing had been."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest
import torch

from tests.processes import python, run_command
from tests.twin.killing import assert_twins
from tests.twin.together import kill_one, require_ended, run_by_other_numbers, run_together, start
from unbroken.errors import STOPPED
from unbroken.train import read_checkpoint

LOOP = Path(__file__).parent / "loops" / "together.py"
LAST = "iter_20.pth"
SESSION_S = 20.0  # long enough to begin in, and not for 20 steps of three seconds


def loop(root: Path, *words: object) -> list[str]:
    """The command of the loop."""
    return python(LOOP, root, *words)


@pytest.mark.parametrize(
    ("kind", "size", "batch"),
    [("batch norm", 2, "12"), ("sampler", 2, "12"), ("unreadable", 2, "12"), ("inside", 3, "14")],
)
def test_processes_that_are_killed_and_stopped_at_any_instant_end_as_those_that_were_not(
    tmp_path: Path, kind: str, size: int, batch: str
) -> None:
    seed, told = 11, {"KIND": kind, "BATCH": batch}
    print("seed", seed)
    chance = random.Random(seed)
    require_ended(run_together(loop(tmp_path / "peace"), size, **told), 0)
    root, step, struck = tmp_path / "killed", 0, 0
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        step += chance.randint(2, 5)
        sessions = kill_one(root / "t", loop(root), size, chance, after=step, number=number, PACE="0.03", **told)
        codes = {each.returncode for each in sessions}
        allowed = {STOPPED} if number == signal.SIGTERM else {STOPPED, -signal.SIGKILL}
        assert codes <= allowed or codes == {0}, [each.output for each in sessions]  # it may have been its last step
        struck += codes != {0}
    assert struck > 1, "the signals came too late to mean anything"
    ended = run_together(loop(root), size, **told)
    require_ended(ended, 0)
    assert ended[1].output == ""  # one process speaks
    assert_twins(root / "t", tmp_path / "peace" / "t", LAST)
    audit = run_command(python("-m", "unbroken", "audit", root / "t"))
    assert audit.returncode == 0, audit.stdout + audit.stderr


def test_parts_of_unequal_size_train_what_one_process_does_but_for_the_order_of_sums(tmp_path: Path) -> None:
    """Of batches of 13 and 8 samples two processes have 6 and 7, and 4 and 4; three have 4, 4 and 5."""
    how = {"KIND": "nothing drawn", "BATCH": "13"}
    for size in (1, 2, 3):
        require_ended(run_together(loop(tmp_path / str(size)), size, **how), 0)
    one, two, three = (read_checkpoint(tmp_path / size / "t" / LAST)["state_dict"] for size in ("1", "2", "3"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=2e-3, atol=2e-4)
        torch.testing.assert_close(three[name], tensor, rtol=2e-3, atol=2e-4)


def test_other_numbers_of_processes_take_the_same_samples_and_end_as_the_same_numbers_that_were_not_killed(
    tmp_path: Path,
) -> None:
    run_by_other_numbers(tmp_path, loop)
    assert_twins(tmp_path / "killed" / "t", tmp_path / "peace" / "t", LAST)
    audit = run_command(python("-m", "unbroken", "audit", tmp_path / "killed" / "t"))
    assert audit.returncode == 0, audit.stdout + audit.stderr


def test_the_end_of_a_session_stops_all_processes_after_the_same_step_and_the_next_one_goes_on(tmp_path: Path) -> None:
    told = {"KIND": "batch norm", "BATCH": "12"}
    require_ended(run_together(loop(tmp_path / "peace"), 2, **told), 0)
    ends = str(time.time() + SESSION_S)
    session = run_together(loop(tmp_path / "cut"), 2, UNBROKEN_SESSION_END=ends, PACE="3", **told)
    require_ended(session, STOPPED)
    assert "stopped by the end of the session after step " in session[0].output
    require_ended(run_together(loop(tmp_path / "cut"), 2, **told), 0)
    assert_twins(tmp_path / "cut" / "t", tmp_path / "peace" / "t", LAST)


def test_a_process_that_hangs_is_named_once_the_others_have_waited_for_it_long_enough(tmp_path: Path) -> None:
    session = start(loop(tmp_path), 3, UNBROKEN_COLLECTIVE_TIMEOUT="3s")
    assert session.wait_for_step(tmp_path / "t", 2)
    session.processes[1].send_signal(signal.SIGSTOP)
    try:
        for rank in (0, 2):
            said, _ = session.processes[rank].communicate(timeout=60)
            assert session.processes[rank].returncode == STOPPED, said
            if rank == 0:
                assert "process 1 of this training has ended, or hangs" in said
    finally:
        session.processes[1].kill()
        session.wait()


@pytest.mark.parametrize(
    ("kind", "code", "said"),
    [
        ("one finishes", 0, "finished: 3 steps, ended by what one process found"),
        ("one leaves", STOPPED, "stopped by the loop of process 1, which was left, after step 3: everything is saved"),
        ("one logs a word", 2, "process 1: run.log(loss=...): this is no number"),
        ("one cannot read", 12, "process 1: sample "),
    ],
)
def test_what_only_one_process_does_ends_all_of_them_alike_and_is_said_once(
    tmp_path: Path, kind: str, code: int, said: str
) -> None:
    sessions = run_together(loop(tmp_path), 3, KIND=kind, UNBROKEN_COLLECTIVE_TIMEOUT="20s")
    require_ended(sessions, code)
    assert sessions[0].output.count(said) == 1
    assert [each.output for each in sessions[1:]] == ["", ""]


@pytest.mark.parametrize("leaver", [0, 1])
def test_a_loop_that_one_process_leaves_in_mid_step_ends_all_at_once_and_is_named(tmp_path: Path, leaver: int) -> None:
    """The others would wait for its gradients: until they lose patience, which is longer than the test's."""
    sessions = run_together(loop(tmp_path), 3, KIND=f"leaves in mid-step {leaver}")
    assert [each.returncode for each in sessions] == [0 if rank == leaver else STOPPED for rank in range(3)], sessions
    said = f"process {leaver}: step 3: its loop was left in the middle of the step, where the others wait for it"
    assert sessions[0].output.count(said) == (leaver != 0), sessions[0].output
    assert (tmp_path / "t" / "iter_2.pth").exists()


def test_a_signal_that_comes_while_they_agree_stops_all_at_the_next_boundary(tmp_path: Path) -> None:
    """What the process had to say in that agreement was said by then."""
    sessions = run_together(loop(tmp_path), 2, KIND="asked while they agree")
    require_ended(sessions, STOPPED)
    assert "stopped by SIGTERM after step 4: everything is saved" in sessions[0].output


def test_a_wrapper_that_is_made_in_the_loop_adds_gradients_up_like_one_that_was_there_before(tmp_path: Path) -> None:
    """Of batches of 13 samples two processes have 6 and 7: its own mean would be that over processes."""
    for kind in ("wrapped before", "wrapped in the loop"):
        require_ended(run_together(loop(tmp_path / kind), 2, KIND=kind, BATCH="13"), 0)
    assert_twins(tmp_path / "wrapped in the loop" / "t", tmp_path / "wrapped before" / "t", LAST)


def test_a_program_that_opens_one_run_after_another_is_several_processes_in_each(tmp_path: Path) -> None:
    sessions = run_together(loop(tmp_path), 2, KIND="two runs")
    require_ended(sessions, 0)
    assert (tmp_path / "t" / LAST).exists() and (tmp_path / "second" / "t" / LAST).exists()


def test_processes_that_do_not_share_their_gradients_are_told_so_after_the_first_step(tmp_path: Path) -> None:
    sessions = run_together(loop(tmp_path), 2, KIND="forgotten")
    require_ended(sessions, 2)
    assert "after it the weights of process 1 are not those of process 0" in sessions[0].output
    assert "DistributedDataParallel" in sessions[0].output
    assert not list((tmp_path / "t").glob("*.pth"))


def test_processes_that_begin_with_other_weights_are_refused_before_the_first_step(tmp_path: Path) -> None:
    sessions = run_together(loop(tmp_path), 2, KIND="other seeds")
    require_ended(sessions, 2)
    assert "begins with other weights than process" in sessions[0].output
    assert not (tmp_path / "t").exists()


def test_parts_that_one_process_alone_tracks_are_named_before_the_first_step(tmp_path: Path) -> None:
    sessions = run_together(loop(tmp_path), 2, KIND="one tracks", UNBROKEN_COLLECTIVE_TIMEOUT="10s")
    require_ended(sessions, 2)
    assert "tracks other parts than process 0" in sessions[0].output
    assert "found model, optimizer in one of them alone" in sessions[0].output
    assert not (tmp_path / "t").exists()


def test_other_batches_in_one_process_are_refused_before_the_first_step(tmp_path: Path) -> None:
    """Its part would be of other samples than those that rank 0 counts."""
    sessions = run_together(loop(tmp_path), 2, KIND="other batches", UNBROKEN_COLLECTIVE_TIMEOUT="10s")
    require_ended(sessions, 2)
    assert "process 1 asks for other batches than process 0" in sessions[0].output
    assert "found batch_size 10 and 12" in sessions[0].output
    assert not (tmp_path / "t").exists()


def test_generators_that_begin_otherwise_in_each_process_are_refused_where_nothing_seeds_them(tmp_path: Path) -> None:
    sessions = run_together(loop(tmp_path), 2, KIND="own generators")
    require_ended(sessions, 2)
    assert "begins with other random numbers than process 0" in sessions[0].output
    assert "other values in generator, of_numpy" in sessions[0].output
    assert not (tmp_path / "t").exists()


def test_a_model_that_the_first_fsdp_shards_is_refused_with_what_takes_its_place(tmp_path: Path) -> None:
    sessions = run_together(loop(tmp_path), 2, KIND="sharded")
    require_ended(sessions, 2)
    assert "FullyShardedDataParallel" in sessions[0].output and "fully_shard" in sessions[0].output


def test_a_batch_that_is_too_small_to_be_shared_is_refused_with_the_number_that_would_do(tmp_path: Path) -> None:
    sessions = run_together(loop(tmp_path), 4, BATCH="3")
    require_ended(sessions, 2)
    assert "at most 3 processes, or a larger batch" in sessions[0].output


def test_a_refusal_is_said_once_and_every_process_ends_with_its_exit_code(tmp_path: Path) -> None:
    require_ended(run_together(loop(tmp_path), 1), 0)
    for path in (tmp_path / "t").glob("*.pth"):
        path.write_bytes(path.read_bytes()[:-100])
    sessions = run_together(loop(tmp_path), 3)
    require_ended(sessions, 12)
    assert sessions[0].output.count("REFUSE") == 1
    assert [each.output for each in sessions[1:]] == ["", ""]
