"""What a row's settings are compared with, where each config has a folder of its own for its runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from unbroken.clock import SystemClock
from unbroken.logbook.entry import note_run, write_log
from unbroken.logbook.table import Book
from unbroken.run import EPOCHS, ITERATIONS, Layout
from unbroken.storage import Disk

FOCAL = {"OPTIMIZATION": {"LR": 0.004}, "MODEL": {"FOCAL_THRESHOLD": 0.5, "LOSS_WEIGHT": 1.0}}
NO_FOCAL = {"OPTIMIZATION": {"LR": 0.004}, "MODEL": {"FOCAL_THRESHOLD": 1.1, "LOSS_WEIGHT": 0.0}}
SESSION = "20260205_100000"


@pytest.fixture(autouse=True)
def _in_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(folder: str, config: Mapping[str, Any], *, layout: Layout = EPOCHS, hour: int = 10, recipe: str = "r") -> Path:
    """The records of a run that was stopped after its first session."""
    own = Path(folder) / "unbroken"
    (own / "configs").mkdir(parents=True)
    record = {"id": f"{hash(folder):x}", "recipe": recipe, "tag": Path(folder).name, "seed": 0, "conditions": {}}
    record |= {"created": f"2026-02-05T{hour}:00:00Z", "layout": asdict(layout), "parent": None}
    (own / "run.json").write_text(json.dumps(record))
    (own / "configs" / f"{SESSION}.json").write_text(json.dumps(config))
    begun = {"time": f"2026-02-05T{hour}:00:00Z", "session": SESSION, "event": "session", "plan": {"verdict": "Fresh"}}
    ended = {"time": f"2026-02-05T{hour}:30:00Z", "session": SESSION, "event": "stopped", "step": 3}
    (own / "journal.jsonl").write_text("".join(f"{json.dumps(event)}\n" for event in (begun, ended)))
    return Path(folder)


def differences(of: Path) -> str:
    """What its row says of its settings: as its session keeps it, and as `unbroken log` does."""
    book, said = Path("experiments_log.txt"), []
    for one in (True, False):
        book.unlink(missing_ok=True)
        if one:
            note_run(Disk(), SystemClock(), of, said.append)
        else:
            write_log(Disk(), SystemClock(), Path(), book, language="en")
        said += [row[2] for row in Book(book.read_text("utf-8")).rows if row[1] == of.name]
    assert len(said) == 2 and len(set(said)) == 1, said
    return said[0]


def test_an_ablation_with_a_config_of_its_own_says_what_differs_from_the_baseline_of_the_config_beside_it() -> None:
    run("output/models/focal/baseline_v2", {**FOCAL, "OPTIMIZATION": {"LR": 0.008}}, hour=12)
    run("output/models/focal/baseline", FOCAL, hour=11)
    ablation = run("output/models/no_focal/ablation_no_focal", NO_FOCAL, hour=10)
    assert differences(ablation) == "FOCAL_THRESHOLD=1.1, LOSS_WEIGHT=0"
    later = run("output/models/no_focal/again", {**NO_FOCAL, "OPTIMIZATION": {"LR": 0.002}}, hour=13)
    assert differences(later) == "LR=0.002, FOCAL_THRESHOLD=1.1, LOSS_WEIGHT=0"


def test_a_baseline_of_the_same_config_comes_first() -> None:
    run("output/models/focal/baseline", FOCAL, hour=10)
    run("output/models/no_focal/baseline_no_focal", NO_FOCAL, hour=12)
    later = run("output/models/no_focal/later", {**NO_FOCAL, "OPTIMIZATION": {"LR": 0.002}}, hour=13)
    assert differences(later) == "LR=0.002"
    assert differences(Path("output/models/no_focal/baseline_no_focal")).endswith("baseline")


def test_nothing_else_beside_it_is_compared_with() -> None:
    run("output/models/focal/first", FOCAL, hour=9)
    run("output/models/focal/baseline_of_another_recipe", FOCAL, recipe="other", hour=9)
    assert differences(run("output/models/no_focal/ablation", NO_FOCAL)).endswith("baseline")


def test_where_the_folders_are_not_of_configs_they_are_different_projects() -> None:
    run("runs/one/baseline", FOCAL, layout=ITERATIONS, hour=9)
    assert differences(run("runs/two/first", NO_FOCAL, layout=ITERATIONS)).endswith("baseline")
