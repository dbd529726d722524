"""A disk that is full or failing: the training outlasts it or ends with a clear word, and nothing is lost."""

from __future__ import annotations

import errno
import gc
import random
from pathlib import Path

import pytest

from tests.crash.faulty_disk import Crash, FaultyDisk, UnsyncedDisk
from tests.crash.remains import Image, lay_out, look
from tests.crash.sessions import RUN, STEPS, Session, job_in, start_session, train
from tests.twin.killing import differences, step_records
from unbroken.checkpoint.verify import verify_file
from unbroken.errors import Refused, SaveFailed, UnbrokenError
from unbroken.launch import Fresh, Resume, decide, gather
from unbroken.train.state.serialise import read_tree

SEED = 7


def saving(session: Session) -> range:
    """The requests of the save of step 6, from its first write to the end of its retention."""
    first = session.first("create", "iter_6.pth.partial")
    return range(
        first, next(n for n in range(first, len(session.requests)) if session.requests[n].kind == "remove") + 2
    )


def run_into(session: Session, root: Path, disk: FaultyDisk, *, begins: bool = False) -> UnbrokenError:
    """Train until the disk ends it; what a person gets to see, all files closed."""
    lay_out(session.before, root)
    with pytest.raises(Refused if begins else SaveFailed) as raised:
        train(job_in(root), disk, day=2)
    assert not disk.open_files or begins, "a file was left open"
    return raised.value


def requests_for_space(session: Session) -> list[int]:
    """Those of the save of step 6, but for the readable log and the pointer, which may fail without a word."""
    return [
        number
        for number in saving(session)
        if session.requests[number].kind in FaultyDisk.NEEDS_SPACE - {"link"}
        and session.requests[number].path.suffix != ".log"
    ]


def checkpoints(image: Image) -> dict[str, object]:
    return {name: content for name, content in image.items() if Path(name).match("iter_*.pth")}


def test_a_disk_that_stays_full_from_any_request_of_a_save_on_ends_the_training_and_costs_no_checkpoint(
    sessions: dict[str, Session], tmp_path: Path
) -> None:
    session = sessions["resume"]
    numbers = requests_for_space(session)
    for number in numbers:
        request, root = session.requests[number], tmp_path / str(number)
        failed = run_into(session, root, FaultyDisk(fail_at=number, errno=errno.ENOSPC, stays_full=True))
        words = str(failed)
        assert "No space left on device" in words and "Make room" in words, words
        left = look(root)
        assert checkpoints(left), request
        assert not [name for name in left if name.endswith(".partial")], request
        assert all(verify_file(root / name).state == "good" for name in checkpoints(left))
        plan = decide(job_in(root), gather(job_in(root)))
        assert isinstance(plan, Resume) and plan.source.step >= 4, request
    print(f"{len(numbers)} requests that need space")
    assert len(numbers) > 30


@pytest.mark.parametrize("kind", ["space", "medium"])
def test_a_trouble_at_any_request_of_a_save_that_passes_is_survived_bit_for_bit(
    sessions: dict[str, Session], tmp_path: Path, kind: str
) -> None:
    session, whole = sessions["resume"], sessions["first"].root / RUN
    numbers = requests_for_space(session)
    if kind == "medium":
        kinds = ("sync", "rename", "close")
        numbers = [n for n in saving(session) if session.requests[n].kind in kinds]
        numbers = [n for n in numbers if session.requests[n].path.name != "latest.pth.partial"]
    else:
        print(f"seed {SEED}")
        numbers = random.Random(SEED).sample(numbers, min(40, len(numbers)))
    for number in numbers:
        request, root = session.requests[number], tmp_path / str(number)
        lay_out(session.before, root)
        disk = FaultyDisk(fail_at=number, errno=errno.ENOSPC if kind == "space" else errno.EIO)
        train(job_in(root), disk, day=2)
        assert not disk.open_files, request
        left = look(root)
        assert not [name for name in left if name.endswith(".partial")], request
        assert all(verify_file(root / name).state == "good" for name in checkpoints(left)), request
        name = f"iter_{STEPS}.pth"
        assert differences(read_tree(root / RUN / name), read_tree(whole / name)) == [], request
        assert step_records(root / RUN) == step_records(whole), request


def test_a_kill_at_any_request_on_a_full_disk_leaves_a_verified_checkpoint(
    sessions: dict[str, Session], tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    session, chance = sessions["resume"], random.Random(SEED)
    space, killed = requests_for_space(session), 0
    for turn in range(60):
        root, full = tmp_path / str(turn), chance.choice(space)
        lay_out(session.before, root)
        disk = FaultyDisk(
            fail_at=full,
            errno=errno.ENOSPC,
            stays_full=True,
            crash_at=full + chance.randrange(1, 120),
        )
        with pytest.raises((Crash, SaveFailed)):
            train(job_in(root), disk, day=2)
        killed += disk.dead
        disk.bury()
        gc.collect()  # lets go of the lock, as the death of a process does
        assert any(verify_file(root / name).state == "good" for name in checkpoints(look(root))), turn
        plan = decide(job_in(root), gather(job_in(root)))
        assert isinstance(plan, Resume) and plan.source.step >= 4, turn
    print(f"{killed} of 60 were killed while the disk was full")
    assert killed > 40


def test_after_room_was_made_the_training_ends_bit_for_bit_as_if_nothing_had_happened(
    sessions: dict[str, Session], tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    session = sessions["resume"]
    for number in random.Random(SEED).sample(requests_for_space(session), 6):
        root = tmp_path / str(number)
        run_into(session, root, FaultyDisk(fail_at=number, errno=errno.ENOSPC, stays_full=True))
        train(job_in(root), UnsyncedDisk(), day=3)
        name = f"iter_{STEPS}.pth"
        assert differences(read_tree(root / RUN / name), read_tree(sessions["first"].root / RUN / name)) == []


def test_a_launch_on_a_full_disk_is_explained_and_holds_no_lock_afterwards(
    sessions: dict[str, Session], tmp_path: Path
) -> None:
    session = sessions["first"]
    begun = session.first("open_append", ".log")
    for number in range(begun):
        if session.requests[number].kind not in ("write", "sync", "create", "open_append"):
            continue
        root = tmp_path / str(number)
        run_into(session, root, FaultyDisk(fail_at=number, errno=errno.ENOSPC, stays_full=True), begins=True)
        with start_session(job_in(root), UnsyncedDisk(), day=3) as run:
            assert isinstance(run.plan, Fresh)


def test_a_pointer_that_cannot_be_written_stops_nothing(sessions: dict[str, Session], tmp_path: Path) -> None:
    session = sessions["first"]
    lay_out({}, tmp_path / "x")
    disk = FaultyDisk(fail_at=session.first("link", "iter_4.pth"), errno=errno.ENOSPC)
    train(job_in(tmp_path / "x"), disk, day=1)
    assert f"{RUN}/iter_{STEPS}.pth" in look(tmp_path / "x")
