from __future__ import annotations

import collections
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch

from unbroken.checkpoint import FORMAT
from unbroken.checkpoint.structure import (
    StorageReader,
    Structure,
    read_structure,
    tensors,
    weights,
)
from unbroken.checkpoint.tree import Opaque, TensorRef
from unbroken.errors import DamagedFile, UnbrokenError, UsageError
from unbroken.run import look_at


def flat(value: Any, path: tuple[str, ...] = ()) -> dict[str, torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return {".".join(path): value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    return {name: t for key, inner in pairs for name, t in flat(inner, (*path, str(key))).items()}


def raw(tensor: torch.Tensor) -> bytes:
    copy = tensor.detach().clone(memory_format=torch.contiguous_format)
    return bytes(copy.untyped_storage())[: copy.numel() * copy.element_size()]


def numbers(reader: StorageReader, ref: TensorRef) -> torch.Tensor:
    data, dtype = reader.storage(ref.storage_key), getattr(torch, ref.dtype)
    data = data[: len(data) // ref.item_bytes * ref.item_bytes]
    block = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return block.as_strided(ref.shape, ref.stride, ref.offset)


def assert_same_tensors(structure: Structure, loaded: Any) -> None:
    expected = flat(loaded)
    found = dict(tensors(structure))
    assert list(found) == list(expected)
    with StorageReader(structure) as reader:
        for name, ref in found.items():
            tensor = expected[name]
            assert f"torch.{ref.dtype}" == str(tensor.dtype), name
            assert ref.shape == tuple(tensor.shape), name
            assert ref.stride == tensor.stride(), name
            assert ref.requires_grad == tensor.requires_grad, name
            assert raw(numbers(reader, ref)) == raw(tensor), name


# ---- real files


def test_every_tensor_of_a_torch_file_is_the_one_torch_loads(torch_file: Path) -> None:
    structure = read_structure(torch_file)
    assert structure.format == f"torch {torch_file.stem}"
    assert structure.size_bytes == torch_file.stat().st_size
    assert_same_tensors(structure, torch.load(torch_file, weights_only=True))


def test_a_tensor_is_built_again_from_its_storage(torch_file: Path) -> None:
    structure, loaded = read_structure(torch_file), torch.load(torch_file, weights_only=True)
    for name in ("channels_last", "shared_tail", "strided", "bfloat16", "zero_dim"):
        ref, expected = structure.tree["odd"][name], loaded["odd"][name]
        with StorageReader(structure) as reader:
            block = torch.frombuffer(reader.storage(ref.storage_key), dtype=getattr(torch, ref.dtype))
        built = block.as_strided(ref.shape, ref.stride, ref.offset)
        assert built.stride() == expected.stride()
        assert torch.equal(built, expected)


def test_tensors_that_share_memory_name_the_same_storage(torch_file: Path) -> None:
    odd = read_structure(torch_file).tree["odd"]
    assert odd["shared_head"].storage_key == odd["shared_tail"].storage_key == odd["strided"].storage_key
    assert (odd["shared_head"].offset, odd["shared_tail"].offset) == (0, 20)
    assert odd["shared_head"].storage_bytes == 96


def test_plain_values_come_back_as_themselves(torch_file: Path) -> None:
    tree = read_structure(torch_file).tree
    assert tree["plain"]["size"] == (2, 3)
    assert str(tree["plain"]["dtype"]) == "torch.float16"
    assert tree["plain"]["device"] == "cpu"
    assert tree["ordered"] == {"a": 1, "b": [1.5, "x", (True, b"y")]}
    assert tree["optimizer_state"]["param_groups"][0]["betas"] == (0.9, 0.999)
    assert tree["odd"]["parameter"].is_parameter
    assert tree["model_state"].attributes["_metadata"]["1"] == {"version": 2}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("zipped", [True, False])
def test_every_pickle_protocol_of_torch_is_read(tmp_path: Path, protocol: int, zipped: bool) -> None:
    path, tree = tmp_path / "a.pth", {"a": torch.arange(5), "b": [torch.ones(2, 2)]}
    torch.save(tree, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert_same_tensors(read_structure(path), tree)


def test_dtypes_that_torch_itself_cannot_read_back_from_its_legacy_form(tmp_path: Path) -> None:
    path, tree = tmp_path / "a.pth", {"u": torch.tensor([1, 65535], dtype=torch.uint16)}
    torch.save(tree, path, _use_new_zipfile_serialization=False)
    assert_same_tensors(read_structure(path), tree)


@pytest.mark.parametrize("zipped", [True, False])
def test_numpy_values_and_foreign_objects_inside_a_torch_file(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "a.pth"
    tree = {"lr": numpy.float64(0.1), "curve": numpy.arange(3), "when": Path("x"), "w": torch.ones(1)}
    torch.save(tree, path, _use_new_zipfile_serialization=zipped)
    found = read_structure(path).tree
    assert found["lr"] == 0.1
    assert found["curve"].data == numpy.arange(3).tobytes()
    assert isinstance(found["when"], Opaque)


def test_tensors_that_would_be_wrong_as_they_lie_stay_shut(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"conj": torch.ones(2, dtype=torch.complex64).conj(), "sparse": torch.eye(2).to_sparse()}, path)
    assert all(isinstance(value, Opaque) for value in read_structure(path).tree.values())


def test_tensors_with_python_attributes_count_as_tensors(tmp_path: Path) -> None:
    path, tensor = tmp_path / "a.pth", torch.ones(2)
    tensor.note = "x"  # type: ignore[attr-defined]
    torch.save([tensor], path)
    assert isinstance(read_structure(path).tree[0], TensorRef)


def test_a_file_written_without_checksums_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.arange(3)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert_same_tensors(read_structure(path), {"a": torch.arange(3)})


def test_a_file_that_was_packed_again_with_compression_is_read(tmp_path: Path) -> None:
    path, packed, tree = tmp_path / "a.pth", tmp_path / "b.pth", {"a": torch.zeros(5000), "b": torch.randn(9)}
    torch.save(tree, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    assert_same_tensors(read_structure(packed), tree)


def test_a_big_endian_file_is_turned_round(tmp_path: Path) -> None:
    path, other = tmp_path / "a.pth", tmp_path / "b.pth"
    tree = {"f": torch.randn(3), "h": torch.randn(3).half(), "c": torch.randn(2, dtype=torch.complex64)}
    torch.save(tree, path)
    widths = {"0": "f4", "1": "f2", "2": "f4"}
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("byteorder"):
                data = b"big"
            elif "/data/" in name:
                data = numpy.frombuffer(data, widths[name[-1]]).byteswap().tobytes()
            new.writestr(name, data)
    assert_same_tensors(read_structure(other), tree)


def test_a_safetensors_file_is_read(tmp_path: Path) -> None:
    path, tensor = tmp_path / "a.safetensors", torch.arange(6.0).reshape(2, 3)
    header = b'{"__metadata__":{"by":"x"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}}'
    path.write_bytes(struct.pack("<Q", len(header)) + header + raw(tensor))
    structure = read_structure(path)
    assert structure.kind == "plain state_dict"
    assert_same_tensors(structure, {"w": tensor})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFile, match="cut off inside tensor 'w'"):
        read_structure(path)


def test_no_tensor_is_read_for_the_structure(tmp_path: Path) -> None:
    for zipped in (True, False):
        path, tree = tmp_path / f"{zipped}.pth", {"a": torch.zeros(2_000_000), "b": torch.zeros(3)}
        torch.save(tree, path, _use_new_zipfile_serialization=zipped)
        with path.open("r+b") as file:  # a hole where the tensor was: reading it would fail its checksum
            file.seek(4_000_000)
            file.write(b"\xff" * 100)
        assert [name for name, _ in tensors(read_structure(path))] == ["a", "b"]


def test_files_of_mmengine_are_recognised(mmengine: Path) -> None:
    for name, kind, step, count in [
        ("iter_10.pth", "MMEngine checkpoint", 10, 451),
        ("iter_20.pth", "MMEngine checkpoint", 20, 451),
        ("best_mIoU_iter_10.pth", "MMEngine weights", 10, 124),
    ]:
        structure = read_structure(mmengine / name)
        assert (structure.kind, structure.step, structure.epoch) == (kind, step, 0)
        assert structure.has_optimizer == (kind == "MMEngine checkpoint")
        assert len(list(tensors(structure))) == count
        assert len(weights(structure)) == 124
        assert round(structure.metrics["val/mIoU"], 2) == 6.79
        assert structure.tree["meta"]["dataset_meta"]["classes"]
        with StorageReader(structure) as reader:
            assert all(reader.storage(ref.storage_key) for ref in weights(structure).values())


def test_reading_loads_neither_torch_nor_numpy(torch_file: Path) -> None:
    program = (
        "import sys\n"
        "from unbroken.checkpoint.structure import read_structure, tensors\n"
        "from unbroken.checkpoint.verify import verify_file\n"
        "from unbroken.checkpoint.describe import describe\n"
        "describe(read_structure(sys.argv[1]))\n"
        "assert verify_file(sys.argv[1], expected_digest=None, expected_bytes=None).state == 'good'\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(torch_file)], check=True, timeout=60)


# ---- whose file it is


OURS = {
    "format": FORMAT,
    "kind": "checkpoint",
    "run": {"id": "r", "recipe": "mapsage", "tag": "t"},
    "save": "ab",
    "step": 8000,
    "epoch": 2,
    "best": None,
    "metrics": {"mIoU": 44.5, "note": "x"},
}
MODEL = collections.OrderedDict(w=torch.ones(2))
KINDS: list[tuple[str, Any, int | None, int | None, bool]] = [
    (
        "unbroken checkpoint",
        {"unbroken": OURS, "state_dict": MODEL, "optimizer": {"state": {}}},
        8000,
        2,
        True,
    ),
    ("unbroken weights", {"unbroken": OURS | {"kind": "weights"}, "state_dict": MODEL}, 8000, 2, False),
    ("MMEngine weights", {"meta": {"iter": 5, "epoch": 1}, "state_dict": MODEL}, 5, 1, False),
    (
        "MMEngine checkpoint",
        {"meta": {"iter": 5}, "state_dict": MODEL, "optimizer": {"state": {}}},
        5,
        None,
        True,
    ),
    (
        "OpenPCDet checkpoint",
        {"model_state": MODEL, "epoch": 3, "it": 9, "optimizer_state": {"state": {}}},
        9,
        3,
        True,
    ),
    ("OpenPCDet weights", {"model_state": MODEL, "optimizer_state": None, "epoch": 3, "it": 9}, 9, 3, False),
    ("plain state_dict", MODEL, None, None, False),
    ("unknown", {"model": dict(MODEL), "step": 7, "optimizer": [{"state": {}}]}, 7, None, True),
    ("unknown", {"unbroken": "yes", "step": -1}, None, None, False),
    ("unknown", [1, 2], None, None, False),
    ("unknown", {}, None, None, False),
]


@pytest.mark.parametrize("case", KINDS, ids=lambda case: case[0])
def test_the_kind_is_judged_by_the_keys(tmp_path: Path, case: Any) -> None:
    kind, tree, step, epoch, optimizer = case
    path = tmp_path / "a.pth"
    torch.save(tree, path)
    found = read_structure(path)
    assert (found.kind, found.step, found.epoch, found.has_optimizer) == (kind, step, epoch, optimizer)
    assert list(weights(found)) == ([] if kind == "unknown" and step is None else ["w"])


def test_our_metrics_are_numbers_only(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"unbroken": OURS}, path)
    assert read_structure(path).metrics == {"mIoU": 44.5}


def test_a_newer_format_is_still_described_but_not_used(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"unbroken": OURS | {"format": FORMAT + 1}}, path)
    structure = read_structure(path)
    assert structure.kind == "unbroken checkpoint"
    assert look_at(path, tmp_path).state == "newer"
    torch.save({"unbroken": OURS | {"format": "1"}}, path)
    assert look_at(path, tmp_path).state == "damaged"


# ---- damage


def zip_of(**entries: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), data)
    return file.getvalue()


def tensor_pickle(numel: int, shape: int) -> bytes:
    return (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK"
        + bytes([numel])
        + b"tQK\x00K"
        + bytes([shape])
        + b"\x85K\x01\x85\x89NtR."
    )


DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty"),
    "one byte": (b"P", "not a checkpoint"),
    "garbage": (b"\xd3hello" * 50, "not a checkpoint"),
    "zeros": (b"\0" * 5000, "begins with zeros"),
    "text": (b"hello\n", "not a checkpoint"),
    "web page": (b"<!DOCTYPE html><html>", "a web page"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "git-lfs pointer"),
    "another zip": (zip_of(readme=b"x"), "a zip file, but not a checkpoint"),
    "an empty zip": (zip_of(), "a zip file, but not a checkpoint"),
    "TorchScript": (zip_of(m__data_dot_pkl=b"N.", m__constants_dot_pkl=b""), "TorchScript"),
    "unreadable pickle": (zip_of(a__data_dot_pkl=b"\x80\x02garbage"), "data.pkl cannot be read"),
    "missing entry": (zip_of(a__data_dot_pkl=tensor_pickle(1, 1)), "storage '0' is missing"),
    "short entry": (zip_of(a__data_dot_pkl=tensor_pickle(2, 2), a__data__0=b"1234"), "too short"),
    "tensor beyond": (zip_of(a__data_dot_pkl=tensor_pickle(2, 9), a__data__0=b"12345678"), "beyond the end"),
    "byteorder": (zip_of(a__data_dot_pkl=b"N.", a__byteorder=b"middle"), "byteorder is damaged"),
    "bare pickle": (pickle.dumps({"epoch": 1, "w": 2}), r"bare pickle \(dict with epoch, w\)"),
    "bare list": (pickle.dumps([1], 2), r"bare pickle \(list\)"),
    "cut pickle": (pickle.dumps({"epoch": 1})[:-3], "cannot be read"),
    "endless tree": (zip_of(a__data_dot_pkl=b"]q\x00h\x00a."), "contains itself"),
    "deep tree": (zip_of(a__data_dot_pkl=b"]" * 5000 + b"a" * 4999 + b"."), "nested deeper"),
}


@pytest.mark.parametrize("name", sorted(DAMAGED))
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, name: str) -> None:
    content, message = DAMAGED[name]
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=message) as caught:
        read_structure(path)
    assert caught.value.where == str(path)


