"""At every request to the disk that a save of shards makes, a kill leaves the state before or the new one, whole.

One process has all the shards, on the disk of the tests; what several leave is killed for real in tests/twin.
"""

from __future__ import annotations

import errno
import gc
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import fully_shard

from tests.crash.faulty_disk import Crash, FaultyDisk, UnsyncedDisk
from tests.crash.sessions import RUN, Noisy, job_in, start_session
from tests.hidden import APPS, TESTS, hidden
from unbroken.checkpoint.sharded import HEAD, is_sharded
from unbroken.checkpoint.stamp import checked_stamp
from unbroken.checkpoint.structure import read_structure
from unbroken.errors import DamagedFile
from unbroken.journal.events import FileSaved
from unbroken.run.layout import ITERATIONS
from unbroken.run.survey import survey
from unbroken.storage import Disk
from unbroken.train import differences, read_checkpoint
from unbroken.train.loop.training_run import TrainingRun

STEPS, LOOKED_AT = 2, 15  # of the requests; all of them took minutes
SEED = 7
LAST = f"{RUN}/iter_{STEPS}.dcp"


@pytest.fixture(scope="module", autouse=True)
def alone() -> Iterator[None]:
    """A process group of this process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def train(root: Path, disk: Disk, *, day: int) -> None:
    """One session to its end."""
    with hidden(TESTS), hidden(APPS):
        _loop(start_session(job_in(root), disk, day=day))


def _loop(session: TrainingRun) -> None:
    with session as run:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.3), nn.Linear(3, 1))
        fully_shard(model)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        run.track(model=model, optimizer=optimizer)
        for batch in run.batches(Noisy(), batch_size=4, steps=STEPS, evaluate=lambda: {"score": 1.0}, evaluate_every=2):
            loss = model(batch).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)


def test_a_kill_at_any_request_leaves_the_state_before_or_the_new_one_and_the_same_end(tmp_path: Path) -> None:
    peace = tmp_path / "peace"
    recorded = FaultyDisk()
    train(peace, recorded, day=1)
    chance = random.Random(SEED)
    print("seed", SEED)
    asked = {n: request for n, request in enumerate(recorded.requests) if ".dcp" in str(request.path)}
    acts = [number for number, request in asked.items() if request.kind != "write"]  # of which there are two saves
    writes = chance.sample([*asked.keys() - set(acts)], 3)
    for count, number in enumerate(sorted([*chance.sample(acts, LOOKED_AT - len(writes)), *writes])):
        root = tmp_path / "killed"
        disk = FaultyDisk(crash_at=number, when="torn")
        with pytest.raises(Crash):
            train(root, disk, day=1)
        disk.bury()
        gc.collect()  # lets go of the lock, as the death of a process does
        found = survey(root / RUN, ITERATIONS)
        saved = any(isinstance(event, FileSaved) for event in found.events)
        newest = found.newest_good
        assert newest is not None or not saved, recorded.requests[number]
        assert all(item.state != "damaged" for item in found.candidates), recorded.requests[number]
        if count % 5 == 0:  # to the end costs more than a look
            train(root, UnsyncedDisk(), day=2)
            assert differences(read_checkpoint(root / LAST), read_checkpoint(peace / LAST)) == []
            assert all(is_sharded(path) and len([*path.iterdir()]) == 2 for path in (root / RUN).glob("*.dcp"))
        shutil.rmtree(root)


@pytest.mark.parametrize("lie", ["size", "file", "place", "offsets", "nothing", "kind"])
def test_a_head_that_lies_about_its_shards_is_damage_and_nothing_it_claims_is_made(tmp_path: Path, lie: str) -> None:
    train(tmp_path, UnsyncedDisk(), day=1)
    head = tmp_path / LAST / HEAD
    tree = torch.load(head, weights_only=True)
    said, name = tree["unbroken"], "states.model.0.weight"
    match lie:
        case "size":
            tree["state_dict"]["0.weight"]["shape"] = [1 << 20, 1 << 20]
        case "file":
            said["chunks"][name][0][0] = "../../../etc/passwd"
        case "place":
            said["chunks"][name][0][1] = 1 << 40
        case "offsets":
            said["chunks"][name][0][3] = [100, 100]
        case "nothing":
            del said["chunks"][name]
        case "kind":
            said["shard_files"] = {"../other/__0_0.distcp": [1, "sha256:" + "0" * 64]}
    torch.save(tree, head)
    with pytest.raises(DamagedFile):
        read_checkpoint(tmp_path / LAST)
        if lie == "kind":  # what is read is what is named, all of it below the folder
            checked_stamp(read_structure(tmp_path / LAST))


def test_a_disk_that_refuses_a_shard_is_said_and_the_next_save_goes_on(tmp_path: Path) -> None:
    recorded = FaultyDisk()
    train(tmp_path / "peace", recorded, day=1)
    number = [n for n, request in enumerate(recorded.requests) if request.path.suffix == ".distcp"][20]  # of its writes
    train(tmp_path / "full", FaultyDisk(fail_at=number, errno=errno.ENOSPC), day=1)
    (log,) = (tmp_path / "full" / RUN).glob("*/*.log")
    assert "SAVE FAILED at step 2: No space left on device" in log.read_text()
    assert (tmp_path / "full" / LAST / HEAD).exists()
