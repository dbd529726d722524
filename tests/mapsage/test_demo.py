"""The demo tells its whole story, here at a smaller size: two kills, a twin, the verdict, two pictures."""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from tests.processes import started_here_alike

from mapsage.demo import FULL, Size, tell

SMALL = Size(steps=44, every=16, first_kill=21, train=16, val=2)


def test_the_demo_ends_with_twins_and_pictures_to_look_at(tmp_path: Path) -> None:
    said: list[str] = []

    with started_here_alike():
        code = tell(tmp_path / "demo", say=said.append, size=SMALL)

    text = "\n".join(said)
    assert code == 0, text
    assert "VERDICT: the run that was killed twice is BIT-IDENTICAL to its twin." in text
    assert "losses of all 44 steps: identical" in text
    assert text.count("killed by SIGKILL") == 2 or "the save was over before the kill arrived" in text
    assert text.count("unbroken train mapsage") == 4
    assert "plan: FRESH" in text and "plan: RESUME" in text and "replayed: bit-identical" in text
    pictures = sorted((tmp_path / "demo").glob("*/*.png"))
    assert [picture.name for picture in pictures] == ["curves.png", "tiles.png"]
    for picture in pictures:
        with Image.open(picture) as opened:
            opened.load()
            assert min(opened.size) > 200 and len(opened.convert("RGB").getcolors(1 << 24) or []) > 50
        assert str(picture) in text


def test_the_full_demo_is_killed_between_two_saves_in_the_middle_of_an_epoch() -> None:
    assert FULL.first_kill % FULL.every != 0
    assert (FULL.first_kill * 8) % FULL.train != 0