def test_a_tree_that_unfolds_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(zip_of(a__data_dot_pkl=b"]" + b"q\x00](h\x00h\x00h\x00h\x00e" * 30 + b"."))
    with pytest.raises(DamagedFile, match="unfolds"):
        read_structure(path)


def test_a_list_that_is_shared_a_million_times_is_measured_once(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    wide = b"(" + b"]" * 1000 + b"lq\x00"
    path.write_bytes(zip_of(a__data_dot_pkl=wide + b"(" + b"h\x00" * 4000 + b"l."))
    assert len(read_structure(path).tree) == 4000


def test_an_entry_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", b"N.")
        with pytest.warns(UserWarning):
            archive.writestr("a/data.pkl", b"K\x01.")
    with pytest.raises(DamagedFile, match="more than once"):
        read_structure(path)


def test_a_missing_path_names_what_is_near(tmp_path: Path) -> None:
    (tmp_path / "iter_8000.pth").touch()
    with pytest.raises(UsageError, match=r"iter_8000\.pth"):
        read_structure(tmp_path / "iter_800.pth")
    with pytest.raises(UsageError, match="not there either"):
        read_structure(tmp_path / "no" / "iter_800.pth")
    with pytest.raises(UsageError):
        read_structure(tmp_path / "iter_8000.pth" / "x")
    with pytest.raises(UsageError):
        read_structure("a\0b")


def test_directories_and_pipes_are_not_checkpoints(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match="a directory"):
        read_structure(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DamagedFile, match="not an ordinary file"):
        read_structure(tmp_path / "pipe")


def test_a_file_cut_anywhere_is_damaged(torch_file: Path) -> None:
    whole = torch_file.read_bytes()
    structure = read_structure(torch_file)
    seed = random.randrange(2**32)
    generator = random.Random(seed)
    ends = {spot.start for spot in structure.entries} | {spot.start + spot.size_bytes for spot in structure.entries}
    lengths = {0, 1, 2, 3, 15, 16, 30, len(whole) - 1, len(whole) - 2, len(whole) // 2}
    lengths |= {generator.randrange(len(whole)) for _ in range(150)} | {end - 1 for end in ends}
    for length in sorted(lengths & set(range(len(whole)))):
        torch_file.write_bytes(whole[:length])
        try:
            read_structure(torch_file)
        except DamagedFile:
            continue
        pytest.fail(f"cut to {length} of {len(whole)} bytes was accepted (seed {seed})")


def damaged_copies(whole: bytes, generator: random.Random, count: int) -> Any:
    for _ in range(count):
        data = bytearray(whole)
        match generator.randrange(4):
            case 0:
                for _ in range(generator.randint(1, 8)):
                    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
            case 1:
                at = generator.randrange(len(data))
                data[at : at + generator.randint(1, 600)] = bytes(generator.randint(1, 600))
            case 2:
                at = generator.randrange(max(1, len(data) - 9000), len(data))  # the directory of a zip
                data[at] = generator.randrange(256)
            case 3:
                at = generator.randrange(len(data))
                del data[at : at + generator.randint(1, 100)]
        yield bytes(data)


def test_an_altered_file_is_read_or_refused_and_nothing_else(torch_file: Path) -> None:
    seed = random.randrange(2**32)
    for data in damaged_copies(torch_file.read_bytes(), random.Random(seed), 400):
        torch_file.write_bytes(data)
        use_or_refuse(torch_file, seed)


def use_or_refuse(path: Path, seed: int) -> None:
    try:
        structure = read_structure(path)
        with StorageReader(structure) as reader:
            for _, ref in tensors(structure):
                reader.storage(ref.storage_key)
    except UnbrokenError:
        return
    except BaseException:
        print("seed", seed)
        raise


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_bomb_in_a_torch_file_does_not_go_off(tmp_path: Path, zipped: bool, protocol: int) -> None:
    class Bomb:
        def __init__(self, call: Callable[..., object], *args: object) -> None:
            self.call, self.args = call, args

        def __reduce__(self) -> Any:
            return self.call, self.args

    path, mark = tmp_path / "a.pth", tmp_path / "mark"
    tree = {
        "state_dict": MODEL,
        "meta": Bomb(os.system, f"touch {mark}"),
        "hub": [Bomb(eval, f"open({str(mark)!r}, 'w')"), Bomb(torch.hub.load, "a/b", "c")],
    }
    torch.save(tree, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    structure = read_structure(path)
    assert not mark.exists()
    assert structure.tree["meta"].name == "system"
    assert list(weights(structure)) == ["w"]


def test_a_file_that_grew_or_vanished_after_the_look_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(MODEL, path)
    structure = read_structure(path)
    path.write_bytes(b"PK" * 500)
    with pytest.raises(DamagedFile), StorageReader(structure) as reader:
        reader.storage(structure.tree["w"].storage_key)
    path.unlink()
    with pytest.raises(DamagedFile), StorageReader(structure) as reader:
        reader.storage(structure.tree["w"].storage_key)
