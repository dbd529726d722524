from __future__ import annotations

import hashlib
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from unbroken.checkpoint import FORMAT
from unbroken.checkpoint.structure import Structure, read_structure
from unbroken.checkpoint.verify import Verification, verify_file
from unbroken.errors import DamagedFile, UsageError
from unbroken.run import look_at


def digest(path: Path) -> str:
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def judge(path: Path, sha256: str | None = None, size_bytes: int | None = None) -> Verification:
    return verify_file(path, expected_digest=sha256, expected_bytes=size_bytes)


def data_places(structure: Structure, whole: bytes) -> list[tuple[int, int, str]]:
    """Where the numbers of each storage lie in the file; a zip has a header before them."""
    places = []
    for key, spot in structure.spots.items():
        start = spot.start
        if spot.in_zip:
            start += 30 + int.from_bytes(whole[start + 26 : start + 28], "little")
            start += int.from_bytes(whole[spot.start + 28 : spot.start + 30], "little")
        places.append((start, spot.size_bytes, key))
    return places


def flip(path: Path, whole: bytes, at: int, bit: int = 0) -> None:
    data = bytearray(whole)
    data[at] ^= 1 << bit
    path.write_bytes(data)


# ---- good files


def test_a_whole_file_is_good_with_and_without_a_digest(torch_file: Path) -> None:
    size = torch_file.stat().st_size
    with_digest = judge(torch_file, digest(torch_file), size)
    assert (with_digest.state, with_digest.method) == ("good", "whole-file digest")
    assert with_digest.digest == digest(torch_file)
    without = judge(torch_file)
    assert without.state == "good"
    assert without.method == ("zip CRC" if torch_file.stem == "zip" else "structure")
    assert without.digest is None


def test_the_files_of_mmengine_are_good(mmengine: Path) -> None:
    for path in mmengine.glob("*.pth"):
        assert judge(path).state == "good"


def test_a_file_without_checksums_says_that_it_was_not_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"w": torch.ones(100)}, path)
    finally:
        torch.serialization.set_crc32_options(True)
    verdict = judge(path)
    assert (verdict.state, verdict.method) == ("good", "structure")
    assert "without checksums" in verdict.reason


# ---- damaged files


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    for path in (tmp_path / "a.pth", tmp_path / "no" / "a.pth", Path("a\0b")):
        for sha256 in (None, "sha256:" + "ab" * 32):
            assert judge(path, sha256, 5).state == "missing"


def test_a_directory_is_damaged(tmp_path: Path) -> None:
    assert judge(tmp_path, "ab" * 32, 3).reason == "this is a directory, not a checkpoint"


def test_a_wrong_length_is_found_without_reading(torch_file: Path) -> None:
    whole = torch_file.read_bytes()
    torch_file.write_bytes(whole[:-7])
    verdict = judge(torch_file, digest(torch_file), len(whole))
    assert (verdict.state, verdict.method) == ("damaged", "length")
    assert verdict.reason.startswith("the file is cut off: ")
    torch_file.write_bytes(whole + b"1234")
    assert "4 bytes longer" in judge(torch_file, digest(torch_file), len(whole)).reason


def test_every_flipped_bit_is_found_by_the_digest(torch_file: Path) -> None:
    whole, sha256 = torch_file.read_bytes(), digest(torch_file)
    seed = random.randrange(2**32)
    generator = random.Random(seed)
    for _ in range(150):
        at, bit = generator.randrange(len(whole)), generator.randrange(8)
        flip(torch_file, whole, at, bit)
        verdict = judge(torch_file, sha256, len(whole))
        assert (verdict.state, verdict.method) == ("damaged", "whole-file digest"), f"bit {bit} of byte {at}"
        assert "altered" in verdict.reason


