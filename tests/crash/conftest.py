"""The recorded sessions, one of each kind that changes a run's folder."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.crash.faulty_disk import UnsyncedDisk
from tests.crash.remains import Image, lay_out
from tests.crash.sessions import RUN, Session, damaged, job_in, record, train
from unbroken.launch import Start


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def sessions(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> dict[str, Session]:
    folder = tmp_path_factory.mktemp("recorded-", numbered=False)
    # What a first training imports is in the record of the second one's program: those that are recorded are all later.
    train(job_in(tmp_path_factory.mktemp("imports")), UnsyncedDisk(), day=1)
    first = record("first", folder, day=1)
    saving_6 = first.at(first.first("create", "iter_6.pth.partial") + 30)
    saved_4, saved_6 = (first.at(first.first("create", f"iter_{step}.pth.partial") - 4) for step in (6, 8))
    assert {f"{RUN}/iter_4.pth", f"{RUN}/iter_6.pth"} <= saved_6.keys()
    whole = first.after
    found = [
        first,
        record("resume", folder, day=2, before=saving_6, floor=4),
        record("fresh", folder, day=2, before=whole, start=Start(fresh=True), again=Start()),
        record("fresh twice", folder, day=2, before=whole, start=Start(fresh=True)),
        record("set aside", folder, day=2, before=damaged(saved_6, f"{RUN}/iter_6.pth"), floor=4),
        record("step back", folder, day=2, before=whole, start=Start(exact=Path("iter_6.pth")), again=Start(), floor=6),
        record("copy", folder, day=2, start=_elsewhere(folder / "mounted 6", saved_6), floor=6),
        record(
            "copy over damage",
            folder,
            day=3,
            before=damaged(damaged(saved_6, f"{RUN}/iter_6.pth"), f"{RUN}/iter_4.pth"),
            start=_elsewhere(folder / "mounted 4", saved_4),
            floor=4,
        ),
    ]
    gc.collect()
    gc.freeze()  # thousands of requests and all that was imported: hundreds of trainings would look at them again
    return {session.name: session for session in found}


def _elsewhere(folder: Path, image: Image) -> Start:
    """A folder with a copy of the run, as notebooks mount one."""
    lay_out(image, folder)
    return Start(search=(folder,))
