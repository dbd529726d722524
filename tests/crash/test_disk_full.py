"""A disk that is full or failing: a clear refusal, nothing lost, and the next launch continues."""

from __future__ import annotations

import errno
import random
from pathlib import Path

import pytest

from tests.crash.faulty_disk import FaultyDisk, UnsyncedDisk
from tests.crash.remains import Image, lay_out, look
from tests.crash.sessions import RUN, STEPS, Session, job_in, start_session, train
from tests.twin.killing import differences
from unbroken.checkpoint.verify import verify_file
from unbroken.errors import Refused
from unbroken.launch import Fresh, Resume, decide, gather
from unbroken.train.serialise import read_tree

SEED = 7


def saving(session: Session) -> range:
    """The requests of the save of step 6, from its first write to the end of its retention."""
    first = session.first("create", "iter_6.pth.partial")
    return range(
        first, next(n for n in range(first, len(session.requests)) if session.requests[n].kind == "remove") + 4
    )


def run_into(session: Session, root: Path, disk: FaultyDisk, *, begins: bool = False) -> Refused:
    """Train until the disk gives its error; the refusal that a person gets to see, all files closed."""
    lay_out(session.before, root)
    with pytest.raises(Refused) as raised:
        train(job_in(root), disk, day=2)
    assert not disk.open_files or begins, "a file was left open"
    return raised.value


def checkpoints(image: Image) -> dict[str, object]:
    return {name: content for name, content in image.items() if Path(name).match("iter_*.pth")}


@pytest.mark.parametrize("stays_full", [False, True], ids=["for a moment", "for good"])
def test_a_full_disk_at_any_request_of_a_save_is_explained_and_costs_no_checkpoint(
    sessions: dict[str, Session], tmp_path: Path, *, stays_full: bool
) -> None:
    session, tried = sessions["resume"], 0
    for number in saving(session):
        request = session.requests[number]
        if request.kind not in FaultyDisk.NEEDS_SPACE or request.path.suffix == ".log" or request.kind == "link":
            continue
        tried += 1
        root = tmp_path / str(number)
        refused = run_into(session, root, FaultyDisk(fail_at=number, errno=errno.ENOSPC, stays_full=stays_full))
        words = str(refused)
        assert "No space left on device" in words and "bytes free" in words and "Make room" in words, words
        left = look(root)
        assert f"{RUN}/iter_4.pth" in left and len(checkpoints(left)) >= 2, request
        assert not [name for name in left if name.endswith(".partial")], request
        assert all(verify_file(root / name).state == "good" for name in checkpoints(left))
        plan = decide(job_in(root), gather(job_in(root)))
        assert isinstance(plan, Resume) and plan.source.step >= 4, request
    print(f"{tried} requests that need space")
    assert tried > 100


def test_a_medium_that_fails_to_sync_is_explained_and_the_unsynced_file_never_gets_its_name(
    sessions: dict[str, Session], tmp_path: Path
) -> None:
    session = sessions["resume"]
    for number in saving(session):
        request = session.requests[number]
        if request.kind not in ("sync", "rename", "close") or request.path.suffix == ".log":
            continue
        if request.path.name == "latest.pth.partial":
            continue
        root = tmp_path / str(number)
        refused = run_into(session, root, FaultyDisk(fail_at=number, errno=errno.EIO))
        assert "Input/output error" in str(refused), request
        left = look(root)
        assert not [name for name in left if name.endswith(".partial")], request
        if request.path.name == "iter_6.pth.partial":
            assert f"{RUN}/iter_6.pth" not in left, request
        plan = decide(job_in(root), gather(job_in(root)))
        assert isinstance(plan, Resume) and plan.source.step >= 4, request


def test_after_room_was_made_the_training_ends_bit_for_bit_as_if_nothing_had_happened(
    sessions: dict[str, Session], tmp_path: Path
) -> None:
    print(f"seed {SEED}")
    session = sessions["resume"]
    space = [n for n in saving(session) if session.requests[n].kind in ("write", "sync", "create")]
    space = [n for n in space if session.requests[n].path.suffix != ".log"]
    for number in random.Random(SEED).sample(space, 6):
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
