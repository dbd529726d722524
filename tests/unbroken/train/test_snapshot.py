"""The copy that a save takes and the file that is written out of it: torch reads each tensor as it was."""

from __future__ import annotations

import resource
import subprocess
import sys
import threading
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.unbroken.train.test_saves_beside import EVERY_SECOND, Listener, job
from unbroken.checkpoint.verify import verify_file
from unbroken.checkpoint.zip_layout import ALIGNMENT, BLOCK_BYTES
from unbroken.storage import Disk
from unbroken.train import launch, read_checkpoint
from unbroken.train.memory import free_bytes
from unbroken.train.state.serialise import read_tree, write_tree
from unbroken.train.state.snapshot import Snapshots


def odd_tensors() -> dict[str, Any]:
    """Tensors of all kinds of numbers and of all ways to look at memory."""
    torch.manual_seed(3)
    weight = torch.randn(30, 20)
    kinds = (torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.int8, torch.uint16, torch.bool)
    return {
        **{str(kind): torch.randn(7).mul(9).abs().to(kind) for kind in kinds},
        "channels last": torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
        "of one pixel": torch.randn(8, 4, 1, 1).to(memory_format=torch.channels_last),
        "weight": weight,
        "tied": weight.detach(),
        "turned": weight.t(),
        "expanded": torch.randn(1, 4).expand(3, 4),
        "a part": weight[3:5, ::2],
        "empty": torch.empty(0, 3),
        "a number": torch.tensor(float("nan")),
        "mirrored": torch.randn(4, dtype=torch.complex64).conj(),
        "negated": torch.randn(4, dtype=torch.complex64).conj().imag,
        "large": torch.randn(BLOCK_BYTES // 4 + 5),
        "parameter": nn.Parameter(torch.randn(3)),
        "other": OrderedDict(a=[1, (2, "x", None)], b=Counter({3: 1})),
    }


def bits(tensor: torch.Tensor) -> bytes:
    whole = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return bytes(whole.reshape(-1).view(torch.uint8).numpy()) if whole.numel() else b""


def written(path: Path, tree: dict[str, Any], snapshots: Snapshots | None) -> Path:
    with path.open("wb", buffering=0) as file:
        if snapshots is None:
            write_tree(file, tree)
        else:
            write_tree(file, *snapshots.take(tree))
    return path


@pytest.mark.parametrize("way", ["at once", "a snapshot", "the same memory again"])
def test_torch_and_our_reader_find_each_tensor_as_it_was_and_can_map_the_file(tmp_path: Path, way: str) -> None:
    tree, snapshots = odd_tensors(), Snapshots() if way != "at once" else None
    if way == "the same memory again":
        written(tmp_path / "before.pth", {name: item for name, item in tree.items() if name < "n"}, snapshots)
    path = written(tmp_path / "x.pth", tree, snapshots)
    mapped = torch.load(path, mmap=True, weights_only=True)
    for found in (torch.load(path, weights_only=True), mapped, read_tree(path)):
        assert list(found) == list(tree) and found["other"] == tree["other"]
        for name, tensor in tree.items():
            if isinstance(tensor, torch.Tensor):
                assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
                assert found[name].stride() == tensor.detach().clone().stride() or not tensor.numel(), name
                assert bits(found[name]) == bits(tensor), name
    assert not [name for name, each in mapped.items() if isinstance(each, torch.Tensor) and each.data_ptr() % ALIGNMENT]
    assert verify_file(path).state == "good"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        stored = [name for name in archive.namelist() if "/data/" in name]
    assert len(stored) == sum(isinstance(each, torch.Tensor) for each in tree.values()) - 1, "what is tied is kept once"


def test_a_file_is_the_same_whether_a_snapshot_was_taken_or_not(tmp_path: Path) -> None:
    tree = {"a": torch.randn(5), "b": [torch.randn(2, 3)], "n": 4}
    written(tmp_path / "a.pth", tree, None)
    written(tmp_path / "b.pth", tree, Snapshots())
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_a_copy_stays_while_every_tensor_is_overwritten_and_serves_only_what_is_still_as_it_was() -> None:
    tree, snapshots = {"w": torch.randn(50), "m": [torch.randn(7)]}, Snapshots()
    before = bits(tree["w"])
    kept, _ = snapshots.take(tree)
    again = snapshots.again({"only": tree["w"]})
    assert again is not None and again["only"] is kept["w"]
    tree["w"].data[3] += 1  # which counts no version
    assert bits(kept["w"]) == before
    assert snapshots.again({"only": tree["w"]}) is None
    assert snapshots.again({"moment": tree["m"][0]}) is not None


def test_the_second_copy_takes_no_memory_of_its_own() -> None:
    tree, snapshots = {"w": torch.randn(1000)}, Snapshots()
    first, _ = snapshots.take(tree)
    place = first["w"].data_ptr()
    second, _ = snapshots.take({"w": tree["w"] + 1})
    assert second["w"].data_ptr() == place, "another tensor, and the same memory"
    third, _ = snapshots.take({"w": torch.randn(2000)})
    assert bits(third["w"]) != b"" and third["w"].shape == (2000,)


class HeldDisk(Disk):
    """A disk that keeps each checkpoint waiting until it is let go."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def create(self, path: Path) -> Any:
        if path.name == "iter_2.pth.partial":
            self.begun.set()
            assert self.go_on.wait(60)
        return super().create(path)


def test_every_number_overwritten_right_after_the_call_leaves_the_file_unchanged(tmp_path: Path) -> None:
    disk, expected = HeldDisk(), dict[str, bytes]()
    with launch(job(tmp_path), console=Listener(), disk=disk, options=EVERY_SECOND) as run:
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        held = {"mean": torch.zeros(5)}
        run.track(model=model, optimizer=optimizer, held=held)
        for done in run.steps(3):
            if done == 2:  # the save of step 2 is under way, and nothing of it is written
                assert disk.begun.wait(60)
                state = {**model.state_dict(), "mean": held["mean"]}
                state |= {f"{at}": each["exp_avg"] for at, each in enumerate(optimizer.state.values())}
                expected = {name: bits(tensor) for name, tensor in state.items()}
                for tensor in state.values():
                    tensor.data.fill_(7)
                disk.go_on.set()
                run.wait_for_saves()
            model(torch.randn(4, 4)).square().mean().backward()
            optimizer.step()
            held["mean"] += 1
    saved = read_checkpoint(tmp_path / "beside" / "iter_2.pth")
    found = {**saved["state_dict"], "mean": saved["unbroken"]["parts"]["held"]["mean"]}
    found |= {f"{at}": each["exp_avg"] for at, each in saved["optimizer"]["state"].items()}
    assert {name: bits(tensor) for name, tensor in found.items()} == expected


def test_where_no_memory_is_left_for_a_copy_the_training_waits_says_so_once_and_saves_the_same(tmp_path: Path) -> None:
    listener = Listener()
    with launch(job(tmp_path), console=listener, options=EVERY_SECOND) as run:
        model = nn.Linear(1000, 1000)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run.track(model=model, optimizer=optimizer, held={"large": torch.zeros(64 << 20, dtype=torch.uint8)})
        limits = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        try:
            for _ in run.steps(5):
                resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20), limits[1]))
                model(torch.ones(1, 1000)).mean().backward()
                optimizer.step()
                optimizer.zero_grad()
        finally:
            resource.setrlimit(resource.RLIMIT_AS, limits)
    said = [line for line in listener.lines if "the training waits until each save is written" in line]
    assert len(said) == 1 and "a copy of the state takes 75.6 MB of memory" in said[0], listener.lines
    saved = read_checkpoint(tmp_path / "beside" / "iter_5.pth")
    assert torch.equal(saved["state_dict"]["weight"], model.weight.detach())


def test_what_is_free_is_what_host_and_container_leave(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) is None
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 900 kB\nMemAvailable:   400 kB\n")
    assert free_bytes(tmp_path) == 400 << 10
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("1000\n")
    assert free_bytes(tmp_path) == 400 << 10, "no limit"
    (group / "memory.max").write_text("9000\n")
    (group / "memory.stat").write_text("anon 100\nfile 500\n")
    assert free_bytes(tmp_path) == 8500
    assert (free_bytes() or 1) > 0


def test_a_snapshot_is_not_copied_into_children(tmp_path: Path) -> None:
    program = (
        "import os, torch\n"
        "from unbroken.train.state.snapshot import Snapshots\n"
        "snapshots = Snapshots(); tree, _ = snapshots.take({'w': torch.ones(1 << 20)})\n"
        "place = '%x-' % (tree['w'].data_ptr() // 4096 * 4096)\n"
        "has = lambda: any(line.startswith(place[:-4]) for line in open('/proc/self/maps'))\n"
        "child = os.fork()\n"
        "if not child: os._exit(has())\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=True).returncode == 0
