"""A run is one object: each of its files is opened once by a command, and all ways to look agree on what it holds."""

from __future__ import annotations

import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unbroken.real_runs import as_mmengine
from tests.unbroken.tiny_recipe import HERE
from unbroken.cli import main
from unbroken.cli.commands.show import overview_of
from unbroken.report.run_facts import facts_of
from unbroken.run import ITERATIONS, RunView
from unbroken.run.summary import summary_of
from unbroken.run.survey import survey
from unbroken.run.view import looked_at
from unbroken.storage.moved import Moved

RECIPE = f"{HERE}:recipe"
_heard: list[str] | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _heard is not None and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        _heard.append(os.fsdecode(os.path.abspath(arguments[0])))


sys.addaudithook(_hear)


def opened(act: Callable[[], object], root: Path) -> Counter[str]:
    """How often an act opens each file below a folder."""
    global _heard
    _heard = heard = []
    try:
        act()
    finally:
        _heard = None
    return Counter(str(Path(name).relative_to(root)) for name in heard if Path(name).is_relative_to(root))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the same recipe, one of them of two sessions."""
    root = tmp_path_factory.mktemp("made")
    for name, steps in (("one", 6), ("other", 4), ("one", 8)):
        assert main(["train", RECIPE, str(root / name), str(steps)]) == 0
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "runs", symlinks=True))


COMMANDS = {
    "why": ["why", RECIPE, "ONE", "12"],
    "show": ["show", "ONE"],
    "compare": ["compare", "ONE", "OTHER"],
    "ls": ["ls", "ROOT"],
    "audit": ["audit", "ONE", "--verify"],
    "verify": ["verify", "ONE"],
    "prune": ["prune", "ONE", "--explain"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_opens_each_file_of_a_run_once(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    meant = {"ONE": str(root / "one"), "OTHER": str(root / "other"), "ROOT": str(root)}
    codes: list[int] = []
    times = opened(lambda: codes.append(main([meant.get(word, word) for word in COMMANDS[name]])), root)
    assert codes == [0], capsys.readouterr()
    assert {"one/unbroken/run.json", "one/unbroken/journal.jsonl"} <= set(times), "it was heard"
    assert {file: count for file, count in times.items() if count > 1} == {}


@pytest.mark.parametrize("name", ["show", "compare", "ls", "verify"])
def test_so_it_does_of_a_run_that_another_program_left(
    name: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    left = tmp_path / "left"
    for run in ("one", "other"):
        (left / run).mkdir(parents=True)
        for step in (2, 4):
            as_mmengine(root / "one" / f"iter_{step}.pth", left / run / f"iter_{step}.pth", step=step)
    meant = {"ONE": str(left / "one"), "OTHER": str(left / "other"), "ROOT": str(left)}
    times = opened(lambda: main([meant.get(word, word) for word in COMMANDS[name]]), left)
    assert times["one/iter_4.pth"]
    # Without manifests a checkpoint says how far it is itself, and what is used of them is verified after that.
    most = 2 if name in ("show", "verify") else 1
    assert {file: count for file, count in times.items() if count > most and (left / file).exists()} == {}


def test_a_view_reads_what_it_is_asked_for(root: Path) -> None:
    run = root / "one"
    assert opened(lambda: RunView(run), run) == {}
    view = RunView(run)
    assert opened(lambda: (view.record, view.layout, view.recorded_layout), run) == {"unbroken/run.json": 1}
    assert list(opened(lambda: view.events, run)) == ["unbroken/lock", "unbroken/journal.jsonl"], "in this order"
    assert opened(lambda: (view.history, view.held, view.config), run) == {
        f"unbroken/configs/{view.config_names[-1]}": 1
    }
    assert opened(lambda: (view.furthest, view.candidates), run).keys() == {
        f"unbroken/manifests/{name}.json" for name in view.manifest_names
    }


def test_a_file_that_goes_between_two_looks_begins_a_new_view(root: Path) -> None:
    run = root / "one"
    views: list[RunView] = []

    def find(view: RunView) -> list[str]:
        views.append(view)
        files = sorted(view.checkpoint_sizes)
        if len(views) == 1:
            (run / "iter_8.pth").unlink()
        return [view.glance(run / name).name for name in files]

    found = looked_at(run, find)
    assert len(views) == 2 and "iter_8.pth" not in found and "iter_6.pth" in found
    with pytest.raises(Moved):
        views[0].glance(run / "iter_8.pth")


def drop(pattern: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        found = sorted(run.glob(pattern))
        assert found
        for path in found:
            path.unlink()

    return change


def cut(name: str) -> Callable[[Path], None]:
    return lambda run: os.truncate(run / name, 40)


CHANGES: dict[str, tuple[Callable[[Path], None], int]] = {
    "as it was left": (lambda _: None, 8),
    "without its manifests": (drop("unbroken/manifests/*"), 8),
    "without the last manifest": (drop("unbroken/manifests/iter_8.pth.json"), 8),
    "without its journal": (drop("unbroken/journal.jsonl"), 8),
    "without its record": (drop("unbroken/run.json"), 8),
    "without any record": (drop("unbroken/**/*.json*"), 8),
    "with half of a manifest": (cut("unbroken/manifests/iter_8.pth.json"), 8),
    "without its last checkpoint": (drop("iter_8.pth"), 6),
    "with half of its last checkpoint": (cut("iter_8.pth"), 6),
    "renamed": (lambda run: (run / "iter_8.pth").replace(run / "iter_1.pth") and None, 8),
}


@pytest.mark.parametrize("name", CHANGES)
def test_all_ways_to_look_agree_on_the_furthest_checkpoint(name: str, root: Path) -> None:
    change, step = CHANGES[name]
    run = root / "one"
    change(run)
    furthest, sound = RunView(run).furthest, survey(run, ITERATIONS).newest_good
    assert furthest is not None and sound is not None
    seen = {"a view": furthest.step, "a launch": sound.step, "ls": summary_of(run).step, "show": overview_of(run).step}
    assert seen == dict.fromkeys(seen, step)
    assert facts_of(run).samples == step * 2, "what compare says of the data is of the same checkpoint"


def test_a_run_is_lost_where_something_was_saved_and_nothing_is_left(root: Path) -> None:
    view = RunView(root / "one")
    assert not view.is_lost
    drop("*.pth")(root / "one")
    assert RunView(root / "one").is_lost and RunView(root / "one").furthest is None
    assert not RunView(root / "nowhere").is_lost, "nothing was saved there"
