"""Data that was tried out is not tried out again by the next command, until data, config or code change."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from nano_job import write_nano_job
from PIL import Image
from tests.clocks import Ahead

from mapsage.preflight import preflight
from mapsage.recipes import read
from unbroken.errors import UnbrokenError
from unbroken.launch import Environment
from unbroken.storage import Cache

PROGRAM = """
import sys; from pathlib import Path; from tests.clocks import Ahead; from mapsage.recipes import mapsage
from mapsage.preflight import preflight; from unbroken.launch import Environment; from unbroken.storage import Cache
job = mapsage.read(["nano.py"], Environment(cache=Cache(Path("cache"), clock=Ahead())))
print(job.total_steps, job.seed, job.lr_at(3), preflight(job), {"numpy", "cv2", "pydantic"} & set(sys.modules))
"""
PICTURES = Path("data/Train/images_png")
MASKS = Path("data/Train/masks_png")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    write_nano_job(tmp_path)


def said() -> str:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def told() -> str:
    """What a launch is told of the data, by way of what is kept."""
    try:
        return str(preflight(read(["nano.py"], Environment(cache=Cache(Path("cache"), clock=Ahead())))))
    except UnbrokenError as error:
        return str(error)


def test_the_second_command_reads_no_picture_and_loads_nothing_that_could() -> None:
    first, second = said(), said()
    told_first, loaded = first.split("{")
    assert second == f"{told_first}set()"
    assert all(name in loaded for name in ("numpy", "cv2", "pydantic"))


def last_tile(text: str) -> str:
    return str(max(Path(text).iterdir()))


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "the first picture is damaged": (lambda: (PICTURES / "tile_0000.png").write_bytes(b"no picture"), "tile_0000"),
    "the last mask is of another size": (
        lambda: Image.new("L", (8, 8)).save(last_tile("data/Val/masks_png")), "differ"),
    "a picture without a mask": (lambda: Image.new("RGB", (64, 64)).save(PICTURES / "tile_9999.png"), "have no mask"),
    "a picture of another kind": (lambda: Image.new("RGB", (64, 64)).save(PICTURES / "a.jpg"), "left out"),
    "a mask that is gone": (lambda: (MASKS / "tile_0001.png").unlink(), "have no mask"),
    "all masks elsewhere": (lambda: MASKS.rename("elsewhere"), "does not exist"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "words"), CHANGES.values(), ids=CHANGES)
def test_what_changes_in_the_data_is_seen_though_it_was_tried_out_before(
    change: Callable[[], object], words: str
) -> None:
    before = told()
    assert told() == before == "[]" and len(list(Path("cache/known").iterdir())) == 2
    change()
    assert words in told() and told() == told()


def test_of_data_behind_links_nothing_is_kept(tmp_path: Path) -> None:
    mask = MASKS / "tile_0001.png"
    mask.rename(tmp_path / "away.png")
    mask.symlink_to(tmp_path / "away.png")
    assert told() == "[]"
    (tmp_path / "away.png").rename(tmp_path / "gone.png")
    assert "have no mask" in told()
