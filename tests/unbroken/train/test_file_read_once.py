"""A resume reads the checkpoint once: what was verified is what is loaded."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.unbroken.train.test_saves_beside import Listener
from unbroken.checkpoint.kept import KEEPER, keeping_what_is_verified, kept_of
from unbroken.run import look_at
from unbroken.run.layout import manifests
from unbroken.train import open_run

STATE_BYTES = 24_000_000


def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
    model = nn.Sequential(nn.Linear(1000, 1000), nn.Linear(1000, 1000))
    return model, torch.optim.AdamW(model.parameters())


def train(folder: Path, steps: int) -> tuple[nn.Module, torch.optim.Optimizer]:
    model, optimizer = parts()
    with open_run(folder, tag="x", save_every_s=None, console=Listener()) as run:
        run.track(model=model, optimizer=optimizer)
        for step in run.steps(9):
            if step == steps:
                break
            model(torch.ones(1, 1000)).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    return model, optimizer


def bytes_read() -> int:
    """What this process has asked files for so far, from the medium or from memory."""
    return int(dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())["rchar"])


def test_from_opening_a_run_to_its_first_batch_the_checkpoint_is_read_once(tmp_path: Path) -> None:
    before, optimizer = train(tmp_path, 2)
    size = (tmp_path / "x/iter_2.pth").stat().st_size
    assert size > STATE_BYTES
    model, moments = parts()
    began = bytes_read()
    with open_run(tmp_path, tag="x", save_every_s=None, console=Listener()) as run:
        run.track(model=model, optimizer=moments)
        for step in run.steps(9):
            read = bytes_read() - began
            # Once, and not twice: beside it the files of the program are read, of a large suite some MB.
            assert step == 2 and size <= read <= 1.5 * size, f"{read:,} bytes read of a file of {size:,}"
            break
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before.parameters()))
    states = zip(moments.state.values(), optimizer.state.values())
    assert all(torch.equal(one[key], other[key]) for one, other in states for key in other)
    assert not KEEPER.found and KEEPER.most_bytes == 0, "nothing stays in memory"


def test_what_a_launch_keeps_is_the_file_as_it_was_verified_and_nothing_where_it_is_another_by_then(
    tmp_path: Path,
) -> None:
    train(tmp_path, 2)
    path, listed = tmp_path / "x/iter_2.pth", manifests(tmp_path / "x")
    assert look_at(path, listed).state == "good" and kept_of(path) is None, "who only looks keeps nothing"
    with keeping_what_is_verified(path.stat().st_size - 1):
        assert look_at(path, listed).state == "good" and kept_of(path) is None, "too large"
    with keeping_what_is_verified(None):
        assert look_at(path, listed).state == "good"
        kept = kept_of(path)
        assert kept is not None and zlib.crc32(kept.memory) == zlib.crc32(path.read_bytes())
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        assert kept_of(path) is None
        assert look_at(path, listed).state == "damaged" and not KEEPER.found


@pytest.mark.parametrize("how", ["no manifest", "a link", "an older digest"])
def test_other_files_are_resumed_from_as_well(tmp_path: Path, how: str) -> None:
    before, _ = train(tmp_path, 2)
    path, manifest = tmp_path / "x/iter_2.pth", manifests(tmp_path / "x") / "iter_2.pth.json"
    match how:
        case "no manifest":
            manifest.unlink()
        case "a link":
            path.rename(tmp_path / "elsewhere.pth")
            path.symlink_to(tmp_path / "elsewhere.pth")
        case _:
            import hashlib
            import json

            data = json.loads(manifest.read_text())
            del data["digest"]
            manifest.write_text(json.dumps({**data, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))
    model, optimizer = parts()
    with open_run(tmp_path, tag="x", save_every_s=None, console=Listener()) as run:
        run.track(model=model, optimizer=optimizer)
        assert run.step == 2
        assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before.parameters()))
        for _ in run.steps(9):
            break
