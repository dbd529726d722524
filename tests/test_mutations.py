"""A few spoiled files of every kind: benchmarks/mutations.py does the same with thousands."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from benchmarks.mutations import KINDS, check

SEED = int(os.environ.get("MUTATION_SEED", "1"))
COUNT, COMMANDS = 40, 8


@pytest.fixture(autouse=True)
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNBROKEN_CACHE", str(tmp_path / "cache"))
    threads, streams = torch.get_num_threads(), torch.get_rng_state()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(streams)


@pytest.mark.parametrize("kind", KINDS)
def test_a_spoiled_file_is_read_or_refused_in_time_and_in_memory(tmp_path: Path, kind: str) -> None:
    print(f"python benchmarks/mutations.py --kind {kind} --seed {SEED} --count {COUNT} --commands {COMMANDS}")
    tally = check(kind, home=tmp_path / "home", count=COUNT, seed=SEED, commands=COMMANDS)
    assert not tally.failures, "\n".join(
        f"number {each['number']} by {each['by']}: {each['what']}" for each in tally.failures
    )
    assert tally.cases == COUNT