@pytest.mark.parametrize("torch_file", ["zip"], indirect=True)
def test_every_flipped_bit_in_a_tensor_is_found_by_the_checksums_and_the_tensor_is_named(
    torch_file: Path,
) -> None:
    whole, structure = torch_file.read_bytes(), read_structure(torch_file)
    seed = random.randrange(2**32)
    generator = random.Random(seed)
    for start, size, key in data_places(structure, whole):
        for _ in range(4 if size else 0):
            at, bit = start + generator.randrange(size), generator.randrange(8)
            flip(torch_file, whole, at, bit)
            verdict = judge(torch_file)
            assert (verdict.state, verdict.method) == ("damaged", "zip CRC"), f"bit {bit} of byte {at}, seed {seed}"
            assert f"/data/{key} was altered" in verdict.reason
            assert "it holds tensor " in verdict.reason


def test_the_damaged_tensor_is_named_with_the_digest_too(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"backbone.weight": torch.ones(50)}, "copy": torch.zeros(3)}, path)
    whole, sha256 = path.read_bytes(), digest(path)
    start, _, _ = data_places(read_structure(path), whole)[0]
    flip(path, whole, start + 9)
    reason = judge(path, sha256, len(whole)).reason
    assert reason.endswith("it holds tensor state_dict.backbone.weight")
    assert "entry a/data/0 was altered" in reason


def test_tensors_that_share_a_damaged_storage_are_counted(tmp_path: Path) -> None:
    path, shared = tmp_path / "a.pth", torch.ones(50)
    torch.save({"a": shared, "b": shared[3:], "c": shared[:2]}, path)
    whole = path.read_bytes()
    flip(path, whole, data_places(read_structure(path), whole)[0][0])
    assert judge(path).reason.endswith("it holds tensor a and 2 more")


def test_another_whole_file_under_the_same_name_is_not_the_one_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save({"w": torch.ones(3)}, path)
    sha256, size = digest(path), path.stat().st_size
    torch.save({"w": torch.zeros(3)}, path)
    assert path.stat().st_size == size
    verdict = judge(path, sha256, size)
    assert verdict.state == "damaged"
    assert "replaced as a whole" in verdict.reason


def test_a_file_cut_anywhere_is_damaged(torch_file: Path) -> None:
    whole, sha256 = torch_file.read_bytes(), digest(torch_file)
    seed = random.randrange(2**32)
    generator = random.Random(seed)
    for length in [0, 1, 4, 30, len(whole) - 1, *(generator.randrange(len(whole)) for _ in range(60))]:
        torch_file.write_bytes(whole[:length])
        for verdict in (judge(torch_file), judge(torch_file, sha256), judge(torch_file, sha256, len(whole))):
            assert verdict.state == "damaged", f"{length} bytes, seed {seed}"
            assert verdict.reason


@pytest.mark.parametrize("torch_file", ["legacy"], indirect=True)
def test_bytes_behind_the_end_of_a_legacy_file_are_damage(torch_file: Path) -> None:
    torch_file.write_bytes(torch_file.read_bytes() + b"xyz")
    verdict = judge(torch_file)
    assert verdict.state == "damaged"
    assert verdict.reason == "3 bytes stand behind the last tensor"


def test_any_alteration_gives_a_verdict_and_no_exception(torch_file: Path) -> None:
    whole = torch_file.read_bytes()
    seed = random.randrange(2**32)
    generator = random.Random(seed)
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 5)):
            data[generator.randrange(max(1, len(data) - 20_000), len(data))] = generator.randrange(256)
        torch_file.write_bytes(data)
        try:
            assert judge(torch_file).state in ("good", "damaged")
        except BaseException:
            print("seed", seed)
            raise


# ---- formats


def ours(number: Any) -> dict[str, Any]:
    return {"unbroken": {"format": number, "kind": "checkpoint", "step": 5}}


def test_a_newer_format_is_refused_and_no_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    torch.save(ours(FORMAT + 1), path)
    assert look_at(path, tmp_path).state == "newer"
    assert judge(path).state == "good"
    path.write_bytes(b"")
    with pytest.raises(DamagedFile, match="empty"):
        read_structure(path)
    path.unlink()
    with pytest.raises(UsageError):
        read_structure(path)
