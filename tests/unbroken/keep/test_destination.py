"""A place for a run is owned while it is filled beside, and nothing that appears in it meanwhile is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from unbroken.checkpoint.retention import Policy
from unbroken.clock import SystemClock
from unbroken.errors import Refused, RunHeld, UsageError
from unbroken.keep.backup import back_up
from unbroken.keep.pack import pack
from unbroken.keep.prune import prune
from unbroken.keep.restore import restore_from
from unbroken.keep.unpack import unpack
from unbroken.run.layout import own
from unbroken.run.record import pin
from unbroken.storage import Disk
from unbroken.storage.lock import RunLock

Fill = Callable[[Path, Disk], object]
CLOCK = SystemClock()


class Meanwhile(Disk):
    """A disk that lets something happen before its first rename, as if what comes before had taken minutes."""

    def __init__(self, happens: Callable[[], None]) -> None:
        self._happens, self._done = happens, False

    def rename(self, source: Path, target: Path) -> None:
        if not self._done and source.name not in ("holder.json.partial",):
            self._done = True
            self._happens()
        super().rename(source, target)

    def sync_folder(self, folder: Path) -> None:
        """Nothing here is about power cuts."""


@pytest.fixture(params=["restore", "unpack"])
def fill(request: pytest.FixtureRequest, run: Path, tmp_path: Path) -> Fill:
    """What fills a place with the run, from a backup or from a packed file."""
    if request.param == "restore":
        mirror = back_up(run, tmp_path / "dest", disk=Disk(), clock=CLOCK).mirror
        return lambda place, disk: restore_from(place, mirror, disk=disk, clock=CLOCK)
    file = pack(run, tmp_path / "run.zip", disk=Disk(), clock=CLOCK).path
    return lambda place, disk: unpack(file, place, disk=disk, clock=CLOCK)


@pytest.mark.parametrize("named", [".", "..", "../here", "../inner"])
def test_the_current_folder_is_no_place_that_a_run_can_take(
    fill: Fill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    here = tmp_path / "empty" / "here" / "inner"
    here.mkdir(parents=True)
    monkeypatch.chdir(here.parent if named == "../here" else here)
    with pytest.raises(UsageError, match="this is the current folder"):
        fill(Path(named), Disk())
    assert [path.name for path in sorted((tmp_path / "empty").rglob("*"))] == ["here", "inner"]


def saves(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.pth") if not path.is_symlink()}


def test_nobody_begins_in_a_place_that_is_being_filled(fill: Fill, run: Path, tmp_path: Path) -> None:
    place, refused = tmp_path / "place", list[str]()

    def launch() -> None:
        with pytest.raises(RunHeld) as caught:
            RunLock(Disk(), own(place), CLOCK).acquire("train")
        refused.append(str(caught.value))

    fill(place, Meanwhile(launch))
    assert refused and saves(place) == saves(run)
    lock = RunLock(Disk(), own(place), CLOCK)
    assert lock.acquire("train") is None, "who comes afterwards finds the run, and nobody who died"
    lock.release()


@pytest.mark.parametrize("where", ["iter_7.pth", "unbroken/journal.jsonl", "deeper/notes.txt"])
def test_what_is_put_there_without_a_lock_stays_and_the_same_command_goes_on(
    fill: Fill, run: Path, tmp_path: Path, where: str
) -> None:
    place = tmp_path / "place"

    def put() -> None:
        (place / where).parent.mkdir(parents=True, exist_ok=True)
        (place / where).write_text("not to be lost")

    with pytest.raises(Refused):
        fill(place, Meanwhile(put))
    assert (place / where).read_text() == "not to be lost"
    assert not saves(place) - {where}
    place.rename(tmp_path / "elsewhere")
    fill(place, Disk())
    assert saves(place) == saves(run)


def test_a_place_that_could_not_be_filled_is_as_it_was(fill: Fill, tmp_path: Path) -> None:
    class Full(Disk):
        def free_bytes(self, folder: Path) -> int:
            return 0

    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "new", tmp_path / "empty"):
        existed = place.exists()
        with pytest.raises(Refused, match="room"):
            fill(place, Full())
        assert place.exists() == existed and not (existed and list(place.iterdir()))


def test_files_that_are_pinned_while_a_prune_is_at_work_stay(run: Path) -> None:
    """What was decided at its beginning is looked at again before each file goes."""
    late = ["iter_30.pth", "iter_50.pth"]
    disk = Meanwhile(lambda: pin(run, dict.fromkeys(late, ""), disk=Disk(), clock=CLOCK))
    done = prune(run, Policy(keep_last=2), disk=disk, clock=CLOCK)
    assert sorted(done.spared) == late
    assert {"iter_30.pth", "iter_50.pth", "iter_110.pth", "iter_120.pth"} <= saves(run)
    assert "iter_20.pth" not in saves(run) and "iter_40.pth" not in saves(run)
    assert {item.name for item in done.gone}.isdisjoint(saves(run))
