"""The digest of a file says its kind: manifests of before are verified by theirs, an unknown one counts as none."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import pytest
import torch
import xxhash
from tests.unbroken.checkpoint.test_store import Saves

from unbroken.checkpoint.manifest import manifest_path, read_manifest
from unbroken.checkpoint.verify import verify_file
from unbroken.keep.backup import removed_saves
from unbroken.run import look_at
from unbroken.storage.digest import Digests, can_take, is_of
from unbroken.train.state.serialise import write_tree

CONTENT = b"weights of step 2"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    Saves(tmp_path).save(2)
    return tmp_path / "iter_2.pth"


def rewrite(path: Path, **changes: object) -> Path:
    """The manifest of a file as another version would have written it."""
    manifest = manifest_path(path.parent / "manifests", path.name)
    data = {**json.loads(manifest.read_text()), **changes}
    manifest.write_text(json.dumps({name: value for name, value in data.items() if value is not None}))
    return manifest


def test_a_save_is_known_by_a_quick_digest_of_the_whole_file(saved: Path) -> None:
    manifest = read_manifest(saved.parent / "manifests", saved.name)
    assert manifest is not None and manifest.digest == f"xxh3_128:{xxhash.xxh3_128(CONTENT).hexdigest()}"
    assert verify_file(saved, expected_digest=manifest.digest).state == "good"
    saved.write_bytes(CONTENT.replace(b"w", b"W"))
    found = verify_file(saved, expected_digest=manifest.digest)
    assert found.state == "damaged" and "xxh3_128:" in found.reason


def test_a_manifest_of_before_is_verified_by_its_sha256(saved: Path) -> None:
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    rewrite(saved, digest=None, sha256=sha256)
    manifest = read_manifest(saved.parent / "manifests", saved.name)
    assert manifest is not None and manifest.digest == f"sha256:{sha256}" and is_of(saved, manifest.digest)
    saved.write_bytes(CONTENT.replace(b"w", b"W"))
    assert verify_file(saved, expected_digest=manifest.digest).state == "damaged"


@pytest.mark.parametrize(
    "digest", ["blake9:00", "xxh3_128:00", "sha256:" + "0" * 63, "0" * 64, 7, "xxh3_128:" + "A" * 32]
)
def test_a_digest_that_is_none_or_of_a_later_kind_makes_no_manifest(saved: Path, digest: object) -> None:
    rewrite(saved, digest=digest)
    assert read_manifest(saved.parent / "manifests", saved.name) is None
    assert look_at(saved, saved.parent / "manifests").state != "good", "the file is judged by itself, and is none"


def test_an_installation_without_the_package_writes_sha256_and_judges_by_what_is_inside(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with saved.open("wb", buffering=0) as file:
        write_tree(file, {"a": torch.ones(3)})
    digest = f"xxh3_128:{xxhash.xxh3_128(saved.read_bytes()).hexdigest()}"
    assert verify_file(saved, expected_digest=digest).method == "whole-file digest"
    monkeypatch.setitem(sys.modules, "xxhash", None)
    can_take.cache_clear()
    try:
        assert verify_file(saved, expected_digest=digest).method == "zip CRC"
        assert not is_of(saved, digest) and len(Digests().all) == 1
        Saves(tmp_path).save(3)
    finally:
        can_take.cache_clear()
    manifest = read_manifest(tmp_path / "manifests", "iter_3.pth")
    assert manifest is not None and manifest.digest.startswith("sha256:")
    assert is_of(tmp_path / "iter_3.pth", manifest.digest)


def test_both_digests_of_what_goes_to_another_machine_are_those_of_its_bytes(saved: Path) -> None:
    digests = Digests()
    digests.update(CONTENT[:5])
    digests.update(CONTENT[5:])
    assert all(is_of(saved, digest) for digest in digests.all) and len(digests.all) == 2
    assert not is_of(saved, "blake9:00")


def test_what_the_journal_says_of_a_save_is_read_as_every_version_wrote_it() -> None:
    gone = {"event": "removed", "file": "x"}
    assert removed_saves([{"event": "saved", "file": "x", "sha256": "1"}, gone]) == {"x": "sha256:1"}
    assert removed_saves([{"event": "saved", "file": "x", "digest": "xxh3_128:1"}, gone]) == {"x": "xxh3_128:1"}
