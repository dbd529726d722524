"""Whatever is saved, damaged or lost in whatever order: two sound checkpoints stay, once there were two."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from tests.crash.faulty_disk import FaultyDisk
from unbroken.checkpoint.manifest import SaveFacts, read_manifest
from unbroken.checkpoint.retention import NEVER_FEWER_THAN, Policy, StoredFile, retain
from unbroken.checkpoint.store import CheckpointStore
from unbroken.checkpoint.verify import verify_file
from unbroken.train.state.serialise import write_tree

SEED = 20250101
KEEP = st.one_of(st.none(), st.integers(0, 5))
STORED = st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=12, unique_by=lambda item: item[0])


def stored(items: Sequence[tuple[int, bool]]) -> list[StoredFile]:
    return [StoredFile(name=f"iter_{step}.pth", step=step, verified=sound) for step, sound in items]


@seed(SEED)
@given(items=STORED, keep_last=KEEP, pinned=st.sets(st.integers(0, 50)))
def test_only_what_has_two_newer_sound_ones_may_go(
    items: list[tuple[int, bool]], keep_last: int | None, pinned: set[int]
) -> None:
    decisions = retain(stored(items), Policy(keep_last=keep_last), pinned={f"iter_{step}.pth" for step in pinned})
    going = {int(item.name[5:-4]) for item in decisions if not item.keep}
    newest = sorted((step for step, _ in items), reverse=True)
    for step in going:
        assert sum(sound for other, sound in items if other > step) >= NEVER_FEWER_THAN
        assert keep_last is not None and step not in newest[:keep_last] and step not in pinned
    assert sorted(item.name for item in decisions) == sorted(item.name for item in stored(items))
    assert all(item.reason for item in decisions)


@seed(SEED)
@given(items=STORED, keep_last=KEEP)
def test_as_many_sound_ones_stay_as_there_were_up_to_two(items: list[tuple[int, bool]], keep_last: int | None) -> None:
    decisions = retain(stored(items), Policy(keep_last=keep_last))
    sound = {item.name for item in stored(items) if item.verified}
    assert sum(item.keep for item in decisions if item.name in sound) >= min(len(sound), NEVER_FEWER_THAN)


@seed(SEED)
@given(items=STORED, keep_last=st.integers(2, 5))
def test_without_damage_exactly_the_last_ones_stay(items: list[tuple[int, bool]], keep_last: int) -> None:
    whole = stored([(step, True) for step, _ in items])
    kept = {item.name for item in retain(whole, Policy(keep_last=keep_last)) if item.keep}
    assert kept == {f"iter_{step}.pth" for step in sorted((item.step for item in whole), reverse=True)[:keep_last]}


ACTIONS = st.lists(
    st.one_of(
        st.just(("save", 0)),
        st.tuples(st.sampled_from(["damage", "truncate", "lose", "lose manifest", "save again"]), st.integers(0, 3)),
    ),
    min_size=1,
    max_size=14,
)


@seed(SEED)
@given(items=STORED, keep_last=KEEP, rolling=st.integers(0, 50))
def test_a_rolling_save_stays_takes_no_place_among_the_last_ones_and_counts_as_sound(
    items: list[tuple[int, bool]], keep_last: int | None, rolling: int
) -> None:
    named = [item for item in stored(items) if item.step != rolling]
    latest = StoredFile(name="latest_model.pth", step=rolling, verified=True, rolling=True)
    decisions = {item.name: item for item in retain([*named, latest], Policy(keep_last=keep_last))}
    assert decisions[latest.name].keep
    for item in named:
        newer = [other for other in named if other.step > item.step]
        sound = sum(other.verified for other in newer) + (rolling > item.step)
        goes = keep_last is not None and len(newer) >= keep_last and sound >= NEVER_FEWER_THAN
        assert decisions[item.name].keep is not goes


@pytest.mark.filterwarnings("ignore")
@seed(SEED)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(actions=ACTIONS, keep_last=KEEP)
def test_a_real_store_never_removes_the_second_last_sound_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int]], keep_last: int | None
) -> None:
    folder = tmp_path_factory.mktemp("store")
    house = Store(folder, keep_last)
    for action, which in actions:
        before = house.sound()
        house.do(action, which)
        if action in ("save", "save again"):
            wanted = min(len(before | house.sound()), NEVER_FEWER_THAN)
            assert len(house.sound()) >= wanted
            assert house.last in house.sound(), "what was just saved is there and whole"
        for removed in house.removed_by_the_last_save():
            newer = {step for step in before | {house.last} if step > removed}
            assert len(newer & house.sound()) >= NEVER_FEWER_THAN, f"step {removed} went too early"


class Store:
    """A real store on a real disk, with files that are damaged behind its back."""

    def __init__(self, folder: Path, keep_last: int | None) -> None:
        self.folder, self.manifests = folder, folder / "manifests"
        self.manifests.mkdir()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.disk, self.last, self._numbers = FaultyDisk(), 0, itertools.count()
        self.store = CheckpointStore(
            self.disk,
            folder,
            manifests=self.manifests,
            record=lambda event, **facts: self.events.append((event, facts)),
            pointer="latest.pth",
            keep_last=keep_last,
        )

    def do(self, action: str, which: int) -> None:
        self.events.clear()
        files = sorted(self._steps())
        step = files[which % len(files)] if files else 0
        path = self.folder / f"iter_{step}.pth"
        match action:
            case "save":
                self._save(self.last + 2)
            case "save again" if self.last:
                self._save(self.last)
            case "save again":
                self._save(2)
            case "damage" if files:
                content = bytearray(path.read_bytes())
                content[len(content) // 2] ^= 1
                path.write_bytes(content)
            case "truncate" if files:
                path.write_bytes(path.read_bytes()[:-1])
            case "lose" if files:
                path.unlink()
            case "lose manifest" if files:
                (self.manifests / f"iter_{step}.pth.json").unlink(missing_ok=True)

    def sound(self) -> set[int]:
        """Steps whose file holds what was written."""
        return {step for step in self._steps() if self._is_sound(step)}

    def removed_by_the_last_save(self) -> list[int]:
        return [int(facts["file"][5:-4]) for event, facts in self.events if event == "removed"]

    def _steps(self) -> set[int]:
        return {int(path.stem[5:]) for path in self.folder.glob("iter_*.pth")}

    def _is_sound(self, step: int) -> bool:
        manifest = read_manifest(self.manifests, f"iter_{step}.pth")
        digest = manifest.digest if manifest else None
        return verify_file(self.folder / f"iter_{step}.pth", expected_digest=digest).state == "good"

    def _save(self, step: int) -> None:
        facts = SaveFacts(
            file=f"iter_{step}.pth",
            kind="checkpoint",
            run="r",
            save=f"{next(self._numbers)}",
            session="s",
            step=step,
            epoch=0,
            time="t",
        )
        self.store.save(facts, lambda file: write_tree(file, {"step": step, "save": facts.save}))
        self.last = step
