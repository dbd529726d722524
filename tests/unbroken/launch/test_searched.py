"""A folder that was searched and held nothing of the run, or an ordinary zip or tar of it, is named in the plan."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.unbroken.real_runs import contents, job, plan
from unbroken.errors import DamagedFile
from unbroken.keep.packed import read_list
from unbroken.launch import Fresh, Resume
from unbroken.launch.discovery import MOST_UNPACKED_BYTES
from unbroken.launch.explain import explain


@pytest.fixture
def mounts(run: Path, tmp_path: Path) -> Path:
    """Three folders to search, of which one holds a copy of the run; the run itself is gone."""
    folder = tmp_path / "mounts"
    (folder / "tiles/Train").mkdir(parents=True)
    (folder / "tiles/Train/tile.png").write_bytes(b"x")
    (folder / "nothing").mkdir()
    shutil.copytree(run, folder / "last/output/plain_loop", symlinks=True)
    shutil.rmtree(run)
    return folder


def said(run: Path, *search: Path) -> tuple[object, str]:
    asked = job(run, search=search)
    made = plan(asked)
    return made, "\n".join(explain(asked, made).lines)


def zipped(folder: Path, target: Path, *, only: str = "*") -> Path:
    """What a file manager or `zip -r` makes of a folder."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob(only)):
            if path.is_file() and not path.is_symlink():
                archive.write(path, path.relative_to(folder.parent))
    return target


def test_a_folder_without_a_copy_is_named_and_one_with_a_copy_is_not(run: Path, mounts: Path) -> None:
    before = contents(mounts)
    made, words = said(run, mounts / "tiles", mounts / "last", mounts / "nothing")
    assert isinstance(made, Resume)
    for name in ("tiles", "nothing"):
        assert f"{mounts / name} was searched and holds no copy of this run (plain_loop)" in words
    assert f"{mounts / 'last'} was searched" not in words
    made, words = said(run, mounts / "tiles", mounts / "not_there")
    assert isinstance(made, Fresh)
    assert f"{mounts / 'tiles'} was searched and holds no copy of this run (plain_loop)" in words
    assert f"{mounts / 'not_there'} was to be searched and is not there" in words
    assert contents(mounts) == before


def test_nothing_is_said_of_a_search_that_nobody_needed(mounts: Path, run: Path) -> None:
    shutil.copytree(mounts / "last/output/plain_loop", run, symlinks=True)
    _, words = said(run, mounts / "tiles")
    assert "was searched" not in words


@pytest.mark.parametrize("only", ["*", "*.pth"], ids=["all of it", "checkpoints alone"])
def test_an_ordinary_zip_of_the_run_is_named_with_a_command_that_works(
    run: Path, mounts: Path, tmp_path: Path, only: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = zipped(mounts / "last/output/plain_loop", mounts / "tiles/My run (1).zip", only=only)
    zipped(mounts / "tiles/Train", mounts / "tiles/tiles.zip")
    made, words = said(run, mounts / "tiles")
    assert isinstance(made, Fresh)
    what = "of this run" if only == "*" else "with checkpoints in it (iter_"
    assert f"{packed} is an ordinary zip {what}" in words
    assert f"python -m zipfile -e '{packed}' DIR, then open_run(..., search=[\"DIR\"])" in words
    assert "tiles.zip" not in words
    with zipfile.ZipFile(packed) as archive:
        archive.extractall(tmp_path / "out")
    made, words = said(run, tmp_path / "out")
    assert isinstance(made, Resume) and "is copied here" in words


def test_a_zip_of_another_run_a_cut_off_one_and_a_packed_one_are_not_called_ordinary(run: Path, mounts: Path) -> None:
    source = mounts / "last/output/plain_loop"
    record = source / "unbroken/run.json"
    other = record.read_text("utf-8").replace('"plain_loop"', '"another"')
    record.write_text(other, "utf-8")
    zipped(source, mounts / "tiles/other.zip")
    whole = (mounts / "tiles/other.zip").read_bytes()
    (mounts / "tiles/cut.zip").write_bytes(whole[: len(whole) // 2])
    (mounts / "tiles/text.zip").write_text("not a zip", "utf-8")
    made, words = said(run, mounts / "tiles")
    assert isinstance(made, Fresh) and ".zip" not in words
    with pytest.raises(DamagedFile):
        read_list(mounts / "tiles/other.zip")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("whole", [True, False], ids=["all of it", "checkpoints alone"])
def test_a_tar_of_the_run_is_named_with_a_command_that_works(
    run: Path, mounts: Path, tmp_path: Path, mode: str, whole: bool
) -> None:
    packed = mounts / "tiles" / f"My run.tar{mode[1:].replace(':', '.')}"
    source = mounts / "last/output/plain_loop"
    with tarfile.open(packed, mode) as archive:  # type: ignore[call-overload]  # each of them is a mode
        for path in [source] if whole else sorted(source.glob("*.pth")):
            archive.add(path, path.relative_to(source.parent))
    with tarfile.open(mounts / "tiles/tiles.tgz", "w:gz") as archive:
        archive.add(mounts / "tiles/Train", "Train")
    (mounts / "tiles/cut.tar.gz").write_bytes(packed.read_bytes()[:40])
    (mounts / "tiles/text.tar").write_text("not a tar", "utf-8")
    made, words = said(run, mounts / "tiles")
    assert isinstance(made, Fresh)
    assert f"{packed} is an ordinary tar {'of this run' if whole else 'with checkpoints in it (iter_'}" in words
    assert f"python -m tarfile -e '{packed}' DIR, then open_run(..., search=[\"DIR\"])" in words
    assert "tiles.tgz" not in words and "cut.tar" not in words and "text.tar" not in words
    with tarfile.open(packed) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    made, words = said(run, tmp_path / "out")
    assert isinstance(made, Resume) and "is copied here" in words


def test_of_a_compressed_tar_only_the_beginning_is_read(run: Path, mounts: Path) -> None:
    """A gigabyte of zeros packs into a megabyte; what lies behind them is not looked for."""
    large = mounts / "large"
    with large.open("wb") as file:
        file.truncate(MOST_UNPACKED_BYTES + 1)
    with tarfile.open(mounts / "tiles/run.tar.gz", "w:gz", compresslevel=1) as archive:
        archive.add(large, "large")
        archive.add(mounts / "last/output/plain_loop", "plain_loop")
    _, words = said(run, mounts / "tiles")
    assert "ordinary tar" not in words
